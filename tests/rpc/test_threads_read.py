"""GetThread, ListThreads, ListThreadEvents and ListIterations."""

from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, make_key
from tests.rpc.runs import (
    ADD,
    DONE,
    HANG,
    Thread,
    collected,
    create,
    get,
    make_agent,
    pb,
    run,
    scripted,
    sequences,
    taken,
    until_event,
    watch,
)

MIB = 1024 * 1024
LONG = {**ADD, "thought": "x" * 30_000}
"""Forty of them are more than 1 MiB."""


async def listed(rig: Rig, **fields: Any) -> Any:
    return await rig.threads.ListThreads(pb.ListThreadsRequest(**fields))


async def events_of(rig: Rig, name: str, **fields: Any) -> Any:
    return await rig.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent=name, **fields))


async def iterations_of(rig: Rig, name: str, **fields: Any) -> Any:
    return await rig.threads.ListIterations(pb.ListIterationsRequest(parent=name, **fields))


async def pages(method: Any, *arguments: Any, **fields: Any) -> list[Any]:
    """All pages of a list."""
    found, token = [], ""
    while True:
        found.append(await method(*arguments, page_token=token, **fields))
        token = found[-1].next_page_token
        if not token:
            return found


async def long_run(rig: Rig) -> Any:
    """A thread of forty long turns."""
    limits = {"max_iterations": 40}
    await make_agent(rig, "wordy", model=scripted(LONG, repeat=40), limits=limits)
    return await run(rig, "long", "wordy")


async def test_iterations_are_in_the_full_view_only(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE)
    ran = await run(rig, "t1")

    unsaid = await rig.threads.GetThread(pb.GetThreadRequest(name="threads/t1"))
    basic, full = await get(rig, "threads/t1"), await get(rig, "threads/t1", full=True)

    assert unsaid == basic
    assert not basic.iterations
    assert len(full.iterations) == 2
    full.ClearField("iterations")
    assert basic == full
    assert basic.last_sequence == ran.last_sequence


async def test_a_thread_at_work_is_shown_as_its_log_is(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, HANG)
    await create(rig, "t1")
    await until_event(rig, "threads/t1", "tool_call_completed")
    await until_event(rig, "threads/t1", "iteration_started")

    shown = await get(rig, "threads/t1", full=True)

    assert shown.state == Thread.RUNNING
    assert (shown.actions_taken, list(shown.tools_used)) == (1, ["calculator"])
    assert shown.iterations[0].actions[0].observation == "42"
    assert shown.HasField("start_time")
    assert not shown.HasField("end_time")
    events = await events_of(rig, "threads/t1", after_sequence=shown.last_sequence - 1)
    assert events.events[0].sequence == shown.last_sequence


async def test_a_queued_thread_says_what_it_waits_for(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG, limits={"max_concurrent_threads": 1})
    await create(rig, "first")

    queued = await create(rig, "second")

    assert queued.state == Thread.PENDING
    (waiting,) = queued.waiting_for
    assert (waiting.kind, waiting.resource) == (6, "agents/helper")
    assert waiting.since == queued.create_time
    (shown,) = (await listed(rig, filter="state = PENDING")).threads
    assert shown == queued


async def test_an_absent_thread_is_not_found(rig: Rig) -> None:
    asks = [get(rig, "threads/none"), events_of(rig, "threads/none"), iterations_of(rig, "threads/none")]

    for ask in asks:
        failure = await failure_of(ask)
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        assert failure.metadata == {"resource": "threads/none"}
        assert failure.details["ResourceInfo"].resource_type == "treadle.dev/Thread"


async def test_a_full_view_stops_at_1_mib_and_the_turns_come_in_pages(rig: Rig) -> None:
    ran = await long_run(rig)

    full = await get(rig, "threads/long", full=True)
    found = await pages(iterations_of, rig, "threads/long", page_size=1000)

    assert ran == full
    assert 0.9 * MIB < full.ByteSize() <= MIB
    assert full.iterations_truncated
    assert full.iteration_count == 40
    turns = [turn for page in found for turn in page.iterations]
    assert [turn.number for turn in turns] == list(range(1, 41))
    assert turns[: len(full.iterations)] == list(full.iterations)
    assert all(page.ByteSize() <= MIB + 1024 for page in found)
    assert {page.total_size for page in found} == {40}


