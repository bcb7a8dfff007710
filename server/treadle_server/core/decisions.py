"""What people decide about calls that wait for them, and what becomes of those that nobody decides."""

from treadle_server.core import events as e
from treadle_server.core import policy
from treadle_server.core import signals as s
from treadle_server.core.approvals import ApprovalRule
from treadle_server.core.draft import Draft
from treadle_server.core.errors import Reason, Refused, invalid
from treadle_server.core.evolve import approval_call
from treadle_server.core.kinds import ApprovalKind, ApprovalState, CallStatus, Decision
from treadle_server.core.questions import question_of
from treadle_server.core.requests import conflict
from treadle_server.core.spec import ToolSpec
from treadle_server.core.state import Approval, Call
from treadle_server.core.transitions import Reaction, Row, reaction
from treadle_server.core.values import ProposedCall

UNKNOWN_OUTCOME = (
    "The outcome of this call is unknown: it was interrupted before the result was recorded. It may or may "
    "not have taken effect, and it was not repeated."
)


def request_approval(
    draft: Draft, call_id: str, tool: ToolSpec, call: ProposedCall, rule: ApprovalRule
) -> None:
    """A call waits for people before it runs."""
    lifetime = rule.expire_after_micros
    draft.add(
        e.ApprovalRequested(
            f"approval-{call_id}",
            call_id,
            call.name,
            tool.effect,
            call.arguments_json,
            policy.arguments_digest(call.arguments_json),
            rule.approvers_needed,
            draft.now + lifetime if lifetime else 0,
            ApprovalKind.TOOL_CALL,
            "" if call.rule is None else rule.tool_pattern or "*",
            exclude_starter=rule.exclude_starter,
        )
    )


def ask_for_outcome(draft: Draft, call: Call) -> None:
    """A crash left the outcome of a call unknown. It takes as many people as the call itself did."""
    before = call.approval
    draft.add(
        e.ApprovalRequested(
            f"outcome-{call.call_id}-{call.attempt}",
            call.call_id,
            call.name,
            call.effect,
            call.arguments_json,
            policy.arguments_digest(call.arguments_json),
            1 if before is None else before.approvers_needed,
            kind=ApprovalKind.TOOL_OUTCOME,
            rule="" if before is None else before.rule,
            exclude_starter=before is not None and before.exclude_starter,
        )
    )


def decide_approval(draft: Draft, ask: s.Decide) -> Refused | None:
    state = draft.state
    settles = reaction(Row.DECIDE, state.status) is Reaction.SETTLE and not state.ending
    if not state.ended and not settles:
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
        starter = state.origin.principal if state.origin is not None else ""
        refused = _unapprovable(ask, approval, starter)
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
    result = policy.arguments_digest(ask.result_json) if ask.result_json else ""
    return call.approval.state is ApprovalState.APPROVED and same and call.approval.result_digest == result


def _unapprovable(ask: s.Decide, approval: Approval, starter: str) -> Refused | None:
    if approval.exclude_starter and ask.principal == starter:
        return Refused(
            Reason.APPROVER_EXCLUDED,
            f"who started the thread may not approve {ask.approval_id}",
            metadata={"approval": ask.approval_id},
        )
    if ask.arguments_digest != approval.digest:
        return Refused(
            Reason.APPROVAL_STALE,
            f"arguments_digest is not that of {ask.approval_id}: read the approval again, and give its own",
            metadata={"approval": ask.approval_id},
        )
    return _unfitting(ask, approval)


def _unfitting(ask: s.Decide, approval: Approval) -> Refused | None:
    """What was given besides the decision does not belong to it."""
    outcome, several = approval.kind is ApprovalKind.TOOL_OUTCOME, approval.approvers_needed > 1
    if ask.edited_arguments_json and outcome:
        return invalid(("arguments_json", "cannot be edited where the call may have taken effect"))
    if ask.result_json and not outcome:
        return invalid(("result_json", "is for approvals of kind TOOL_OUTCOME"))
    if ask.edited_arguments_json and several:  # the others saw the original
        return invalid(("arguments_json", "cannot be edited where several people must approve"))
    if ask.result_json and several:
        return invalid(("result_json", "cannot be given where several people must approve"))
    return None


def _record_vote(draft: Draft, call: Call, ask: s.Decide) -> None:
    draft.add(e.ApprovalVoteRecorded(ask.approval_id, ask.principal, ask.decision, ask.message))
    if ask.decision is Decision.REJECT:
        draft.add(e.ApprovalDecided(ask.approval_id, ApprovalState.REJECTED, ask.message))
        _complete_rejected(draft, call, "A person rejected this call", ask.message)
        return
    approval = draft.state.calls[call.call_id].approval
    assert approval is not None
    if len(approval.approvals) >= approval.approvers_needed:
        draft.add(
            e.ApprovalDecided(
                ask.approval_id,
                ApprovalState.APPROVED,
                ask.message,
                ask.edited_arguments_json,
                ask.result_json,
            )
        )
        _go_on(draft, draft.state.calls[call.call_id], ask.result_json)


def _go_on(draft: Draft, call: Call, result_json: str) -> None:
    """After the approval: it runs by itself, unless people know the result or are to give the answer."""
    tool = draft.state.tool(call.name)
    if result_json:
        draft.add(e.ToolCallCompleted(call.call_id, CallStatus.SUCCEEDED, result_json))
    elif tool is not None and tool.asks:
        draft.add(e.QuestionAsked(call.call_id, *question_of(call.arguments_json)))


def _complete_rejected(draft: Draft, call: Call, why: str, message: str = "") -> None:
    assert call.approval is not None
    if call.approval.kind is ApprovalKind.TOOL_OUTCOME:
        text = f"{UNKNOWN_OUTCOME} A person said: {message}" if message else UNKNOWN_OUTCOME
        draft.add(e.ToolCallCompleted(call.call_id, CallStatus.UNKNOWN, text))
        return
    text = f"{why}: {message}" if message else f"{why}."
    draft.add(e.ToolCallCompleted(call.call_id, CallStatus.REJECTED, text))


def expire_approvals(draft: Draft, now: int) -> None:
    """Settles approvals whose time is over, as nobody's decision, and tells of those whose time nearly is."""
    for call in list(draft.state.calls.values()):
        approval = call.approval
        if not call.gated or approval is None or not approval.expire_time:
            continue
        if now >= approval.expire_time:
            draft.add(e.ApprovalDecided(approval.approval_id, ApprovalState.EXPIRED))
            _complete_rejected(draft, call, "The approval of this call expired; it was not run")
        elif not approval.expiring and now >= policy.expiring_at(approval.create_time, approval.expire_time):
            draft.add(e.ApprovalExpiring(approval.approval_id, call.call_id, approval.expire_time))


def _already(approval_id: str, settled: ApprovalState | None = None) -> Refused:
    metadata = {"approval": approval_id}
    if settled is not None:
        metadata["state"] = settled.name
    what = "settled" if settled is None else settled.name
    return Refused(Reason.APPROVAL_ALREADY_DECIDED, f"{approval_id} is {what} already", metadata=metadata)
