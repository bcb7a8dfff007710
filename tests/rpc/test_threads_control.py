"""Pause, resume, complete, steer: what the control table leaves open."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, running
from tests.rpc.runs import (
    DONE,
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
    until_event,
    watch,
)
from tests.rpc.stages import CLIENT_CALL, QUESTION, T1, Stage, staged
from tests.waiting import eventually
from treadle.v1.thread_pb2 import WaitingFor
from treadle_server.core.kinds import ThreadState


async def pause(rig: Rig, name: str = T1, **fields: Any) -> Any:
    return await rig.threads.PauseThread(pb.PauseThreadRequest(name=name, **fields))


async def resume(rig: Rig, name: str = T1, **fields: Any) -> Any:
    return await rig.threads.ResumeThread(pb.ResumeThreadRequest(name=name, **fields))


async def complete(rig: Rig, state: int = Thread.COMPLETED, **fields: Any) -> Any:
    request = pb.CompleteThreadRequest(name=T1, state=state, **fields)
    async with asyncio.timeout(20):
        return await rig.threads.CompleteThread(request)


async def steer(rig: Rig, text: str, **fields: Any) -> Any:
    request = pb.SendThreadInputRequest(name=T1, input={"text": text}, **fields)
    return await rig.threads.SendThreadInput(request)


async def answer(rig: Rig, text: str = "blue", **fields: Any) -> Any:
    return await steer(rig, text, tool_call_id=QUESTION, **fields)


async def submit(rig: Rig, **fields: Any) -> Any:
    given = {"result_json": '"text"', **fields}
    return await rig.threads.SubmitToolResult(
        pb.SubmitToolResultRequest(name=T1, tool_call_id=CLIENT_CALL, **given)
    )


async def settle(stage: Stage) -> None:
    """Answers all that is open."""
    await answer(stage.rig)
    await submit(stage.rig)


# Pause and resume


async def test_a_paused_thread_goes_on_where_it_was(tmp_path: Path) -> None:
    async with staged(tmp_path / "t.db", ThreadState.PAUSED) as stage:
        await settle(stage)
        paused = await stage.thread()
        resumed = await resume(stage.rig)
        after = await stage.ended()

    assert (paused.state, list(paused.waiting_for)) == (Thread.PAUSED, [])
    assert resumed.state == Thread.RUNNING
    assert (after.state, after.iteration_count) == (Thread.COMPLETED, 2)


async def test_a_pause_that_has_not_taken_effect_is_withdrawn(tmp_path: Path) -> None:
    async with staged(tmp_path / "t.db", ThreadState.RUNNING) as stage:
        pending = await pause(stage.rig, reason="lunch")
        again = await pause(stage.rig)
        withdrawn = await resume(stage.rig, reason="not hungry")
        await settle(stage)
        await stage.ended()
        log = await stage.log()

    assert pending.pending_command == again.pending_command == Thread.PAUSE
    assert (withdrawn.state, withdrawn.pending_command) == (Thread.RUNNING, 0)
    asked = [event.control_requested for event in log if event.HasField("control_requested")]
    assert [(each.command, each.principal, each.reason) for each in asked] == [
        (Thread.PAUSE, "local", "lunch"),
        (Thread.RESUME, "local", "not hungry"),
    ]
    assert Thread.PAUSED not in [event.state_changed.to for event in log]


async def test_what_is_in_flight_ends_before_a_pause_and_nothing_begins_after_it(rig: Rig) -> None:
    await make_agent(rig, "slow", {"text": "Slow.", "delay_ms": 300, "calls": [{"name": "recall"}]}, DONE)
    await create(rig, "t1", "slow")
    await until_event(rig, T1, "model_call_started")

    await pause(rig)
    await until_event(rig, T1, "state_changed")
    await eventually(lambda: _is(rig, Thread.PAUSED))
    events = (await rig.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent=T1))).events
    found = kinds(events)

    assert "message_completed" in found
    assert "tool_call_requested" in found
    assert "tool_call_started" not in found
    await resume(rig)
    assert (await ended(rig, T1)).state == Thread.COMPLETED


async def _is(rig: Rig, state: int, name: str = T1) -> bool:
    return bool((await get(rig, name)).state == state)


async def test_a_thread_paused_before_it_began_is_queued_again(tmp_path: Path) -> None:
    async with staged(tmp_path / "t.db", ThreadState.PENDING) as stage:
        await pause(stage.rig)
        stage.tool.opening.set()
        await stage.rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t0"))
        await create(stage.rig, "t2")
        await until_event(stage.rig, "threads/t2", "question_asked")
        held = await stage.thread()
        resumed = await resume(stage.rig)
        await stage.until(Thread.WAITING_INPUT)

    assert (held.state, held.iteration_count, list(held.waiting_for)) == (Thread.PAUSED, 0, [])
    assert resumed.state in (Thread.PENDING, Thread.RUNNING)


async def test_a_thread_paused_before_it_began_does_not_keep_its_session_waiting(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    for thread_id in ("t0", "t1", "t2"):
        await create(rig, thread_id, session_key="room")
    await until_event(rig, "threads/t0", "model_call_started")
    await pause(rig)

    await rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t0"))

    await until_event(rig, "threads/t2", "model_call_started")
    resumed = await resume(rig)
    assert resumed.state == Thread.PENDING
    assert [waiting.kind for waiting in resumed.waiting_for] == [WaitingFor.SESSION]
    await rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t2"))
    await until_event(rig, T1, "model_call_started")


@pytest.mark.parametrize("state", [ThreadState.PAUSED, ThreadState.WAITING_INPUT])
async def test_a_thread_that_waits_does_so_across_a_restart(tmp_path: Path, state: ThreadState) -> None:
    async with staged(tmp_path / "t.db", state) as stage:
        before = await stage.thread()

    async with running(tmp_path / "t.db", make_toolbox=HeldTool()) as rig:
        assert await get(rig, T1, full=True) == before
        await resume(rig)
        await answer(rig)
        await submit(rig)
        assert (await ended(rig, T1)).state == Thread.COMPLETED


# Complete


@pytest.mark.parametrize(
    ("state", "name"),
    [(Thread.COMPLETED, "COMPLETED"), (Thread.FAILED, "FAILED"), (Thread.CANCELLED, "CANCELLED")],
)
async def test_a_caller_ends_a_thread_as_they_want(tmp_path: Path, state: int, name: str) -> None:
    async with staged(tmp_path / "t.db", ThreadState.WAITING_INPUT) as stage:
        output = {"text": "by hand", "data_json": '{"b": 1, "a": 2}'}
        answered = await complete(stage.rig, state, output=output, reason="done by hand")
        same = await complete(stage.rig, state, output=output)
        without = await complete(stage.rig, state)
        other = await failure_of(complete(stage.rig, state, output={"text": "something else"}))
        log = await stage.log()

    assert (answered.state, answered.stop_reason) == (state, Thread.COMPLETED_BY_CALLER)
    assert (answered.output.text, answered.output.data_json) == ("by hand", '{"a":2,"b":1}')
    assert answered.success is (state == Thread.COMPLETED)
    assert answered.error.message == ("done by hand" if state == Thread.FAILED else "")
    assert answered == same == without
    assert (other.reason, other.metadata["current_state"]) == ("THREAD_STATE_CONFLICT", name)
    assert [action.status for action in answered.iterations[0].actions][1:] == [6, 6]  # CANCELLED
    assert kinds(log).count("thread_ended") == 1


async def test_without_an_output_what_there_is_stays(tmp_path: Path) -> None:
    async with staged(tmp_path / "t.db", ThreadState.WAITING_INPUT) as stage:
        answered = await complete(stage.rig)

    assert answered.output.text == "On it."


async def test_a_completed_thread_has_really_stopped_when_the_call_returns(tmp_path: Path) -> None:
    tool = HeldTool()
    async with running(tmp_path / "t.db", make_toolbox=tool) as rig:
        await make_agent(rig, "helper", HOLD, DONE)
        await create(rig, "t1")
        await eventually(lambda: tool.calls == 1)

        answered = await complete(rig, output={"text": "mine"}, request_id="r1")
        again = await complete(rig, output={"text": "mine"}, request_id="r1")

        assert answered == again
        assert (answered.state, answered.output.text) == (Thread.COMPLETED, "mine")
        assert kinds(await collected(watch(rig, T1)))[-1] == "thread_ended"


async def test_the_first_of_two_ends_is_carried_out(tmp_path: Path) -> None:
    tool = HeldTool(stubborn=True)
    async with running(tmp_path / "t.db", make_toolbox=tool) as rig:
        await make_agent(rig, "helper", HOLD, DONE)
        await create(rig, "t1")
        await eventually(lambda: tool.calls == 1)
        completing = asyncio.ensure_future(complete(rig, output={"text": "mine"}))
        await until_event(rig, T1, "control_requested")

        pending = await get(rig, T1)
        refusals = [
            await failure_of(call)
            for call in (
                rig.threads.CancelThread(pb.CancelThreadRequest(name=T1)),
                complete(rig, Thread.FAILED),
                pause(rig),
                resume(rig),
                steer(rig, "more"),
            )
        ]
        tool.opening.set()

        assert pending.pending_command == Thread.COMPLETE
        assert {failure.reason for failure in refusals} == {"THREAD_STATE_CONFLICT"}
        assert {failure.metadata["allowed"] for failure in refusals} == {"COMPLETE,FORK"}
        assert (await completing).state == Thread.COMPLETED


# Steer


async def test_a_thread_takes_what_it_is_told_while_it_works(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "First.", "delay_ms": 300}, {"text": "Second."})
    await create(rig, "t1")
    await until_event(rig, T1, "model_call_started")

    answered = await steer(rig, "and one more thing")
    after = await ended(rig, T1)
    log = await collected(watch(rig, T1))

    assert answered.state == Thread.RUNNING
    assert (after.output.text, after.iteration_count) == ("Second.", 2)
    received = [event.sequence for event in log if event.HasField("input_received")]
    consumed = [
        list(event.iteration_started.consumed_inputs) for event in log if event.HasField("iteration_started")
    ]
    assert consumed == [received[:1], received[1:]]
    finals = [event.message_completed.final for event in log if event.HasField("message_completed")]
    assert finals == [False, True]


async def test_inputs_that_wait_are_limited(tmp_path: Path) -> None:
    async with staged(tmp_path / "t.db", ThreadState.PAUSED) as stage:
        for number in range(100):
            await steer(stage.rig, f"thing {number}")
        failure = await failure_of(steer(stage.rig, "one too many"))
        await answer(stage.rig)

    assert (failure.reason, failure.metadata) == ("CONCURRENCY_LIMITED", {"limit": "100"})
    assert failure.details["QuotaFailure"].violations[0].subject == T1
    assert failure.details["RetryInfo"].retry_delay.ToMicroseconds() > 0


# Repeating


async def test_a_control_that_is_repeated_is_done_once(tmp_path: Path) -> None:
    async with staged(tmp_path / "t.db", ThreadState.WAITING_INPUT) as stage:
        rig = stage.rig
        calls = (
            lambda: steer(rig, "more", request_id="r1"),
            lambda: answer(rig, request_id="r2"),
            lambda: submit(rig, request_id="r3"),
        )
        for call in calls:
            await asyncio.gather(*(call() for _ in range(5)))
            await call()
        reused = await failure_of(steer(rig, "other", request_id="r1"))
        after = await stage.ended()
        late = [await call() for call in calls]
        log = kinds(await stage.log())

    assert log.count("input_received") == 3  # the first, the answer, and what steered
    assert log.count("tool_call_completed") == 3
    assert reused.reason == "REQUEST_ID_REUSED"
    assert (after.state, after.iteration_count) == (Thread.COMPLETED, 2)
    assert {thread.state for thread in late} == {Thread.COMPLETED}


async def test_a_refused_control_may_be_asked_again_when_the_thread_is_ready_for_it(rig: Rig) -> None:
    asks = {"calls": [{"name": "ask_user", "arguments": {"question": "Which?"}}]}
    await make_agent(rig, "helper", asks, DONE)
    await create(rig, "t1")
    await until_event(rig, T1, "question_asked")

    early = await failure_of(steer(rig, "x", tool_call_id="call-2-1", request_id="r1"))
    taken = await steer(rig, "blue", tool_call_id="call-1-1", request_id="r1")

    assert early.reason == "THREAD_STATE_CONFLICT"
    assert taken.name == T1
    assert (await ended(rig, T1)).state == Thread.COMPLETED
