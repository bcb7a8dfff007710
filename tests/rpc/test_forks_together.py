"""Forks and retries of threads that people, clients, other agents and credentials have to do with."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, bearer, make_key, running
from tests.rpc.runs import (
    ADD,
    DONE,
    HANG,
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
    until_event,
    watch,
)
from tests.rpc.stages import CLIENT_CALL, OPEN_FILE, QUESTION, STATES, T1, staged
from tests.waiting import eventually
from treadle.v1 import approval_pb2, approval_service_pb2
from treadle_server.core.kinds import TERMINAL, ThreadState
from treadle_server.core.transitions import CONTROLS, Reaction, Row, allowed, column

apb: Any = approval_service_pb2
Approval: Any = approval_pb2.Approval
GATED: dict[str, Any] = {"rules": [{"tool_pattern": "calc*", "approvers_needed": 1}]}


async def fork(rig: Rig, name: str = T1, *, metadata: Any = (), **fields: Any) -> Any:
    return await rig.threads.ForkThread(pb.ForkThreadRequest(name=name, **fields), metadata=tuple(metadata))


async def retry(rig: Rig, name: str = T1, *, metadata: Any = (), **fields: Any) -> Any:
    return await rig.threads.RetryThread(pb.RetryThreadRequest(name=name, **fields), metadata=tuple(metadata))


# The rows of the control table


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
async def test_a_thread_in_any_state_is_forked_and_stays_as_it_is(tmp_path: Path, state: ThreadState) -> None:
    assert CONTROLS[Row.FORK, column(state)] is Reaction.MAKE
    async with staged(tmp_path / "t.db", state) as stage:
        before, log = await stage.thread(), await stage.log()

        made = await fork(stage.rig, thread_id="forked")

        assert made.forked_from == T1
        assert await stage.log() == log
        after = await stage.thread()
        assert (after.state, after.last_sequence) == (before.state, before.last_sequence)
        shared = len(log) - (state in TERMINAL)
        events = await collected(_listed(stage.rig, made.name))
        assert kinds(events)[: shared + 1] == [*kinds(log)[:shared], "thread_forked"]


async def _listed_once(rig: Rig, name: str) -> Any:
    return await rig.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent=name, page_size=1000))


async def _listed(rig: Rig, name: str) -> Any:
    yield await _listed_once(rig, name)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
async def test_only_a_thread_that_has_ended_is_retried(tmp_path: Path, state: ThreadState) -> None:
    made = CONTROLS[Row.RETRY, column(state)] is Reaction.MAKE
    async with staged(tmp_path / "t.db", state) as stage:
        before, log = await stage.thread(), await stage.log()

        if made:
            again = await retry(stage.rig)
            assert (again.retried_from, again.input.text) == (T1, before.input.text)
        else:
            failure = await failure_of(retry(stage.rig))
            assert failure.code == grpc.StatusCode.FAILED_PRECONDITION
            assert failure.reason == "THREAD_STATE_CONFLICT"
            assert failure.metadata == {"current_state": state.name, "allowed": ",".join(allowed(state))}
            assert failure.details["PreconditionFailure"].violations[0].subject == T1

        assert await stage.log() == log


# People


async def _waiting(rig: Rig) -> None:
    """Thread `t1`, which waits for an approval."""
    await make_agent(rig, "helper", ADD, DONE, approval_policy=GATED)
    await create(rig, "t1")
    await taken(
        watch(rig, T1), lambda events: any(e.state_changed.to == Thread.WAITING_APPROVAL for e in events)
    )


async def _open(rig: Rig) -> dict[str, Any]:
    page = await rig.approvals.ListApprovals(
        apb.ListApprovalsRequest(parent="threads/-", filter="state = PENDING")
    )
    return {found.name: found for found in page.approvals}


async def _approve(rig: Rig, approval: Any) -> Any:
    request = apb.DecideApprovalRequest(
        name=approval.name, decision=Approval.APPROVE, arguments_digest=approval.arguments_digest
    )
    return await rig.approvals.DecideApproval(request)


async def test_an_approval_of_a_fork_is_one_of_its_own(rig: Rig) -> None:
    await _waiting(rig)

    made = await fork(rig, thread_id="forked")
    waiting = await _open(rig)
    await _approve(rig, waiting["threads/forked/approvals/approval-call-1-1"])
    forked = await ended(rig, made.name)

    assert made.state == Thread.WAITING_APPROVAL
    assert sorted(waiting) == [
        "threads/forked/approvals/approval-call-1-1",
        "threads/t1/approvals/approval-call-1-1",
    ]
    assert forked.state == Thread.COMPLETED
    assert list(await _open(rig)) == ["threads/t1/approvals/approval-call-1-1"]
    assert (await get(rig, T1)).state == Thread.WAITING_APPROVAL


async def test_an_approval_given_to_the_other_thread_is_not_the_forks(rig: Rig) -> None:
    await _waiting(rig)
    (approval,) = (await _open(rig)).values()
    await _approve(rig, approval)
    events = await collected(watch(rig, T1))
    decided = kinds(events).index("approval_decided") + 1

    for sequence in (decided, decided - 1):
        made = await fork(rig, sequence=sequence)
        assert made.state == Thread.WAITING_APPROVAL
        assert f"{made.name}/approvals/approval-call-1-1" in await _open(rig)


async def test_a_fork_that_waits_for_people_survives_its_server(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await _waiting(rig)
        await fork(rig, thread_id="forked")
    async with running(tmp_path / "t.db") as rig:
        waiting = await _open(rig)
        await _approve(rig, waiting["threads/forked/approvals/approval-call-1-1"])

        assert (await ended(rig, "threads/forked")).state == Thread.COMPLETED


# Clients


async def test_a_fork_asks_the_same_question_and_has_the_clients_tools(tmp_path: Path) -> None:
    async with staged(tmp_path / "t.db", ThreadState.WAITING_INPUT) as stage:
        rig = stage.rig
        made = await fork(rig)
        answer = pb.SendThreadInputRequest(name=made.name, input={"text": "blue"}, tool_call_id=QUESTION)
        await rig.threads.SendThreadInput(answer)
        await rig.threads.SubmitToolResult(
            pb.SubmitToolResultRequest(name=made.name, tool_call_id=CLIENT_CALL, result_json='"text"')
        )

        forked = await ended(rig, made.name)
        still = await stage.thread()

    assert made.state == Thread.WAITING_INPUT
    assert {waiting.resource for waiting in made.waiting_for} == {QUESTION, CLIENT_CALL}
    assert forked.state == Thread.COMPLETED
    assert still.state == Thread.WAITING_INPUT


async def test_a_retry_has_the_clients_tools_and_context_of_the_thread(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        call = {"text": "I open.", "calls": [{"name": "open_file"}]}
        await make_agent(rig, "helper", call, DONE)
        context = {"initial": "Be brief.", "additional": "It is late."}
        await create(rig, "t1", client_tools=[OPEN_FILE], context=context)
        await until_event(rig, T1, "tool_call_requested")
        await rig.threads.CancelThread(pb.CancelThreadRequest(name=T1))

        made = await retry(rig)
        await until_event(rig, made.name, "tool_call_requested")
        await eventually(lambda: _waits_for_client(rig, made.name))
        events = await _listed_once(rig, made.name)
        original = await _listed_once(rig, T1)

    assert events.events[0].thread_created.context == original.events[0].thread_created.context
    assert events.events[0].thread_created.context.initial == "Be brief."


async def _waits_for_client(rig: Rig, name: str) -> bool:
    return bool((await get(rig, name)).state == Thread.WAITING_INPUT)


# Sessions


async def test_a_retry_stands_in_the_session_and_a_fork_does_not(rig: Rig) -> None:
    await make_agent(rig, "helper", DONE)
    context = {"initial": "Be brief.", "additional": "It is late."}
    first = await run(rig, "t1", session_key="room", context=context)

    again = await ended(rig, (await retry(rig)).name)
    apart = await ended(rig, (await fork(rig, sequence=2)).name)

    assert (again.session, apart.session) == (first.session, "")
    created = (await _listed_once(rig, again.name)).events[0].thread_created
    assert (created.context.initial, created.context.additional) == ("Be brief.", "It is late.")
    assert not created.initial_context_ignored


async def test_a_fork_does_not_wait_for_the_session_of_the_thread(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, HANG)
    await create(rig, "t1", session_key="room")
    await until_event(rig, T1, "tool_call_completed")

    made = await fork(rig)
    await until_event(rig, made.name, "state_changed")

    assert not (await get(rig, made.name)).session


# Other agents


async def test_a_fork_calls_agents_of_its_own(tmp_path: Path) -> None:
    held = HeldTool()
    async with running(tmp_path / "t.db", make_toolbox=held) as rig:
        await make_agent(rig, "expert", {"text": "I hold.", "calls": [{"name": "hold"}]}, {"text": "42."})
        asks = {"text": "I ask.", "calls": [{"name": "expert", "arguments": {"input": "Do it."}}]}
        await make_agent(rig, "boss", asks, DONE, subagents=["agents/expert"])
        await create(rig, "t1", "boss")
        await eventually(lambda: held.calls == 1)
        await until_event(rig, T1, "child_thread_started")

        made = await fork(rig)
        await eventually(lambda: held.calls == 2)
        held.opening.set()
        first, forked = await ended(rig, T1), await ended(rig, made.name)
        children = [
            [
                event.child_thread_started.child_thread
                for event in (await _listed_once(rig, name)).events
                if event.HasField("child_thread_started")
            ]
            for name in (T1, made.name)
        ]

    assert (first.state, forked.state) == (Thread.COMPLETED, Thread.COMPLETED)
    assert len(children[1]) == 2
    assert children[1][0] == children[0][0]
    assert children[1][1] not in children[0]


async def test_a_fork_of_a_child_is_nobodys_child(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig, "expert", {"text": "42."})
        asks = {"text": "I ask.", "calls": [{"name": "expert", "arguments": {"input": "Do it."}}]}
        await make_agent(rig, "boss", asks, DONE, subagents=["agents/expert"])
        await run(rig, "t1", "boss")
        before = await _listed_once(rig, T1)
        (child,) = {
            event.child_thread_started.child_thread
            for event in before.events
            if event.HasField("child_thread_started")
        }

        made = await ended(rig, (await fork(rig, child, sequence=2)).name)
        again = await ended(rig, (await retry(rig, child)).name)
        after = await _listed_once(rig, T1)

    assert (made.parent_thread, again.parent_thread) == ("", "")
    assert (made.state, again.state) == (Thread.COMPLETED, Thread.COMPLETED)
    assert after == before


# Credentials


async def test_a_fork_is_about_the_object_of_the_thread_and_reached_only_so(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        mine = bearer(await make_key(rig, "default", object_patterns=["account/1"]))
        others = bearer(await make_key(rig, "default", object_patterns=["account/2"]))
        await make_agent(rig, "helper", DONE)
        await run(rig, "t1", parent_object="account/1")

        refused = [await failure_of(ask(rig, metadata=others)) for ask in (fork, retry)]
        made = [await ask(rig, metadata=mine) for ask in (fork, retry)]

    assert [failure.reason for failure in refused] == ["PARENT_FORBIDDEN"] * 2
    assert [thread.parent_object for thread in made] == ["account/1"] * 2
