"""What becomes of a thread whose session is busy: queued, refused, or its input handed to the one at work."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
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
    run,
    taken,
    thread_of,
    until_event,
    watch,
)
from treadle.v1 import thread_pb2

WaitingFor: Any = thread_pb2.WaitingFor


async def steer(rig: Rig, text: str, **fields: Any) -> Any:
    return await create(rig, session_key="room", busy_policy=Thread.STEER, input={"text": text}, **fields)


async def test_a_thread_is_refused_while_another_of_its_session_has_not_ended(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    first = await create(rig, "t1", session_key="room", busy_policy=Thread.REJECT)

    failure = await failure_of(create(rig, "t2", session_key="room", busy_policy=Thread.REJECT))
    elsewhere = await create(rig, "t3", session_key="another", busy_policy=Thread.REJECT)
    queued = await create(rig, "t4", session_key="room")
    await rig.threads.CancelThread(pb.CancelThreadRequest(name=queued.name))
    await rig.threads.CancelThread(pb.CancelThreadRequest(name=first.name))
    later = await create(rig, "t2", session_key="room", busy_policy=Thread.REJECT)

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_BUSY")
    assert failure.message.endswith(" has not ended: wait until it has, or cancel it")
    assert failure.metadata == {"session": first.session, "thread": "threads/t1"}
    assert "PreconditionFailure" in str(failure.details)
    assert elsewhere.session != first.session
    assert (later.session, later.busy_policy) == (first.session, Thread.REJECT)


async def test_of_many_that_would_be_alone_in_a_session_one_is(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)

    results = await asyncio.gather(
        *(create(rig, f"t{n}", session_key="room", busy_policy=Thread.REJECT) for n in range(20)),
        return_exceptions=True,
    )

    assert sum(not isinstance(each, BaseException) for each in results) == 1


async def test_a_thread_that_waits_for_its_session_makes_it_busy(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    await create(rig, "t1", session_key="room")
    await create(rig, "t2", session_key="room")
    await rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1"))

    failure = await failure_of(create(rig, session_key="room", busy_policy=Thread.REJECT))

    assert failure.metadata["thread"] == "threads/t2"


async def test_a_thread_that_waits_for_its_session_says_for_which_thread(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    await create(rig, "t1", session_key="room")
    await until_event(rig, "threads/t1", "model_call_started")

    waiting = (await create(rig, "t2", session_key="room")).waiting_for

    assert [(each.kind, each.resource) for each in waiting] == [(WaitingFor.SESSION, "threads/t1")]


async def test_an_input_goes_to_the_thread_at_work_and_makes_none(tmp_path: Path) -> None:
    tool = HeldTool()
    async with running(tmp_path / "t.db", make_toolbox=tool) as rig:
        await make_agent(rig, "helper", HOLD, DONE)
        first = await create(rig, "t1", session_key="room")
        await until_event(rig, first.name, "tool_call_started")

        steered = await steer(rig, "Faster.", thread_id="t2")
        tool.opening.set()
        whole = await ended(rig, first.name)

        assert steered.name == first.name
        events = await collected(watch(rig, first.name))
        inputs = [event.input_received.content.text for event in events if event.HasField("input_received")]
        assert inputs == ["Go.", "Faster."]
        consumed = [
            tuple(e.iteration_started.consumed_inputs) for e in events if e.HasField("iteration_started")
        ]
        assert [len(each) for each in consumed] == [1, 1]
        assert whole.state == Thread.COMPLETED
        assert (await failure_of(get(rig, "threads/t2"))).reason == "RESOURCE_NOT_FOUND"


async def test_an_input_that_finds_no_thread_makes_one(rig: Rig) -> None:
    await make_agent(rig)
    first = await run(rig, "t1", session_key="room")

    second = await steer(rig, "Again.", thread_id="t2")

    assert second.name == "threads/t2"
    assert second.session == first.session
    assert second.busy_policy == Thread.STEER


async def test_a_repeated_steering_call_hands_its_input_over_once(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    await create(rig, "t1", session_key="room")

    for _ in range(3):
        await steer(rig, "Faster.", request_id="r1")

    events = await taken(watch(rig, "threads/t1"), lambda events: "model_call_started" in kinds(events))
    texts = [event.input_received.content.text for event in events if event.HasField("input_received")]
    assert texts == ["Go.", "Faster."]


async def test_many_steering_calls_at_once_make_one_thread_of_an_idle_session(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG, session_policy={"input_debounce": {"seconds": 2}})

    threads = await asyncio.gather(*(steer(rig, f"Input {number}.") for number in range(12)))

    assert len({thread.name for thread in threads}) == 1
    events = await collected_inputs(rig, threads[0].name, 12)
    assert sorted(events) == sorted(f"Input {number}." for number in range(12))


async def collected_inputs(rig: Rig, name: str, count: int) -> list[str]:
    events = await taken(watch(rig, name), lambda events: kinds(events).count("input_received") >= count)
    return [event.input_received.content.text for event in events if event.HasField("input_received")]


async def test_a_steered_thread_is_not_cancelled_with_the_caller_who_steered(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    first = await create(rig, "t1", session_key="room")
    thread = thread_of(session_key="room", busy_policy=Thread.STEER, input={"text": "Faster."})
    request = pb.ExecuteAgentStreamRequest(thread=thread, on_deadline=pb.ExecuteAgentRequest.CANCEL)
    stream = rig.threads.ExecuteAgentStream(request)
    await taken(stream, lambda events: kinds(events).count("input_received") == 2)

    await create(rig, "t2", session_key="room")

    assert (await get(rig, first.name)).state in (Thread.PENDING, Thread.RUNNING)


async def test_nor_is_it_cancelled_with_one_who_repeats_the_steering_call(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    first = await create(rig, "t1", session_key="room")
    await steer(rig, "Faster.", request_id="r1")
    thread = thread_of(session_key="room", busy_policy=Thread.STEER, input={"text": "Faster."})
    request = pb.ExecuteAgentRequest(
        thread=thread, request_id="r1", on_deadline=pb.ExecuteAgentRequest.CANCEL
    )

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await rig.threads.ExecuteAgent(request, timeout=0.3)
    await create(rig, "t2", session_key="room")
    await make_agent(rig, "quick")
    await run(rig, agent="quick")

    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await get(rig, first.name)).state in (Thread.PENDING, Thread.RUNNING)


async def test_an_input_for_a_thread_that_is_about_to_end_makes_one_of_its_own(tmp_path: Path) -> None:
    tool = HeldTool(stubborn=True)
    async with running(tmp_path / "t.db", make_toolbox=tool) as rig:
        await make_agent(rig, "helper", HOLD, DONE)
        await create(rig, "t1", session_key="room")
        await until_event(rig, "threads/t1", "tool_call_started")
        cancelling = asyncio.ensure_future(
            rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1"))
        )
        await until_event(rig, "threads/t1", "control_requested")

        second = await steer(rig, "One more.", thread_id="t2")
        tool.opening.set()

        assert second.name == "threads/t2"
        assert (await cancelling).state == Thread.CANCELLED


async def test_a_newer_thread_interrupts_those_that_came_before_it(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    for name in ("t1", "t2"):
        await create(rig, name, session_key="room")
    elsewhere = await create(rig, "t3", session_key="another")
    await until_event(rig, "threads/t1", "model_call_started")

    newer = await create(rig, "t4", session_key="room", busy_policy=Thread.INTERRUPT)

    assert newer.busy_policy == Thread.INTERRUPT
    for name in ("threads/t1", "threads/t2"):
        thread = await ended(rig, name)
        assert (thread.state, thread.stop_reason) == (Thread.CANCELLED, Thread.INTERRUPTED)
        asked = [e for e in await collected(watch(rig, name)) if e.HasField("control_requested")]
        assert "threads/t4" in asked[0].control_requested.reason
    await until_event(rig, newer.name, "model_call_started")
    assert (await get(rig, elsewhere.name)).state in (Thread.PENDING, Thread.RUNNING)


async def test_a_thread_that_is_refused_interrupts_nobody(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    await create(rig, "t1", session_key="room")

    failure = await failure_of(create(rig, "t1", session_key="room", busy_policy=Thread.INTERRUPT))

    assert failure.reason == "RESOURCE_EXISTS"
    events = (await rig.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent="threads/t1"))).events
    assert "control_requested" not in kinds(events)


async def test_a_busy_policy_needs_a_session(rig: Rig) -> None:
    await make_agent(rig)

    for policy in (Thread.REJECT, Thread.STEER, Thread.INTERRUPT):
        assert (await failure_of(create(rig, busy_policy=policy))).reason == "FIELD_INVALID"
