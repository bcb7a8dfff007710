"""Every cell of the control table over gRPC: `core/transitions.CONTROLS` says what each call must do."""

from collections.abc import Awaitable, Callable
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.runs import Thread, kinds, pb
from tests.rpc.stages import APPROVAL, CLIENT_CALL, QUESTION, STATES, T1, Stage, staged
from treadle.v1 import approval_pb2, approval_service_pb2
from treadle_server.core.kinds import ThreadState
from treadle_server.core.transitions import CONTROLS, Column, Reaction, Row, allowed, column

Approval: Any = approval_pb2.Approval
REQUESTS: dict[Row, tuple[str, Any]] = {
    Row.PAUSE: ("PauseThread", pb.PauseThreadRequest(name=T1, reason="lunch")),
    Row.RESUME: ("ResumeThread", pb.ResumeThreadRequest(name=T1, reason="back")),
    Row.CANCEL: ("CancelThread", pb.CancelThreadRequest(name=T1)),
    Row.COMPLETE: (
        "CompleteThread",
        pb.CompleteThreadRequest(name=T1, state=Thread.COMPLETED, output={"text": "mine"}),
    ),
    Row.ANSWER: (
        "SendThreadInput",
        pb.SendThreadInputRequest(name=T1, input={"text": "blue"}, tool_call_id=QUESTION),
    ),
    Row.STEER: ("SendThreadInput", pb.SendThreadInputRequest(name=T1, input={"text": "and quickly"})),
    Row.TOOL_RESULT: (
        "SubmitToolResult",
        pb.SubmitToolResultRequest(name=T1, tool_call_id=CLIENT_CALL, result_json='"text"'),
    ),
    Row.DECIDE: (
        "DecideApproval",
        approval_service_pb2.DecideApprovalRequest(name=APPROVAL, decision=Approval.REJECT),
    ),
    Row.FORK: ("ForkThread", pb.ForkThreadRequest(name=T1, thread_id="made")),
    Row.RETRY: ("RetryThread", pb.RetryThreadRequest(name=T1, thread_id="made")),
}
CELLS = [
    pytest.param(row, state, id=f"{row.name}-{state.name}")
    for row, state in product(REQUESTS, STATES)
    if (row, state) != (Row.DECIDE, ThreadState.WAITING_INPUT)  # an open approval shows before other waits
]


async def call(stage: Stage, row: Row) -> Any:
    method, request = REQUESTS[row]
    stub = stage.rig.approvals if row is Row.DECIDE else stage.rig.threads
    return await getattr(stub, method)(request)


async def refused(stage: Stage, row: Row, state: ThreadState) -> None:
    before, log = await stage.thread(), await stage.log()

    failure = await failure_of(call(stage, row))

    assert (await stage.log(), (await stage.thread()).state) == (log, before.state)
    if row is Row.DECIDE:  # by what becomes of the approval
        gone = "RESOURCE_NOT_FOUND" if state is ThreadState.PENDING else "APPROVAL_ALREADY_DECIDED"
        assert failure.reason == gone
        return
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "THREAD_STATE_CONFLICT")
    assert failure.metadata == {"current_state": state.name, "allowed": ",".join(allowed(state))}
    assert failure.details["PreconditionFailure"].violations[0].subject == T1


async def asked(stage: Stage, row: Row) -> tuple[Any, list[str]]:
    """The answer, and the events that the call made."""
    log = await stage.log()
    answer = await call(stage, row)
    return answer, kinds((await stage.log())[len(log) :])


async def nothing(stage: Stage, row: Row, state: ThreadState) -> None:
    answer, made = await asked(stage, row)

    assert (answer.name, answer.state, answer.pending_command, made) == (T1, int(state), 0, [])


async def pauses(stage: Stage, row: Row, state: ThreadState) -> None:
    answer, made = await asked(stage, row)

    assert (answer.state, answer.pending_command) == (Thread.PAUSED, 0)
    assert made == ["control_requested", "state_changed"]


async def pauses_soon(stage: Stage, row: Row, state: ThreadState) -> None:
    answer, made = await asked(stage, row)

    assert (answer.state, answer.pending_command) == (Thread.RUNNING, Thread.PAUSE)
    assert made == ["control_requested"]
    stage.tool.opening.set()
    await stage.until(Thread.PAUSED)
    assert (await stage.thread()).pending_command == 0


