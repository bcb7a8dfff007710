"""CancelThread, and what else stops threads."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, running
from tests.rpc.runs import (
    ADD,
    HANG,
    HOLD,
    HeldTool,
    Thread,
    collected,
    create,
    ended,
    get,
    kinds,
    make_agent,
    pb,
    run,
    thread_of,
    until_event,
    watch,
)
from tests.stores.kit import Gate
from tests.waiting import eventually

T1 = "threads/t1"


async def cancel(rig: Rig, name: str = T1, **fields: Any) -> Any:
    async with asyncio.timeout(20):
        return await rig.threads.CancelThread(pb.CancelThreadRequest(name=name, **fields))


async def hanging(rig: Rig) -> None:
    """Thread t1, whose model does not answer."""
    await make_agent(rig, "helper", ADD, HANG)
    await create(rig, "t1")
    await until_event(rig, T1, "tool_call_completed")


@asynccontextmanager
async def holding(path: Path, tool: HeldTool) -> AsyncIterator[Rig]:
    """A server with thread t1, which is within a call of the tool."""
    async with running(path, make_toolbox=tool) as rig:
        await make_agent(rig, "helper", HOLD, {"text": "After it."})
        await create(rig, "t1")
        await eventually(lambda: tool.calls == 1)
        yield rig
        tool.opening.set()


async def test_a_cancelled_thread_has_ended_when_the_call_returns_and_keeps_what_it_had(rig: Rig) -> None:
    await hanging(rig)

    answered = await cancel(rig, reason="no longer needed")

    assert (answered.state, answered.stop_reason) == (Thread.CANCELLED, Thread.CANCELLED_BY_CALLER)
    assert not answered.success
    assert not answered.HasField("error")
    assert answered.iterations[0].actions[0].observation == "42"
    assert answered == await get(rig, T1, full=True)
    events = await collected(watch(rig, T1))
    asked = next(event.control_requested for event in events if event.HasField("control_requested"))
    assert (asked.command, asked.principal, asked.reason) == (Thread.CANCEL, "local", "no longer needed")
    assert kinds(events)[-2:] == ["usage_recorded", "thread_ended"]


async def test_what_the_model_said_last_stays_as_the_output(tmp_path: Path) -> None:
    async with holding(tmp_path / "t.db", HeldTool()) as rig:
        answered = await cancel(rig)

    assert answered.output.text == "I hold."


async def test_a_queued_thread_is_cancelled_without_having_begun(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG, limits={"max_concurrent_threads": 1})
    await create(rig, "t0")
    await create(rig, "t1")

    answered = await cancel(rig)

    assert (answered.state, answered.iteration_count) == (Thread.CANCELLED, 0)
    assert not answered.HasField("start_time")
    assert (await get(rig, "threads/t0")).state == Thread.RUNNING


async def test_a_tool_is_asked_to_stop_and_its_outcome_is_unknown(tmp_path: Path) -> None:
    async with holding(tmp_path / "t.db", HeldTool()) as rig:
        began = monotonic()
        answered = await cancel(rig)

    assert monotonic() - began < 2
    (action,) = answered.iterations[0].actions
    assert "unknown" in action.observation
    assert answered.state == Thread.CANCELLED


async def test_a_tool_that_does_not_stop_is_given_up_after_its_grace(tmp_path: Path) -> None:
    tool = HeldTool(stubborn=True)
    async with holding(tmp_path / "t.db", tool) as rig:
        cancelling = asyncio.ensure_future(cancel(rig, grace={"nanos": 400_000_000}))
        await until_event(rig, T1, "control_requested")
        pending = await get(rig, T1)
        answered = await cancelling
        log = await collected(watch(rig, T1))
        tool.opening.set()

        assert (pending.state, pending.pending_command) == (Thread.RUNNING, Thread.CANCEL)
        assert (answered.state, answered.pending_command) == (Thread.CANCELLED, 0)
        asked, end = (
            next(event for event in log if event.HasField(kind))
            for kind in ("control_requested", "thread_ended")
        )
        grace = end.event_time.ToMicroseconds() - asked.event_time.ToMicroseconds()
        assert 400_000 <= grace < 2_000_000
        assert await collected(watch(rig, T1)) == log


async def test_a_second_cancel_waits_for_the_same_end(tmp_path: Path) -> None:
    async with holding(tmp_path / "t.db", HeldTool(stubborn=True)) as rig:
        answers = await asyncio.gather(
            *(cancel(rig, grace={"nanos": 300_000_000}, request_id=f"r{n % 3}") for n in range(9))
        )
        log = await collected(watch(rig, T1))

    assert all(answer == answers[0] for answer in answers)
    assert answers[0].state == Thread.CANCELLED
    assert kinds(log).count("control_requested") == 1


async def test_cancelling_a_cancelled_thread_is_ok(rig: Rig) -> None:
    await hanging(rig)
    first = await cancel(rig, request_id="r1")

    assert await cancel(rig) == await cancel(rig, request_id="r1") == first
    reused = await failure_of(cancel(rig, request_id="r1", reason="another"))
    assert (reused.reason, reused.metadata) == ("REQUEST_ID_REUSED", {"request_id": "r1"})


@pytest.mark.parametrize(
    ("turn", "state"),
    [({"text": "Done."}, "COMPLETED"), ({"error": {"code": "INTERNAL", "message": "no"}}, "FAILED")],
)
async def test_a_thread_that_ended_otherwise_is_not_cancelled(
    rig: Rig, turn: dict[str, Any], state: str
) -> None:
    await make_agent(rig, "helper", turn)
    before = await run(rig, "t1")

    failure = await failure_of(cancel(rig, request_id="r1"))

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "THREAD_STATE_CONFLICT",
    )
    assert failure.metadata == {"current_state": state, "allowed": "FORK,RETRY"}
    violation = failure.details["PreconditionFailure"].violations[0]
    assert (violation.type, violation.subject) == ("THREAD_STATE_CONFLICT", T1)
    assert await get(rig, T1, full=True) == before
    again = await failure_of(cancel(rig, request_id="r1"))
    assert again.reason == "THREAD_STATE_CONFLICT"


async def test_a_cancel_whose_caller_leaves_takes_effect(tmp_path: Path) -> None:
    tool = HeldTool(stubborn=True)
    async with holding(tmp_path / "t.db", tool) as rig:
        call = rig.threads.CancelThread(pb.CancelThreadRequest(name=T1, grace={"nanos": 300_000_000}))
        await until_event(rig, T1, "control_requested")
        call.cancel()

        assert (await ended(rig, T1)).state == Thread.CANCELLED


Begin = Callable[[Rig, int], Any]


def _execute(rig: Rig, on_deadline: int) -> Any:
    request = pb.ExecuteAgentRequest(thread=thread_of(), thread_id="t1", on_deadline=on_deadline)
    return rig.threads.ExecuteAgent(request)


def _stream(rig: Rig, on_deadline: int) -> Any:
    request = pb.ExecuteAgentStreamRequest(thread=thread_of(), thread_id="t1", on_deadline=on_deadline)
    return rig.threads.ExecuteAgentStream(request)


@pytest.mark.parametrize("on_deadline", ["DETACH", "CANCEL"])
@pytest.mark.parametrize("begin", [_execute, _stream])
async def test_a_caller_who_leaves_while_the_thread_is_made_leaves_it_or_cancels_it(
    rig: Rig, begin: Begin, on_deadline: str
) -> None:
    await make_agent(rig, "helper", {"text": "Done.", "delay_ms": 300})
    store, gate = rig.server.store, Gate()
    held = await gate.hold(store)

    call = begin(rig, pb.ExecuteAgentRequest.OnDeadline.Value(on_deadline))
    await eventually(lambda: store.committer.backlog == 1)
    call.cancel()
    await eventually(lambda: rig.server.admission.streams.count == 0)
    gate.opening.set()
    await held.wait()

    expected = Thread.CANCELLED if on_deadline == "CANCEL" else Thread.COMPLETED
    async with asyncio.timeout(10):
        while (await _names(rig)) != [T1]:
            pass
    assert (await ended(rig, T1)).state == expected


async def _names(rig: Rig) -> list[str]:
    return [thread.name for thread in (await rig.threads.ListThreads(pb.ListThreadsRequest())).threads]
