"""The fold: state and event in, next state out. Total, and never fails."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from treadle_server.core import events as e
from treadle_server.core import policy
from treadle_server.core.kinds import (
    ApprovalKind,
    ApprovalState,
    CallStatus,
    Control,
    Decision,
    StopReason,
    ThreadState,
)
from treadle_server.core.state import Approval, Call, ModelCall, Pending, State
from treadle_server.core.values import Content, Cost, Usage


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


def _forked(state: State, event: e.Event, payload: e.ThreadForked) -> None:
    """What was shared stays; what was open, asked or spent was the other thread's."""
    if state.origin is not None:  # else a newer release wrote it
        state.origin = replace(
            state.origin,
            spec=payload.spec,
            session="",
            parent_thread="",
            parent_call=None,
            trigger=e.Trigger(triggered_by=payload.principal),
            forked_from=payload.forked_from,
            retried_from=payload.retried_from,
            principal=payload.principal,
        )
    state.status = ThreadState.PENDING
    state.create_time = state.state_time = event.time_micros
    state.start_time = state.running_since = state.running_micros = 0
    state.pending = None
    state.usage, state.cost = Usage(), Cost()
    state.children_usage, state.children_cost = Usage(), Cost()
    state.rejections = state.recoveries = state.recovered_epoch = state.fruitless = 0
    state.crashes = {}
    if state.model_call is not None:
        state.model_call = replace(state.model_call, in_flight=False, not_before=0)
    for call in state.calls.values():
        if call.open:
            tool = state.tool(call.name)
            state.calls[call.call_id] = replace(
                call,
                effect=call.effect if tool is None else max(call.effect, tool.effect),
                in_flight=False,
                not_before=0,
                child_thread="",
                child_ended=False,
                since=event.time_micros,
                approval=None,
            )


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


def _count(state: State, what: str | CallStatus) -> None:
    state.tally[what] = state.tally.get(what, 0) + 1


def _input(state: State, event: e.Event, payload: e.InputReceived) -> None:
    _count(state, "inputs_received")
    if state.first_input is None:
        state.first_input = payload.content
    if not payload.tool_call_id:
        state.inputs = (*state.inputs, event.sequence)
        state.input_time = event.time_micros


def _recalled(state: State, event: e.Event, payload: e.HistoryRecalled) -> None:
    state.recalled = True


def _iteration(state: State, event: e.Event, payload: e.IterationStarted) -> None:
    state.rejections = state.rejections + 1 if state.rejected else 0
    state.problem = ""
    state.iteration = payload.number
    state.inputs = tuple(seq for seq in state.inputs if seq not in payload.consumed_inputs)
    state.calls = {}
    state.answer = None


def _model_started(state: State, event: e.Event, payload: e.ModelCallStarted) -> None:
    _count(state, "model_calls")
    state.model_call = ModelCall(payload.call_id, payload.attempt, in_flight=True)
    state.model_used = payload.model


def _model_failed(state: State, event: e.Event, payload: e.ModelCallFailed) -> None:
    _count(state, "model_calls_failed")
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
    _count(state, "turns_rejected")
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
        agent_version=tool.agent_version if tool is not None else "",
        since=event.time_micros,
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
    _count(state, "tool_attempts_failed")
    call = state.calls.get(payload.tool_call_id)
    if call is not None:
        _acquit(state, call.name)
    again = event.time_micros + payload.retry_delay_micros
    _change(state, payload.tool_call_id, in_flight=False, not_before=again)


def _call_completed(state: State, event: e.Event, payload: e.ToolCallCompleted) -> None:
    call = state.calls.get(payload.tool_call_id)
    if call is None:
        return
    _count(state, payload.status)
    if _outlived(call, payload.status):
        state.children_cost = replace(state.children_cost, known=False)
    if call.in_flight:  # else it is a crash that left it without an outcome
        _acquit(state, call.name)
    _change(state, payload.tool_call_id, status=payload.status, in_flight=False)
    if payload.status in (CallStatus.SUCCEEDED, CallStatus.FAILED):
        _used(state, call.name)
    tool = state.tool(call.name)
    if tool is not None and tool.finishes and payload.status is CallStatus.SUCCEEDED:
        state.answer = Content(payload.observation)


def _outlived(call: Call, status: CallStatus) -> bool:
    """The thread that does a call of an agent may go on, and nobody is told what it costs."""
    if not call.agent_version or not call.attempt or call.child_ended:
        return False
    return bool(call.child_thread) or status in (CallStatus.CANCELLED, CallStatus.ABANDONED)


def _child_started(state: State, event: e.Event, payload: e.ChildThreadStarted) -> None:
    call = state.calls.get(payload.tool_call_id)
    if call is not None:
        _acquit(state, call.name)
    thread, since = payload.child_thread, event.time_micros
    _change(state, payload.tool_call_id, child_thread=thread, in_flight=False, since=since)


def _child_ended(state: State, event: e.Event, payload: e.ChildThreadEnded) -> None:
    state.children_usage = state.children_usage.plus(payload.usage)
    state.children_cost = state.children_cost.plus(payload.cost)
    _change(state, payload.tool_call_id, child_ended=True)


def _approval_requested(state: State, event: e.Event, payload: e.ApprovalRequested) -> None:
    approval = Approval(
        payload.approval_id,
        payload.arguments_digest,
        payload.approvers_needed,
        payload.expire_time_micros,
        kind=payload.kind or ApprovalKind.TOOL_CALL,
        rule=payload.rule,
        exclude_starter=payload.exclude_starter,
        create_time=event.time_micros,
    )
    _change(state, payload.tool_call_id, approval=approval, since=event.time_micros)


def _approval_expiring(state: State, event: e.Event, payload: e.ApprovalExpiring) -> None:
    call = approval_call(state, payload.approval_id)
    if call is not None and call.approval is not None:
        _change(state, call.call_id, approval=replace(call.approval, expiring=True))


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
    result_digest = policy.arguments_digest(payload.result_json) if payload.result_json else ""
    approval = replace(call.approval, state=payload.state, result_digest=result_digest)
    _change(state, call.call_id, approval=approval, since=event.time_micros)
    if payload.state is ApprovalState.APPROVED and payload.edited_arguments_json:
        _change(state, call.call_id, arguments_json=payload.edited_arguments_json)


def _question(state: State, event: e.Event, payload: e.QuestionAsked) -> None:
    _change(state, payload.tool_call_id, asked=True, since=event.time_micros)


def _tasks(state: State, event: e.Event, payload: e.TasksUpdated) -> None:
    state.tasks = payload.tasks


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
    e.ThreadForked: _forked,
    e.StateChanged: _state_changed,
    e.ControlRequested: _control,
    e.InputReceived: _input,
    e.HistoryRecalled: _recalled,
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
    e.ApprovalExpiring: _approval_expiring,
    e.ApprovalVoteRecorded: _vote,
    e.ApprovalDecided: _decided,
    e.QuestionAsked: _question,
    e.TasksUpdated: _tasks,
    e.ChildThreadStarted: _child_started,
    e.ChildThreadEnded: _child_ended,
    e.ExecutionRecovered: _recovered,
    e.ThreadEnded: _ended,
    e.Unknown: _unknown,
}
