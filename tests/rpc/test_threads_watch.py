"""WatchThread: the events of one thread."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from structlog.testing import capture_logs

from tests.rpc.failures import Failure, failure_of
from tests.rpc.rig import Rig, running
from tests.rpc.runs import (
    ADD,
    DONE,
    HANG,
    Event,
    Thread,
    collected,
    create,
    get,
    kinds,
    make_agent,
    pb,
    run,
    scripted,
    sequences,
    taken,
    thread_of,
    until_event,
    watch,
)
from tests.waiting import eventually

NARROW = (("grpc.http2.bdp_probe", 0),)
"""Without the probe a client's window stays at 64 KiB, so that little is enough to fill it."""


async def test_a_watch_gives_what_has_happened_and_then_what_happens(rig: Rig) -> None:
    await make_agent(rig, "helper", {**ADD, "delay_ms": 100}, {**DONE, "delay_ms": 100})
    await create(rig, "t1")

    call = watch(rig, "threads/t1")
    events = await collected(call)

    assert ("treadle-thread", "threads/t1") in tuple(await call.initial_metadata())
    assert sequences(events) == list(range(1, len(events) + 1))
    assert {event.thread for event in events} == {"threads/t1"}
    assert kinds(events)[-1] == "thread_ended"
    assert events == await collected(watch(rig, "threads/t1"))


async def test_a_watch_goes_on_after_any_sequence(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE)
    await run(rig, "t1")
    whole = await collected(watch(rig, "threads/t1"))

    for after in range(len(whole) + 1):
        assert await collected(watch(rig, "threads/t1", after)) == whole[after:]


