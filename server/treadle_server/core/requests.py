"""Accepting what callers ask, by the control table."""

from treadle_server.core import events as e
from treadle_server.core import policy
from treadle_server.core import signals as s
from treadle_server.core.draft import Draft
from treadle_server.core.ending import resting_state
from treadle_server.core.errors import Reason, Refused, invalid
from treadle_server.core.evolve import approval_call
from treadle_server.core.kinds import (
    TERMINAL,
    ApprovalState,
    CallStatus,
    Control,
    Decision,
    StopReason,
    ThreadState,
)
from treadle_server.core.state import Approval, Call, State
from treadle_server.core.transitions import Reaction, Row, allowed, reaction


def conflict(state: State, what: str) -> Refused:
    """Refuses something that the present state does not allow."""
    during, possible = state.status.name, allowed(state.status)
    if state.pending is not None and state.ending:
        command = state.pending.command.name
        during, possible = f"{during} with {command} pending", (command, Row.FORK.name)
    return Refused(
        Reason.THREAD_STATE_CONFLICT,
        f"{what} is not possible while the thread is {during}",
        metadata={"current_state": state.status.name, "allowed": ",".join(possible)},
    )


def create(draft: Draft, ask: s.Create) -> Refused | None:
    if draft.state.status is not ThreadState.UNSPECIFIED:
        return conflict(draft.state, "creating")
    draft.add(
        e.ThreadCreated(
            ask.spec,
            ask.session,
            ask.parent_object,
            ask.parent_thread,
            ask.subject,
            ask.trigger,
            principal=ask.principal,
        )
    )
    draft.add(e.InputReceived(ask.input, principal=ask.principal))
    return None


def pause(draft: Draft, ask: s.Pause) -> Refused | None:
    state = draft.state
    match reaction(Row.PAUSE, state.status):
        case Reaction.NOTHING:
            return None
        case Reaction.PAUSE:
            draft.add(e.ControlRequested(Control.PAUSE, ask.principal, ask.reason))
            draft.go(ThreadState.PAUSED)
            return None
        case Reaction.PAUSE_SOON if state.pending is None:
            draft.add(e.ControlRequested(Control.PAUSE, ask.principal, ask.reason))
            return None
        case Reaction.PAUSE_SOON if not state.ending:
            return None
    return conflict(state, "pausing")


def resume(draft: Draft, ask: s.Resume) -> Refused | None:
    state = draft.state
    match reaction(Row.RESUME, state.status):
        case Reaction.NOTHING:
            return None
        case Reaction.WITHDRAW if state.pending is None:
            return None
        case Reaction.WITHDRAW if not state.ending:
            draft.add(e.ControlRequested(Control.RESUME, ask.principal, ask.reason))
            return None
        case Reaction.RESUME:
            draft.add(e.ControlRequested(Control.RESUME, ask.principal, ask.reason))
            draft.go(ThreadState.PENDING if state.iteration == 0 else resting_state(draft.state))
            return None
    return conflict(state, "resuming")


def cancel(draft: Draft, ask: s.Cancel) -> Refused | None:
    state = draft.state
    match reaction(Row.CANCEL, state.status):
        case Reaction.SAME_END if state.status is ThreadState.CANCELLED:
            return None
        case Reaction.END | Reaction.END_SOON if state.ending:
            pending = state.pending
            same = pending is not None and pending.command is Control.CANCEL
            return None if same else conflict(state, "cancelling")
        case Reaction.END | Reaction.END_SOON:
            draft.add(
                e.ControlRequested(
                    Control.CANCEL,
                    ask.principal,
                    ask.reason,
                    ask.grace_micros,
                    ThreadState.CANCELLED,
                    stop_reason=ask.stop_reason,
                )
            )
            return None
    return conflict(state, "cancelling")


def complete(draft: Draft, ask: s.Complete) -> Refused | None:
    state = draft.state
    assert ask.state in TERMINAL
    match reaction(Row.COMPLETE, state.status):
        case Reaction.SAME_END if state.status is ask.state and ask.output in (None, state.output):
            return None
        case Reaction.END | Reaction.END_SOON if state.ending:
            pending = state.pending
            same = (
                pending is not None
                and pending.command is Control.COMPLETE
                and (pending.target_state, pending.output) == (ask.state, ask.output)
            )
            return None if same else conflict(state, "completing")
        case Reaction.END | Reaction.END_SOON:
            timed_out = ask.state is ThreadState.TIMED_OUT
            draft.add(
                e.ControlRequested(
                    Control.COMPLETE,
                    ask.principal,
                    ask.reason,
                    ask.grace_micros,
                    ask.state,
                    ask.output,
                    StopReason.DEADLINE if timed_out else StopReason.COMPLETED_BY_CALLER,
                )
            )
            return None
    return conflict(state, "completing")


