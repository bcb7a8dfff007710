"""WatchThreads: the events of all threads of a tenant, resumed by cursor."""

import asyncio
import base64
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from tests.rpc.failures import failure_of
from tests.rpc.rig import Metadata, Rig, make_key, running
from tests.rpc.runs import (
    ADD,
    DEADLINE_SECONDS,
    DONE,
    HANG,
    Event,
    collected,
    create,
    kinds,
    make_agent,
    pb,
    run,
    scripted,
    sequences,
    watch,
)

Batches = list[Any]


def watch_all(rig: Rig, *, metadata: Metadata = (), **fields: Any) -> Any:
    return rig.threads.WatchThreads(pb.WatchThreadsRequest(**fields), metadata=tuple(metadata))


async def batches(stream: Any, enough: Callable[[list[Event]], bool]) -> Batches:
    """The answers of a stream until their stored events are enough; then it is left."""
    found: Batches = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not enough(events_in(found)):
            response = await stream.read()
            assert response, "the stream ended"
            assert response.cursor
            assert 1 <= len(response.events) <= 64
            found.append(response)
    stream.cancel()
    return found


def events_in(found: Batches) -> list[Event]:
    return [event for response in found for event in response.events if event.sequence]


def ends(count: int) -> Callable[[list[Event]], bool]:
    return lambda events: kinds(events).count("thread_ended") >= count


def by_thread(events: list[Event]) -> dict[str, list[Event]]:
    logs = defaultdict(list)
    for event in events:
        logs[event.thread].append(event)
    return dict(logs)


async def begin(rig: Rig, **fields: Any) -> tuple[Any, str]:
    """A stream that has begun, and the cursor that it began with."""
    stream = watch_all(rig, **fields)
    async with asyncio.timeout(DEADLINE_SECONDS):
        first = await stream.read()
    assert [event.HasField("heartbeat") for event in first.events] == [True]
    return stream, first.cursor


async def test_a_stream_begins_with_now_and_says_so(rig: Rig) -> None:
    await make_agent(rig)
    await run(rig, "before")

    stream, _ = await begin(rig)
    await run(rig, "t1")
    found = await batches(stream, ends(1))

    assert by_thread(events_in(found)) == {"threads/t1": await collected(watch(rig, "threads/t1"))}


async def test_each_thread_comes_in_order_with_none_missing(rig: Rig) -> None:
    await make_agent(rig, "helper", model=scripted({**ADD, "delay_ms": 5}, {**ADD, "delay_ms": 5}, DONE))
    stream, _ = await begin(rig)

    names = [thread.name for thread in await asyncio.gather(*(create(rig) for _ in range(12)))]
    found = await batches(stream, ends(12))

    logs = by_thread(events_in(found))
    assert logs == {name: await collected(watch(rig, name)) for name in names}


async def test_a_stream_goes_on_after_any_cursor_with_none_missing_and_none_twice(rig: Rig) -> None:
    await make_agent(rig, "helper", model=scripted({"calls": ADD["calls"] * 32}, DONE))
    stream, origin = await begin(rig)
    await asyncio.gather(*(run(rig, f"t{number}") for number in range(3)))
    found = await batches(stream, ends(3))
    whole = events_in(found)
    assert max(len(response.events) for response in found) == 64, "an append is larger than an answer"

    from_origin = await batches(watch_all(rig, after_cursor=origin), ends(3))
    assert by_thread(events_in(from_origin)) == by_thread(whole)
    seen: list[Event] = []
    for response in from_origin[:-1]:
        seen += [event for event in response.events if event.sequence]
        left = 3 - kinds(seen).count("thread_ended")
        rest = await batches(watch_all(rig, after_cursor=response.cursor), ends(left))
        assert by_thread(seen + events_in(rest)) == by_thread(whole)


async def test_a_reader_who_connects_anew_for_every_answer_misses_nothing(rig: Rig) -> None:
    await make_agent(rig, "helper", model=scripted({**ADD, "delay_ms": 10}, DONE))
    stream, cursor = await begin(rig)
    stream.cancel()
    making = asyncio.gather(*(create(rig) for _ in range(5)))

    seen: list[Event] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while kinds(seen).count("thread_ended") < 5:
            stream = watch_all(rig, after_cursor=cursor)
            await stream.read()
            response = await stream.read()
            stream.cancel()
            seen += [event for event in response.events if event.sequence]
            cursor = response.cursor

    names = [thread.name for thread in await making]
    assert by_thread(seen) == {name: await collected(watch(rig, name)) for name in names}


async def test_a_cursor_outlives_the_server(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig, "helper", HANG)
        stream, _ = await begin(rig)
        await create(rig, "t1")
        found = await batches(stream, lambda events: "model_call_started" in kinds(events))
        seen = events_in(found)
    async with running(tmp_path / "t.db") as rig:
        later = watch_all(rig, after_cursor=found[-1].cursor)
        await rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1"))
        rest = events_in(await batches(later, ends(1)))

        assert seen + rest == await collected(watch(rig, "threads/t1"))