async def test_a_sequence_that_is_not_there_is_refused(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    await make_agent(rig, "quick")
    await create(rig, "living")
    await until_event(rig, "threads/living", "model_call_started")
    await run(rig, "ended", "quick")

    for thread_id in ("living", "ended"):
        last = (await get(rig, f"threads/{thread_id}")).last_sequence
        for after in (last + 1, 2**63 - 1):
            failure = await failure_of(collected(watch(rig, f"threads/{thread_id}", after)))
            assert (failure.code, failure.reason) == (
                grpc.StatusCode.OUT_OF_RANGE,
                "SEQUENCE_OUT_OF_RANGE",
            )
            assert failure.metadata == {"first": "1", "last": str(last)}
    for after in (-1, -(2**63)):
        failure = await failure_of(collected(watch(rig, "threads/ended", after)))
        assert (failure.reason, *failure.fields) == ("FIELD_INVALID", "after_sequence")


async def test_an_absent_thread_cannot_be_watched(rig: Rig) -> None:
    failure = await failure_of(collected(watch(rig, "threads/none")))

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert failure.metadata == {"resource": "threads/none"}


async def test_at_the_head_of_a_living_thread_a_watch_waits_and_shows_that_it_lives(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", heartbeat_seconds=0.2) as rig:
        await make_agent(rig, "helper", HANG)
        await create(rig, "t1")
        await until_event(rig, "threads/t1", "model_call_started")
        last = (await get(rig, "threads/t1")).last_sequence

        waiting = watch(rig, "threads/t1", last, event_types=["thread_ended"])
        events = await taken(waiting, lambda events: len(events) > 1)

    assert kinds(events) == ["heartbeat", "heartbeat"]
    assert [event.heartbeat.last_sequence for event in events] == [last, last]
    assert sequences(events) == [0, 0]


async def test_only_the_types_that_are_asked_for_come(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE)
    await run(rig, "t1")
    whole = await collected(watch(rig, "threads/t1"))
    wanted = ["iteration_started", "thread_ended"]

    some = await collected(watch(rig, "threads/t1", event_types=wanted))

    assert some == [event for event in whole if event.WhichOneof("payload") in wanted]
    unknown = await failure_of(collected(watch(rig, "threads/t1", event_types=[*wanted, "Ended"])))
    assert unknown.fields.keys() == {"event_types[2]"}
    empty = await failure_of(collected(watch(rig, "threads/t1", event_types=[""])))
    assert empty.fields.keys() == {"event_types[0]"}


async def test_a_snapshot_comes_first_whatever_is_asked_for(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE)
    await run(rig, "t1")
    whole = await collected(watch(rig, "threads/t1"))
    full = await get(rig, "threads/t1", full=True)

    from_start = await collected(watch(rig, "threads/t1", snapshot=True))
    at_end = await collected(watch(rig, "threads/t1", len(whole), snapshot=True))
    one_type = await collected(watch(rig, "threads/t1", snapshot=True, event_types=["thread_ended"]))

    for events in (from_start, at_end, one_type):
        first = events[0]
        assert (first.thread, first.sequence, first.snapshot) == ("threads/t1", 0, full)
    assert from_start[1:] == whole
    assert at_end[1:] == []
    assert one_type[1:] == whole[-1:]


async def test_a_snapshot_of_a_living_thread_leads_into_what_follows(rig: Rig) -> None:
    await make_agent(rig, "helper", {**ADD, "delay_ms": 150}, {**DONE, "delay_ms": 150})
    await create(rig, "t1")
    await until_event(rig, "threads/t1", "model_call_started")

    snapshot, *events = await collected(watch(rig, "threads/t1", 2, snapshot=True))

    assert snapshot.snapshot.state == Thread.RUNNING
    assert 2 < snapshot.snapshot.last_sequence < len(events)
    assert sequences(events) == list(range(3, len(events) + 3))


async def test_pieces_joined_are_the_message_for_who_comes_late_too(rig: Rig) -> None:
    text = "abcdefghij" * 20
    await make_agent(rig, "helper", {"text": text, "pieces": 40, "delay_ms": 600})
    await create(rig, "t1")
    await taken(
        watch(rig, "threads/t1", include_deltas=True),
        lambda events: any(event.message_delta.offset > 40 for event in events),
    )

    events = await collected(watch(rig, "threads/t1", include_deltas=True))

    pieces = [event.message_delta for event in events if event.HasField("message_delta")]
    assert len(pieces[0].text) > 40
    assert "".join(piece.text for piece in pieces) == text
    assert all(event.sequence == 0 for event in events if event.HasField("message_delta"))
    assert "message_delta" not in kinds(await collected(watch(rig, "threads/t1", include_deltas=True)))


async def test_many_watch_one_thread_and_see_the_same(rig: Rig) -> None:
    await make_agent(rig, "helper", model=scripted({**ADD, "delay_ms": 20}, repeat=8))
    await create(rig, "t1")

    logs = await asyncio.gather(*(collected(watch(rig, "threads/t1", after)) for after in (0, 1, 2) * 10))

    assert {tuple(sequences(log)) for log in logs} == {
        tuple(range(after + 1, len(logs[0]) + 1)) for after in (0, 1, 2)
    }


async def test_a_watch_of_a_thread_that_is_deleted_ends_with_its_end(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    await create(rig, "t1")
    watching = asyncio.ensure_future(collected(watch(rig, "threads/t1")))
    await until_event(rig, "threads/t1", "model_call_started")

    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name="threads/t1", force=True))

    events = await watching
    assert events[-1].thread_ended.state == Thread.CANCELLED
    failure = await failure_of(collected(watch(rig, "threads/t1", events[-1].sequence)))
    assert failure.metadata == {"resource": "threads/t1"}


@asynccontextmanager
async def narrow(rig: Rig) -> AsyncIterator[Rig]:
    """The same server over a channel that holds little."""
    async with grpc.aio.insecure_channel(rig.server.address, options=NARROW) as channel:
        yield Rig(rig.server, channel)


async def wordy(rig: Rig, *, delay_ms: int = 0) -> None:
    """An agent that says more than a narrow channel holds."""
    turn = {**ADD, "thought": "x" * 60_000, "delay_ms": delay_ms}
    model, limits = scripted(turn, repeat=60), {"max_iterations": 60}
    await make_agent(rig, "wordy", model=model, limits=limits)


async def too_slow(logged: list[Any]) -> None:
    """Returns once the server has given a reader up."""
    await eventually(lambda: any(line.get("reason") == "SUBSCRIBER_TOO_SLOW" for line in logged))


async def read_late(stream: Any) -> tuple[list[Event], Failure]:
    """What a stream still gives, and what it ends with."""
    seen: list[Event] = []

    async def rest() -> None:
        while response := await stream.read():
            seen.extend(event for event in response.events if event.sequence)

    async with asyncio.timeout(20):
        failure = await failure_of(rest())
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SUBSCRIBER_TOO_SLOW")
    assert failure.details["RetryInfo"].retry_delay.ToMicroseconds() > 0
    return seen, failure


async def test_a_reader_who_stays_behind_learns_the_sequence_to_go_on_after(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", subscriber_stall_seconds=0.3) as rig, narrow(rig) as reader:
        await wordy(rig)
        await run(rig, "t1", "wordy")
        whole = await collected(watch(rig, "threads/t1"))

        with capture_logs() as logged:
            stream = watch(reader, "threads/t1")
            await too_slow(logged)
        seen, failure = await read_late(stream)

        assert failure.metadata.keys() == {"last_sequence"}
        last = int(failure.metadata["last_sequence"])
        assert seen == whole[:last]
        assert await collected(watch(rig, "threads/t1", last)) == whole[last:]


async def test_a_reader_of_all_threads_who_stays_behind_learns_the_cursor(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", subscriber_stall_seconds=0.3) as rig, narrow(rig) as reader:
        await wordy(rig)
        stream = reader.threads.WatchThreads(pb.WatchThreadsRequest())
        assert await stream.read()
        with capture_logs() as logged:
            await run(rig, "t1", "wordy")
            await too_slow(logged)
        seen, failure = await read_late(stream)

        assert failure.metadata.keys() == {"cursor"}
        request = pb.WatchThreadsRequest(after_cursor=failure.metadata["cursor"])
        rest = await taken(rig.threads.WatchThreads(request), lambda events: "thread_ended" in kinds(events))
        whole = await collected(watch(rig, "threads/t1"))
        assert 0 < len(seen) < len(whole)
        assert seen + [event for event in rest if event.sequence] == whole


async def test_a_reader_who_is_let_go_does_not_take_its_thread_along(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", subscriber_stall_seconds=0.2) as rig, narrow(rig) as reader:
        await wordy(rig, delay_ms=30)
        with capture_logs() as logged:
            request = pb.ExecuteAgentStreamRequest(
                thread=thread_of("wordy"), thread_id="t1", on_deadline=pb.ExecuteAgentRequest.CANCEL
            )
            stream = reader.threads.ExecuteAgentStream(request)
            await too_slow(logged)
        assert (await get(rig, "threads/t1")).state == Thread.RUNNING

        await read_late(stream)

        end = (await collected(watch(rig, "threads/t1")))[-1].thread_ended
        assert end.stop_reason == Thread.MAX_ITERATIONS