def send_input(draft: Draft, ask: s.SendInput) -> Refused | None:
    state = draft.state
    if ask.tool_call_id:
        return _answer(draft, ask)
    if reaction(Row.STEER, state.status) is Reaction.REFUSE or state.ending:
        return conflict(state, "sending input")
    if len(state.inputs) >= policy.INPUTS_MAX:
        return Refused(
            Reason.RATE_LIMITED,
            f"{policy.INPUTS_MAX} inputs wait to be taken already",
            metadata={"limit": str(policy.INPUTS_MAX), "remaining": "0"},
        )
    draft.add(e.InputReceived(ask.content, principal=ask.principal))
    return None


def _answer(draft: Draft, ask: s.SendInput) -> Refused | None:
    call = draft.state.calls.get(ask.tool_call_id)
    if not _settles(draft.state, Row.ANSWER) or call is None or not call.open or not call.asked:
        return conflict(draft.state, f"answering {ask.tool_call_id}")
    draft.add(e.InputReceived(ask.content, ask.tool_call_id, ask.principal))
    text = ask.content.data_json or ask.content.text
    draft.add(e.ToolCallCompleted(call.call_id, CallStatus.SUCCEEDED, text))
    return None


def submit_tool_result(draft: Draft, ask: s.SubmitToolResult) -> Refused | None:
    call = draft.state.calls.get(ask.tool_call_id)
    waits = call is not None and call.open and call.client and not call.gated
    if not _settles(draft.state, Row.TOOL_RESULT) or call is None or not waits:
        return conflict(draft.state, f"submitting a result of {ask.tool_call_id}")
    status = CallStatus.SUCCEEDED if ask.ok else CallStatus.FAILED
    draft.add(e.ToolCallCompleted(call.call_id, status, ask.observation))
    return None


def decide_approval(draft: Draft, ask: s.Decide) -> Refused | None:
    state = draft.state
    if not state.ended and not _settles(state, Row.DECIDE):
        return conflict(state, "deciding")
    call = approval_call(state, ask.approval_id)
    if call is None or call.approval is None:
        return _already(ask.approval_id)
    approval = call.approval
    if state.ended:
        return _already(ask.approval_id, approval.state)
    if approval.state is not ApprovalState.PENDING:
        return None if _repeats(ask, call) else _already(ask.approval_id, approval.state)
    if approval.expire_time and ask.now >= approval.expire_time:
        return _already(ask.approval_id, ApprovalState.EXPIRED)
    if ask.decision is Decision.APPROVE:
        refused = _unapprovable(ask, approval)
        if refused is not None or ask.principal in approval.approvals:
            return refused
    _record_vote(draft, call, ask)
    return None


def _repeats(ask: s.Decide, call: Call) -> bool:
    """The decision is the one that was made, about the same arguments."""
    assert call.approval is not None
    if ask.decision is Decision.REJECT:
        return call.approval.state is ApprovalState.REJECTED
    digest = policy.arguments_digest(call.arguments_json)
    if ask.edited_arguments_json:
        same = policy.arguments_digest(ask.edited_arguments_json) == digest
    else:
        same = ask.arguments_digest == digest
    return call.approval.state is ApprovalState.APPROVED and same


def _unapprovable(ask: s.Decide, approval: Approval) -> Refused | None:
    if ask.arguments_digest != approval.digest:
        return Refused(
            Reason.APPROVAL_STALE,
            f"arguments_digest is not that of {ask.approval_id}",
            metadata={"arguments_digest": approval.digest},
        )
    if ask.edited_arguments_json and approval.approvers_needed > 1:  # the others saw the original
        return invalid(("arguments_json", "cannot be edited where several people must approve"))
    return None


def _record_vote(draft: Draft, call: Call, ask: s.Decide) -> None:
    draft.add(e.ApprovalVoteRecorded(ask.approval_id, ask.principal, ask.decision, ask.message))
    if ask.decision is Decision.REJECT:
        draft.add(e.ApprovalDecided(ask.approval_id, ApprovalState.REJECTED, ask.message))
        text = (
            f"A person rejected this call: {ask.message}" if ask.message else "A person rejected this call."
        )
        draft.add(e.ToolCallCompleted(call.call_id, CallStatus.REJECTED, text))
        return
    approval = draft.state.calls[call.call_id].approval
    assert approval is not None
    if len(approval.approvals) >= approval.approvers_needed:
        draft.add(
            e.ApprovalDecided(ask.approval_id, ApprovalState.APPROVED, ask.message, ask.edited_arguments_json)
        )
        tool, approved = draft.state.tool(call.name), draft.state.calls[call.call_id]
        if tool is not None and tool.asks:
            draft.add(e.QuestionAsked(call.call_id, approved.arguments_json))


def _settles(state: State, row: Row) -> bool:
    return reaction(row, state.status) is Reaction.SETTLE and not state.ending


def _already(approval_id: str, settled: ApprovalState | None = None) -> Refused:
    metadata = {"approval": approval_id}
    if settled is not None:
        metadata["state"] = settled.name
    what = "settled" if settled is None else settled.name
    return Refused(Reason.APPROVAL_ALREADY_DECIDED, f"{approval_id} is {what} already", metadata=metadata)