async def resumes(stage: Stage, row: Row, state: ThreadState) -> None:
    answer, made = await asked(stage, row)

    assert answer.state == Thread.WAITING_INPUT  # what it owed when it was paused
    assert made == ["control_requested", "state_changed"]


async def ends(stage: Stage, row: Row, state: ThreadState) -> None:
    answer, made = await asked(stage, row)

    wanted = {
        Row.CANCEL: (Thread.CANCELLED, Thread.CANCELLED_BY_CALLER),
        Row.COMPLETE: (Thread.COMPLETED, Thread.COMPLETED_BY_CALLER),
    }
    assert (answer.state, answer.stop_reason) == wanted[row]
    assert not answer.waiting_for
    assert (made[0], made[-1]) == ("control_requested", "thread_ended")
    assert answer == await stage.thread()


async def ended_so(stage: Stage, row: Row, state: ThreadState) -> None:
    same = {Row.CANCEL: ThreadState.CANCELLED, Row.COMPLETE: ThreadState.COMPLETED}
    if state is same[row]:
        await nothing(stage, row, state)
    else:
        await refused(stage, row, state)


async def stores(stage: Stage, row: Row, state: ThreadState) -> None:
    answer, made = await asked(stage, row)

    assert (answer.state, made) == (int(state), ["input_received"])


async def settles(stage: Stage, row: Row, state: ThreadState) -> None:
    _, made = await asked(stage, row)

    after = await stage.thread()
    if row is Row.DECIDE and state is ThreadState.WAITING_APPROVAL:  # it owes what else is open
        assert (after.state, made.pop()) == (Thread.WAITING_INPUT, "state_changed")
    else:
        assert after.state == int(state)
    assert (
        made
        == {
            Row.ANSWER: ["input_received", "tool_call_completed"],
            Row.TOOL_RESULT: ["tool_call_completed"],
            Row.DECIDE: ["approval_vote_recorded", "approval_decided", "tool_call_completed"],
        }[row]
    )
    settled = {Row.ANSWER: QUESTION, Row.TOOL_RESULT: CLIENT_CALL, Row.DECIDE: APPROVAL}[row]
    assert settled not in [waiting.resource for waiting in after.waiting_for]
    if row is not Row.DECIDE:  # where the same decision again is OK
        assert (await failure_of(call(stage, row))).reason == "THREAD_STATE_CONFLICT"


async def makes(stage: Stage, row: Row, state: ThreadState) -> None:
    before = await stage.thread()
    answer, made = await asked(stage, row)

    origin = answer.forked_from if row is Row.FORK else answer.retried_from
    assert (answer.name, origin, made) == ("threads/made", T1, [])
    assert (await stage.thread()).state == before.state


REACTIONS: dict[Reaction, Callable[[Stage, Row, ThreadState], Awaitable[None]]] = {
    Reaction.REFUSE: refused,
    Reaction.NOTHING: nothing,
    Reaction.PAUSE: pauses,
    Reaction.PAUSE_SOON: pauses_soon,
    Reaction.WITHDRAW: nothing,  # there is no pause to take back
    Reaction.RESUME: resumes,
    Reaction.END: ends,
    Reaction.END_SOON: ends,
    Reaction.SAME_END: ended_so,
    Reaction.STORE: stores,
    Reaction.SETTLE: settles,
    Reaction.MAKE: makes,
}


def test_every_row_and_column_of_the_table_is_asked() -> None:
    assert REQUESTS.keys() == set(Row)
    assert {column(state) for state in STATES} == set(Column)
    assert REACTIONS.keys() == set(CONTROLS.values())


@pytest.mark.parametrize(("row", "state"), CELLS)
async def test_a_control_does_what_its_cell_of_the_table_says(
    tmp_path: Path, row: Row, state: ThreadState
) -> None:
    async with staged(tmp_path / "t.db", state, gated=row is Row.DECIDE) as stage:
        await REACTIONS[CONTROLS[row, column(state)]](stage, row, state)