async def test_turns_come_in_pages_of_the_size_that_is_asked_for(rig: Rig) -> None:
    await make_agent(rig, "helper", model=scripted(ADD, ADD, ADD, ADD, DONE))
    await run(rig, "t1")

    found = await pages(iterations_of, rig, "threads/t1", page_size=2)

    assert [[turn.number for turn in page.iterations] for page in found] == [[1, 2], [3, 4], [5]]
    failure = await failure_of(iterations_of(rig, "threads/t1", page_size=-1))
    assert failure.fields.keys() == {"page_size"}


async def test_events_come_in_pages_that_cover_the_log_once(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE)
    await run(rig, "t1")
    whole = await collected(watch(rig, "threads/t1"))

    for page_size in (1, 4, 1000, 5000):
        found = await pages(events_of, rig, "threads/t1", page_size=page_size)
        assert [event for page in found for event in page.events] == whole
        assert all(len(page.events) == page_size for page in found[:-1])
    by_default = await events_of(rig, "threads/t1")
    assert list(by_default.events) == whole[:50]
    later = await pages(events_of, rig, "threads/t1", page_size=4, after_sequence=3)
    assert [event for page in later for event in page.events] == whole[3:]


async def test_a_page_of_events_has_something_before_the_end_whatever_types_are_asked_for(rig: Rig) -> None:
    await make_agent(rig, "helper", model=scripted(ADD, repeat=40), limits={"max_iterations": 40})
    await run(rig, "t1")
    whole = await collected(watch(rig, "threads/t1"))
    assert len(whole) > 300

    rare = await pages(events_of, rig, "threads/t1", page_size=2, event_types=["thread_ended"])
    some = await pages(events_of, rig, "threads/t1", page_size=7, event_types=["iteration_started"])

    assert [sequences(page.events) for page in rare] == [[len(whole)]]
    assert [len(page.events) for page in some] == [7, 7, 7, 7, 7, 5]
    assert [event for page in some for event in page.events] == [
        event for event in whole if event.HasField("iteration_started")
    ]
    unknown = await failure_of(events_of(rig, "threads/t1", event_types=["iteration_begun"]))
    assert unknown.fields.keys() == {"event_types[0]"}


async def test_a_page_of_events_holds_at_most_1_mib(rig: Rig) -> None:
    await long_run(rig)

    found = await pages(events_of, rig, "threads/long", page_size=1000)

    assert len(found) > 1
    assert all(page.ByteSize() <= MIB + 64 * 1024 for page in found)
    events = [event for page in found for event in page.events]
    assert events == await collected(watch(rig, "threads/long"))


