"""Accepting what callers ask, by the control table."""

from treadle_server.core import events as e
from treadle_server.core import policy
from treadle_server.core import signals as s
from treadle_server.core.draft import Draft
from treadle_server.core.ending import end, resting_state
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.evolve import approval_call
from treadle_server.core.kinds import (
    TERMINAL,
    ApprovalState,
    CallStatus,
    Control,
    Decision,
    StopReason,
    ThreadState,
    Verdict,
)
from treadle_server.core.state import Call, State
from treadle_server.core.transitions import Reaction, Row, allowed, reaction


def conflict(state: State, what: str) -> Refused:
    """Refuses something that the present state does not allow."""
    return Refused(
        Reason.THREAD_STATE_CONFLICT,
        f"{what} is not possible while the thread is {state.status.name}",
        metadata={"current_state": state.status.name, "allowed": ",".join(allowed(state.status))},
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
            requested = e.ControlRequested(
                Control.CANCEL,
                ask.principal,
                ask.reason,
                ask.grace_micros,
                ThreadState.CANCELLED,
                stop_reason=ask.stop_reason,
            )
            _request_end(draft, requested)
            return None
    return conflict(state, "cancelling")


def complete(draft: Draft, ask: s.Complete) -> Refused | None:
    state = draft.state
    assert ask.state in TERMINAL
    match reaction(Row.COMPLETE, state.status):
        case Reaction.SAME_END if state.status is ask.state and state.output == ask.output:
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
            requested = e.ControlRequested(
                Control.COMPLETE,
                ask.principal,
                ask.reason,
                ask.grace_micros,
                ask.state,
                ask.output,
                StopReason.DEADLINE if timed_out else StopReason.COMPLETED_BY_CALLER,
            )
            _request_end(draft, requested)
            return None
    return conflict(state, "completing")


def _request_end(draft: Draft, requested: e.ControlRequested) -> None:
    draft.add(requested)
    if not draft.state.in_flight:
        end(draft, requested.target_state, requested.stop_reason, output=requested.output)


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
    client = call is not None and call.open and call.verdict is Verdict.CLIENT
    if not _settles(draft.state, Row.TOOL_RESULT) or call is None or not client:
        return conflict(draft.state, f"submitting a result of {ask.tool_call_id}")
    status = CallStatus.SUCCEEDED if ask.ok else CallStatus.FAILED
    draft.add(e.ToolCallCompleted(call.call_id, status, ask.observation))
    return None


def decide_approval(draft: Draft, ask: s.Decide) -> Refused | None:
    state = draft.state
    call = approval_call(state, ask.approval_id)
    if call is None or call.approval is None or state.ended:
        return _already(ask.approval_id, "settled")
    if not _settles(state, Row.DECIDE):
        return conflict(state, "deciding")
    approval = call.approval
    wanted = ApprovalState.APPROVED if ask.decision is Decision.APPROVE else ApprovalState.REJECTED
    if approval.state is not ApprovalState.PENDING:
        return None if approval.state is wanted else _already(ask.approval_id, approval.state.name)
    if ask.decision is Decision.APPROVE and ask.arguments_digest != approval.digest:
        return Refused(
            Reason.APPROVAL_STALE,
            f"arguments_digest is not that of {ask.approval_id}",
            metadata={"arguments_digest": approval.digest},
        )
    if ask.principal in approval.approvals and ask.decision is Decision.APPROVE:
        return None
    _record_vote(draft, call, ask)
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


def _settles(state: State, row: Row) -> bool:
    return reaction(row, state.status) is Reaction.SETTLE and not state.ending


def _already(approval_id: str, what: str) -> Refused:
    return Refused(
        Reason.APPROVAL_ALREADY_DECIDED, f"{approval_id} is {what} already", metadata={"state": what}
    )
