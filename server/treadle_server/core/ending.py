"""How a thread comes to rest: the state that follows from what is open, and the one way to end."""

from treadle_server.core import events as e
from treadle_server.core import policy
from treadle_server.core.draft import Draft
from treadle_server.core.kinds import (
    ApprovalState,
    CallStatus,
    Control,
    Effect,
    StopReason,
    ThreadState,
)
from treadle_server.core.state import Call, ModelCall, State
from treadle_server.core.values import Content, Cost, Fault, Usage

_CODE_CANCELLED = 1
_CODE_DEADLINE_EXCEEDED = 4
_CODE_FAILED_PRECONDITION = 9
_CODE_RESOURCE_EXHAUSTED = 8
_CODE_ABORTED = 10


def settle(draft: Draft) -> None:
    """Brings the state in line with what is open, after whatever was just recorded."""
    state = draft.state
    if state.ended or state.unreadable or state.status is ThreadState.UNSPECIFIED:
        return
    if state.pending is not None:
        if not state.in_flight and not (state.ending and state.children):
            carry_out(draft)
        return
    if state.status in (ThreadState.PENDING, ThreadState.PAUSED):
        return
    if _finished(draft):
        return
    draft.go(resting_state(state))


def set_out(draft: Draft) -> None:
    """Ends a thread that is PENDING in the middle of its work, or lets it wait, if nothing of it can run."""
    if draft.state.ended or _finished(draft):
        return
    rest = resting_state(draft.state)
    if rest is not ThreadState.RUNNING:
        draft.go(ThreadState.RUNNING)
        draft.go(rest)


def resting_state(state: State) -> ThreadState:
    """RUNNING, or what it waits for once nothing else of the iteration can run."""
    open_calls = [call for call in state.calls.values() if call.open]
    goes_on = any(call.runnable or call.delegated for call in open_calls)
    if state.model_call is not None or not open_calls or goes_on:
        return ThreadState.RUNNING
    if any(call.gated for call in open_calls):
        return ThreadState.WAITING_APPROVAL
    return ThreadState.WAITING_INPUT


def carry_out(draft: Draft) -> None:
    """Does what is pending, waiting no longer for what is in flight."""
    pending = draft.state.pending
    assert pending is not None
    if pending.command is Control.PAUSE:
        if not _finished(draft):
            draft.go(ThreadState.PAUSED)
        return
    error = None
    if pending.target_state is ThreadState.FAILED:
        error = Fault(_CODE_ABORTED, pending.reason or "the caller ended the thread")
    end(draft, pending.target_state, pending.stop_reason, output=pending.output, error=error)


def _finished(draft: Draft) -> bool:
    """Ends the thread if the present iteration is over and no other may follow."""
    state = draft.state
    if state.model_call is not None or state.iteration == 0:
        return False
    if any(call.open for call in state.calls.values()):
        return False
    if state.answer is not None and not state.inputs:
        output = policy.structured(state.answer, state.spec.output_schema_json)
        end(draft, ThreadState.COMPLETED, StopReason.FINISHED, output=output)
        return True
    return _out_of_limits(draft)


def _out_of_limits(draft: Draft) -> bool:
    state, limits = draft.state, draft.state.spec.limits
    rejected = state.rejected and state.rejections + 1 >= policy.REJECTIONS_MAX
    if rejected and state.calls:
        text = f"none of the tool calls of {policy.REJECTIONS_MAX} turns in a row could be run"
        fail(draft, StopReason.REPEATED_FAILURE, text)
    elif rejected:
        text = f"{policy.REJECTIONS_MAX} turns in a row could not be taken: {state.problem}"
        fail(draft, StopReason.INVALID_OUTPUT, text)
    elif state.usage.input_tokens >= limits.max_input_tokens:
        fail(draft, StopReason.MAX_TOKENS, f"limits.max_input_tokens of {limits.max_input_tokens} is reached")
    elif state.iteration >= limits.max_iterations:
        fail(draft, StopReason.MAX_ITERATIONS, f"limits.max_iterations of {limits.max_iterations} is reached")
    return draft.state.ended


def fail(draft: Draft, reason: StopReason, message: str, code: int | None = None) -> None:
    """Ends FAILED; what the model said last is kept as the partial output."""
    if code is None:
        exhausted = reason in (StopReason.MAX_ITERATIONS, StopReason.MAX_TOOL_CALLS, StopReason.MAX_TOKENS)
        code = _CODE_RESOURCE_EXHAUSTED if exhausted else _CODE_FAILED_PRECONDITION
    end(draft, ThreadState.FAILED, reason, error=Fault(code, message))


def time_out(draft: Draft, what: str) -> None:
    """Ends TIMED_OUT."""
    error = Fault(_CODE_DEADLINE_EXCEEDED, f"{what} is over")
    end(draft, ThreadState.TIMED_OUT, StopReason.DEADLINE, error=error)


def end(
    draft: Draft,
    to_state: ThreadState,
    reason: StopReason,
    *,
    output: Content | None = None,
    error: Fault | None = None,
) -> None:
    """Closes everything open, then adds the last event; the one place that does."""
    _close_model_call(draft)
    for call in list(draft.state.calls.values()):
        if call.open:
            _close_call(draft, call)
    state = draft.state
    if output is None:
        output = state.answer or (Content(state.last_text) if state.last_text else None)
    draft.add(e.ThreadEnded(to_state, reason, output, error, state.usage, state.cost))


def _close_model_call(draft: Draft) -> None:
    call = draft.state.model_call
    if call is None or not call.in_flight:
        return
    fault = Fault(_CODE_CANCELLED, "the thread ended")
    draft.add(e.ModelCallFailed(call.call_id, call.attempt, fault))
    draft.add(unknown_usage(draft.state, call))


def unknown_usage(state: State, call: ModelCall) -> e.UsageRecorded:
    """What an attempt used whose answer never came: nobody knows, which is not nothing."""
    model, unpriced = state.model_used, Cost(known=False)
    return e.UsageRecorded(call.call_id, call.attempt, model, Usage(), unpriced, estimated=True)


def _close_call(draft: Draft, call: Call) -> None:
    if call.gated and call.approval is not None:
        draft.add(e.ApprovalDecided(call.approval.approval_id, ApprovalState.CANCELLED, "the thread ended"))
    if not call.attempt:
        status, text = CallStatus.CANCELLED, "not run: the thread ended"
    elif call.effect is Effect.AT_MOST_ONCE:
        status, text = (
            CallStatus.UNKNOWN,
            "the thread ended before the result came: whether it took effect is unknown",
        )
    else:
        status, text = CallStatus.ABANDONED, "the thread ended before the result came"
    draft.add(e.ToolCallCompleted(call.call_id, status, text))