async def test_a_sequence_that_the_log_has_not_reached_is_out_of_range(rig: Rig) -> None:
    await make_agent(rig)
    ran = await run(rig, "t1")
    last = ran.last_sequence

    assert not (await events_of(rig, "threads/t1", after_sequence=last)).events
    for after in (last + 1, 2**63 - 1):
        failure = await failure_of(events_of(rig, "threads/t1", after_sequence=after))
        assert (failure.code, failure.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")
        assert failure.metadata == {"first": "1", "last": str(last)}
    failure = await failure_of(events_of(rig, "threads/t1", after_sequence=-1))
    assert failure.fields.keys() == {"after_sequence"}


async def test_a_list_is_newest_first_in_pages_that_cover_it_once(rig: Rig) -> None:
    await make_agent(rig)
    names = [(await run(rig, f"t{number}")).name for number in range(7)]

    for page_size in (1, 3, 7, 1000, 5000):
        found = await pages(listed, rig, page_size=page_size)
        assert [thread.name for page in found for thread in page.threads] == names[::-1]
        assert all(len(page.threads) == page_size for page in found[:-1])
    oldest_first = await pages(listed, rig, page_size=2, order_by="create_time asc")
    assert [thread.name for page in oldest_first for thread in page.threads] == names
    (page,) = await pages(listed, rig)
    assert list(page.threads) == [await get(rig, name) for name in names[::-1]]


async def test_a_page_of_full_threads_holds_at_most_1_mib_and_never_nothing(rig: Rig) -> None:
    await make_agent(rig)
    await run(rig, "before")
    await long_run(rig)
    await run(rig, "as-long", "wordy")
    await run(rig, "after")

    found = await pages(listed, rig, view=Thread.FULL)

    assert [[thread.name for thread in page.threads] for page in found] == [
        ["threads/after", "threads/as-long"],
        ["threads/long", "threads/before"],
    ]
    assert all(page.ByteSize() <= MIB + 1024 for page in found)
    assert found[0].threads[0].iterations


async def test_lists_are_ordered_by_what_is_counted(rig: Rig) -> None:
    for count in (3, 1, 2):
        turn = {"text": "Done.", "usage": {"input_tokens": count}, "cost_micros": 10 * count}
        await make_agent(rig, f"a{count}", turn)
        await run(rig, f"t{count}", f"a{count}")

    async def ordered(text: str) -> str:
        found = await pages(listed, rig, page_size=1, order_by=text)
        return " ".join(thread.name[-2:] for page in found for thread in page.threads)

    assert await ordered("usage.total_tokens desc") == "t3 t2 t1"
    assert await ordered("cost.cost_micros") == "t1 t2 t3"
    assert await ordered("end_time desc") == "t2 t1 t3"


@pytest.mark.parametrize("order_by", ["state", "stop_reason desc", "agent", "session", "create_time, agent"])
async def test_an_order_that_is_not_built_is_refused(rig: Rig, order_by: str) -> None:
    failure = await failure_of(listed(rig, order_by=order_by))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NOT_SUPPORTED")
    assert failure.metadata == {"field": "order_by"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"order_by": "size"}, "order_by"),
        ({"order_by": "create_time up"}, "order_by"),
        ({"filter": "size = 1"}, "filter"),
        ({"filter": "state = SLEEPING"}, "filter"),
        ({"filter": "state ="}, "filter"),
        ({"filter": "x" * 5000}, "filter"),
        ({"page_size": -1}, "page_size"),
        ({"view": 9}, "view"),
        ({"page_token": "nonsense"}, "page_token"),
        ({"page_token": "!"}, "page_token"),
        ({"page_token": "é"}, "page_token"),
    ],
)
async def test_a_faulty_field_of_a_list_is_named(rig: Rig, fields: dict[str, Any], named: str) -> None:
    failure = await failure_of(listed(rig, **fields))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert failure.fields.keys() == {named}


async def test_a_token_fits_only_the_list_that_it_came_from(rig: Rig) -> None:
    await make_key(rig, "other")
    await make_agent(rig, "helper", ADD, DONE)
    for number in range(3):
        await run(rig, f"t{number}")
    threads = (await listed(rig, page_size=1)).next_page_token
    events = (await events_of(rig, "threads/t1", page_size=1)).next_page_token
    turns = (await iterations_of(rig, "threads/t1", page_size=1)).next_page_token
    damaged = threads[:-2] + ("AA" if threads[-2:] != "AA" else "BB")

    foreign = [
        listed(rig, page_token=threads, filter="tags:a"),
        listed(rig, page_token=threads, order_by="end_time"),
        listed(rig, page_token=events),
        listed(rig, page_token=damaged),
        rig.threads.ListThreads(
            pb.ListThreadsRequest(page_token=threads), metadata=(("treadle-tenant", "other"),)
        ),
        events_of(rig, "threads/t2", page_token=events),
        events_of(rig, "threads/t1", page_token=events, event_types=["thread_ended"]),
        events_of(rig, "threads/t1", page_token=events, after_sequence=2),
        events_of(rig, "threads/t1", page_token=turns),
        iterations_of(rig, "threads/t2", page_token=turns),
    ]

    for call in foreign:
        failure = await failure_of(call)
        assert (failure.reason, *failure.fields) == ("FIELD_INVALID", "page_token")
    free = await listed(rig, page_token=threads, page_size=2, view=Thread.FULL)
    assert [thread.name for thread in free.threads] == ["threads/t1", "threads/t0"]


async def test_a_list_may_be_shorter_than_asked_for_where_many_events_must_be_read(rig: Rig) -> None:
    turn = {"calls": [*ADD["calls"], *[{"name": "x"}] * 31]}
    await make_agent(rig, "busy", *[turn] * 75, HANG, limits={"max_tool_calls": 9999, "max_iterations": 99})
    for thread_id in ("t1", "t2", "t3"):
        await create(rig, thread_id, "busy")
    for thread_id in ("t1", "t2", "t3"):
        log = watch(rig, f"threads/{thread_id}", event_types=["iteration_started"])
        await taken(log, lambda events: len(events) > 75)

    found = await pages(listed, rig)

    assert (await get(rig, "threads/t1")).last_sequence > 5_000
    assert [[thread.name[-2:] for thread in page.threads] for page in found] == [["t3"], ["t2"], ["t1"]]
