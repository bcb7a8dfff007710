"""The fold: state and event in, next state out. Total, and never fails."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from treadle_server.core import events as e
from treadle_server.core.kinds import (
    ApprovalState,
    CallStatus,
    Control,
    Decision,
    StopReason,
    ThreadState,
)
from treadle_server.core.state import Approval, Call, ModelCall, Pending, State
from treadle_server.core.values import Content


def evolve(state: State, event: e.Event) -> State:
    """The state after one more event."""
    return fold(state, (event,))


def fold(state: State, events: Iterable[e.Event]) -> State:
    """The state after more events; one copy, however many they are."""
    after = state.copy()
    for event in events:
        apply(after, event)
    return after


def apply(state: State, event: e.Event) -> None:
    """Changes `state` in place: for folds that own their copy."""
    state.sequence = event.sequence
    state.update_time = event.time_micros
    handler = _HANDLERS.get(type(event.payload))
    if handler is not None:
        handler(state, event, event.payload)


def _created(state: State, event: e.Event, payload: e.ThreadCreated) -> None:
    state.status = ThreadState.PENDING
    state.origin = payload
    state.create_time = state.state_time = event.time_micros


def _state_changed(state: State, event: e.Event, payload: e.StateChanged) -> None:
    _leave_running(state, event.time_micros)
    state.status = payload.to_state
    state.state_time = event.time_micros
    if payload.to_state is ThreadState.RUNNING:
        state.running_since = event.time_micros
        state.start_time = state.start_time or event.time_micros
    if payload.to_state is ThreadState.PAUSED:
        state.pending = None


def _leave_running(state: State, now: int) -> None:
    if state.running_since:
        state.running_micros += max(0, now - state.running_since)
        state.running_since = 0


def _control(state: State, event: e.Event, payload: e.ControlRequested) -> None:
    if payload.command is Control.RESUME:
        state.pending = None
        return
    state.pending = Pending(
        payload.command,
        event.time_micros,
        payload.grace_micros,
        payload.target_state,
        payload.stop_reason,
        payload.output,
        payload.reason,
    )


def _input(state: State, event: e.Event, payload: e.InputReceived) -> None:
    if state.first_input is None:
        state.first_input = payload.content
    if not payload.tool_call_id:
        state.inputs = (*state.inputs, event.sequence)


def _iteration(state: State, event: e.Event, payload: e.IterationStarted) -> None:
    state.rejections = state.rejections + 1 if state.rejected else 0
    state.problem = ""
    state.iteration = payload.number
    state.inputs = tuple(seq for seq in state.inputs if seq not in payload.consumed_inputs)
    state.calls = {}
    state.answer = None


def _model_started(state: State, event: e.Event, payload: e.ModelCallStarted) -> None:
    state.model_call = ModelCall(payload.call_id, payload.attempt, in_flight=True)
    state.model_used = payload.model


def _model_failed(state: State, event: e.Event, payload: e.ModelCallFailed) -> None:
    _acquit(state, "")
    if not payload.will_retry:
        state.model_call = None
        return
    again = event.time_micros + payload.retry_delay_micros
    state.model_call = ModelCall(payload.call_id, payload.attempt, in_flight=False, not_before=again)


def _message(state: State, event: e.Event, payload: e.MessageCompleted) -> None:
    _acquit(state, "")
    state.model_call = None
    if payload.text:
        state.last_text = payload.text
    if payload.final:
        state.answer = Content(payload.text)


def _output_rejected(state: State, event: e.Event, payload: e.OutputRejected) -> None:
    state.problem = payload.problem


def _usage(state: State, event: e.Event, payload: e.UsageRecorded) -> None:
    state.usage = state.usage.plus(payload.usage)
    state.cost = state.cost.plus(payload.cost)


def _call_requested(state: State, event: e.Event, payload: e.ToolCallRequested) -> None:
    tool = state.tool(payload.tool)
    state.calls[payload.tool_call_id] = Call(
        payload.tool_call_id,
        payload.tool,
        payload.arguments_json,
        payload.effect,
        payload.verdict,
        client=tool is not None and tool.client,
    )
    state.tool_call_count += 1


def _call_started(state: State, event: e.Event, payload: e.ToolCallStarted) -> None:
    _change(state, payload.tool_call_id, attempt=payload.attempt, in_flight=True, not_before=0)
    call = state.calls.get(payload.tool_call_id)
    if call is not None:
        _used(state, call.name)


def _used(state: State, tool: str) -> None:
    if tool not in state.tools_used:
        state.tools_used = (*state.tools_used, tool)


def _attempt_failed(state: State, event: e.Event, payload: e.ToolAttemptFailed) -> None:
    call = state.calls.get(payload.tool_call_id)
    if call is not None:
        _acquit(state, call.name)
    again = event.time_micros + payload.retry_delay_micros
    _change(state, payload.tool_call_id, in_flight=False, not_before=again)


def _call_completed(state: State, event: e.Event, payload: e.ToolCallCompleted) -> None:
    call = state.calls.get(payload.tool_call_id)
    if call is None:
        return
    if call.in_flight:  # else it is a crash that left it without an outcome
        _acquit(state, call.name)
    _change(state, payload.tool_call_id, status=payload.status, in_flight=False)
    if payload.status in (CallStatus.SUCCEEDED, CallStatus.FAILED):
        _used(state, call.name)
    tool = state.tool(call.name)
    if tool is not None and tool.finishes and payload.status is CallStatus.SUCCEEDED:
        state.answer = Content(payload.observation)


def _approval_requested(state: State, event: e.Event, payload: e.ApprovalRequested) -> None:
    approval = Approval(
        payload.approval_id, payload.arguments_digest, payload.approvers_needed, payload.expire_time_micros
    )
    _change(state, payload.tool_call_id, approval=approval)


def _vote(state: State, event: e.Event, payload: e.ApprovalVoteRecorded) -> None:
    call = approval_call(state, payload.approval_id)
    if call is None or call.approval is None or payload.decision is not Decision.APPROVE:
        return
    approvals = (*call.approval.approvals, payload.principal)
    _change(state, call.call_id, approval=replace(call.approval, approvals=approvals))


def _decided(state: State, event: e.Event, payload: e.ApprovalDecided) -> None:
    call = approval_call(state, payload.approval_id)
    if call is None or call.approval is None:
        return
    _change(state, call.call_id, approval=replace(call.approval, state=payload.state))
    if payload.state is ApprovalState.APPROVED and payload.edited_arguments_json:
        _change(state, call.call_id, arguments_json=payload.edited_arguments_json)


def _question(state: State, event: e.Event, payload: e.QuestionAsked) -> None:
    _change(state, payload.tool_call_id, asked=True)


def _recovered(state: State, event: e.Event, payload: e.ExecutionRecovered) -> None:
    state.recoveries += 1
    if not payload.blameless and payload.epoch != state.recovered_epoch:
        counted = {step: state.crashes.get(step, 0) + 1 for step in state.steps_in_flight}
        state.crashes = {**state.crashes, **counted}
        state.fruitless += 1
    state.recovered_epoch = payload.epoch
    if state.model_call is not None:
        state.model_call = replace(state.model_call, in_flight=False, not_before=0)
    for call in state.calls.values():
        if call.in_flight:
            state.calls[call.call_id] = replace(call, in_flight=False)


def _ended(state: State, event: e.Event, payload: e.ThreadEnded) -> None:
    _leave_running(state, event.time_micros)
    state.status = payload.state
    state.stop_reason = StopReason(payload.stop_reason)
    state.state_time = state.end_time = event.time_micros
    state.output = payload.output
    state.error = payload.error
    state.pending = None
    state.model_call = None


def _unknown(state: State, event: e.Event, payload: e.Unknown) -> None:
    state.unreadable = True


def _acquit(state: State, step: str) -> None:
    """The step had an outcome: it was not what servers died of."""
    state.fruitless = 0
    if step in state.crashes:
        state.crashes = {name: count for name, count in state.crashes.items() if name != step}


def _change(state: State, call_id: str, **changes: Any) -> None:
    call = state.calls.get(call_id)
    if call is not None:
        state.calls[call_id] = replace(call, **changes)


def approval_call(state: State, approval_id: str) -> Call | None:
    """The call of the present iteration that an approval is about."""
    for call in state.calls.values():
        if call.approval is not None and call.approval.approval_id == approval_id:
            return call
    return None


_HANDLERS: dict[type[Any], Callable[[State, e.Event, Any], None]] = {
    e.ThreadCreated: _created,
    e.StateChanged: _state_changed,
    e.ControlRequested: _control,
    e.InputReceived: _input,
    e.IterationStarted: _iteration,
    e.ModelCallStarted: _model_started,
    e.ModelCallFailed: _model_failed,
    e.MessageCompleted: _message,
    e.OutputRejected: _output_rejected,
    e.UsageRecorded: _usage,
    e.ToolCallRequested: _call_requested,
    e.ToolCallStarted: _call_started,
    e.ToolAttemptFailed: _attempt_failed,
    e.ToolCallCompleted: _call_completed,
    e.ApprovalRequested: _approval_requested,
    e.ApprovalVoteRecorded: _vote,
    e.ApprovalDecided: _decided,
    e.QuestionAsked: _question,
    e.ExecutionRecovered: _recovered,
    e.ThreadEnded: _ended,
    e.Unknown: _unknown,
}