async def test_a_filter_lets_only_through_what_fits(rig: Rig) -> None:
    await make_agent(rig, "one")
    await make_agent(rig, "two")
    filters = {
        "agent = agents/two": "t2 t4",
        "tags:a": "t1 t2",
        "tags:a AND agent = agents/two": "t2",
        "labels.team = x": "t3",
        'subject.type = "ticket" AND subject.id = "17"': "t4",
        "trigger.type = MANUAL": "t5",
        "agent != agents/one": "t2 t4",
    }
    streams = [(await begin(rig, filter=text))[0] for text in filters]

    threads: dict[str, dict[str, Any]] = {
        "t1": {"agent": "one", "tags": ["a"]},
        "t2": {"agent": "two", "tags": ["a", "b"]},
        "t3": {"agent": "one", "labels": {"team": "x"}},
        "t4": {"agent": "two", "subject": {"type": "ticket", "id": "17"}},
        "t5": {"agent": "one", "trigger": {"type": 1}},
    }
    for thread_id, fields in threads.items():
        await run(rig, thread_id, **fields)

    for stream, names in zip(streams, filters.values(), strict=True):
        wanted = names.split()
        logs = by_thread(events_in(await batches(stream, ends(len(wanted)))))
        assert list(logs) == [f"threads/{thread_id}" for thread_id in wanted]
        for name, log in logs.items():
            assert log == await collected(watch(rig, name))


async def test_only_the_types_that_are_asked_for_come(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE)
    stream, _ = await begin(rig, event_types=["tool_call_completed", "thread_ended"])

    await run(rig)
    found = await batches(stream, ends(1))

    assert kinds(events_in(found)) == ["tool_call_completed", "thread_ended"]
    failure = await failure_of(collected(watch_all(rig, event_types=["nothing"])))
    assert failure.fields.keys() == {"event_types[0]"}


async def test_a_faulty_filter_is_refused(rig: Rig) -> None:
    for text in ("state = RUNNING", "tags = a AND", "agent = helper", "create_time > 2026"):
        failure = await failure_of(collected(watch_all(rig, filter=text)))
        assert (failure.reason, *failure.fields) == ("FIELD_INVALID", "filter")


async def test_a_stream_to_which_nothing_fits_shows_that_it_lives_and_gets_on(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", heartbeat_seconds=0.2) as rig:
        turn, limits = {**ADD, "delay_ms": 10}, {"max_iterations": 500, "max_tool_calls": 500}
        await make_agent(rig, "busy", model=scripted(turn, repeat=500), limits=limits)
        stream, first = await begin(rig, filter="tags:nobody")
        await create(rig, "t1", "busy")

        cursors = [first]
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(cursors) < 4:
                response = await stream.read()
                assert kinds(response.events) == ["heartbeat"]
                cursors.append(response.cursor)
        stream.cancel()

        assert len(set(cursors)) == 4
        await rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1"))


async def test_a_thread_that_was_deleted_is_left_out(rig: Rig) -> None:
    await make_agent(rig)
    stream, origin = await begin(rig)
    stream.cancel()
    await run(rig, "gone")
    await run(rig, "stays")
    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name="threads/gone"))

    found = await batches(watch_all(rig, after_cursor=origin), ends(1))

    assert list(by_thread(events_in(found))) == ["threads/stays"]


async def test_a_foreign_or_damaged_cursor_is_refused(rig: Rig) -> None:
    await make_key(rig, "other")
    stream, cursor = await begin(rig, filter="tags:a")
    stream.cancel()
    data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    other: Metadata = (("treadle-tenant", "other"),)

    foreign = [
        watch_all(rig, after_cursor=cursor),
        watch_all(rig, after_cursor=cursor, filter="tags:b"),
        watch_all(rig, after_cursor=cursor, filter="tags:a", metadata=other),
        *(
            watch_all(rig, after_cursor=damaged, filter="tags:a")
            for damaged in (
                "nonsense",
                "!",
                "é",
                cursor[:-4],
                cursor + "AAAA",
                base64.urlsafe_b64encode(data[:-1] + bytes([data[-1] ^ 1])).decode(),
            )
        ),
    ]

    for call in foreign:
        failure = await failure_of(collected(call))
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert failure.fields.keys() == {"after_cursor"}
    again, _ = await begin(rig, after_cursor=cursor, filter="tags:a", event_types=["thread_ended"])
    again.cancel()


async def test_a_cursor_that_the_store_has_not_reached_is_out_of_range(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig)
        await run(rig, "t1")
    shutil.copyfile(tmp_path / "t.db", tmp_path / "older.db")
    async with running(tmp_path / "t.db") as rig:
        await run(rig, "t2")
        stream, cursor = await begin(rig)
        stream.cancel()

    async with running(tmp_path / "older.db") as rig:
        failure = await failure_of(collected(watch_all(rig, after_cursor=cursor)))

        assert (failure.code, failure.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")
        assert failure.metadata["first"] == "1"
        assert int(failure.metadata["last"]) > 0


async def test_a_stream_shows_nothing_of_other_tenants(rig: Rig) -> None:
    await make_key(rig, "other")
    other: Metadata = (("treadle-tenant", "other"),)
    await make_agent(rig)
    await make_agent(rig, metadata=other)
    stream, origin = await begin(rig)

    await run(rig, "theirs", metadata=other)
    await run(rig, "ours")
    live = await batches(stream, ends(1))
    later = await batches(watch_all(rig, after_cursor=origin), ends(1))

    for found in (live, later):
        assert list(by_thread(events_in(found))) == ["threads/ours"]


async def test_what_is_ready_together_comes_together(rig: Rig) -> None:
    await make_agent(rig)
    stream, origin = await begin(rig)
    stream.cancel()
    for number in range(10):
        await run(rig, f"t{number}")

    found = await batches(watch_all(rig, after_cursor=origin), ends(10))

    events = events_in(found)
    assert sequences(events) == list(range(1, len(events) // 10 + 1)) * 10
    assert len(found) <= 2 + len(events) // 64 + 1
