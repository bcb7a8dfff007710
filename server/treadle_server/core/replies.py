"""Accepting what the world answered: model turns, tool results, crashes."""

from typing import assert_never

from treadle_server.core import children, policy, suspicion
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core.decide import wants_history
from treadle_server.core.decisions import UNKNOWN_OUTCOME, ask_for_outcome, request_approval
from treadle_server.core.draft import Draft
from treadle_server.core.ending import fail, unknown_usage
from treadle_server.core.kinds import CallStatus, Effect, StopReason, ThreadState, UnknownPolicy, Verdict
from treadle_server.core.questions import question_of
from treadle_server.core.state import Call, ModelCall, State
from treadle_server.core.tasks import tasks_of
from treadle_server.core.values import Cost, Fault, ProposedCall, Usage

_CODE_CANCELLED = 1
_CODE_UNKNOWN = 2
_CODE_ABORTED = 10
_CODE_INTERNAL = 13


def fits(state: State, outcome: o.Outcome) -> bool:
    """The outcome belongs to an attempt that is in flight."""
    candidates: tuple[ModelCall | Call | None, ...]
    match outcome:
        case o.HistoryRead():
            return wants_history(state)
        case o.Recovered():
            return not state.ended and state.in_flight
        case o.DriveFailed():
            return not state.ended and state.status is not ThreadState.UNSPECIFIED
        case o.ModelReplied() | o.ModelFailed():
            candidates = (state.model_call,)
        case o.ToolReturned() | o.ToolFailed() | o.ChildStarted():
            candidates = (state.calls.get(outcome.call_id),)
        case o.ChildEnded():
            return not state.ended and children.answers_open_call(state, outcome)
        case o.Aborted():
            candidates = (state.model_call, state.calls.get(outcome.call_id))
        case _:
            assert_never(outcome)
    attempt = (outcome.call_id, outcome.attempt)
    return not state.ended and any(
        call is not None and call.in_flight and (call.call_id, call.attempt) == attempt for call in candidates
    )


def model_replied(draft: Draft, reply: o.ModelReplied) -> None:
    state = draft.state
    if reply.thought:
        draft.add(e.ThoughtRecorded(reply.call_id, reply.thought))
    problem = _problem(reply)
    final = not (reply.calls or problem or reply.refusal or state.inputs or state.ending)
    draft.add(
        e.MessageCompleted(
            f"message-{state.iteration}",
            reply.call_id,
            reply.text,
            final,
            reply.truncated,
            reply.provider_content,
        )
    )
    _record_usage(draft, reply)
    if state.ending:
        return
    if reply.refusal:
        fail(draft, StopReason.MODEL_REFUSAL, reply.refusal)
    elif problem:
        draft.add(e.OutputRejected(reply.call_id, problem))
    elif reply.calls:
        _request_calls(draft, reply.calls)


def _problem(reply: o.ModelReplied) -> str:
    if reply.problem or reply.refusal:
        return reply.problem
    if len(reply.calls) > policy.CALLS_PER_TURN_MAX:
        return f"{len(reply.calls)} tool calls in one turn; at most {policy.CALLS_PER_TURN_MAX} are taken"
    if not reply.calls and not reply.text.strip():
        return "the turn was empty: answer, or call a tool"
    return ""


def _record_usage(draft: Draft, reply: o.ModelReplied) -> None:
    draft.add(
        e.UsageRecorded(
            reply.call_id,
            reply.attempt,
            draft.state.model_used,
            reply.usage or Usage(),
            reply.cost or Cost(known=False),
            estimated=reply.usage is None,
        )
    )


def _request_calls(draft: Draft, proposed: tuple[ProposedCall, ...]) -> None:
    state, most = draft.state, draft.state.spec.limits.max_tool_calls
    if state.tool_call_count + len(proposed) > most:
        fail(draft, StopReason.MAX_TOOL_CALLS, f"limits.max_tool_calls of {most} is reached")
        return
    for index, call in enumerate(proposed, start=1):
        _request_call(draft, f"call-{state.iteration}-{index}", call)


def _request_call(draft: Draft, call_id: str, call: ProposedCall) -> None:
    tool = draft.state.tool(call.name)
    call = children.within_depth(draft.state, tool, call)
    verdict = policy.verdict(tool, call)
    effect = tool.effect if tool is not None else Effect.AT_MOST_ONCE
    draft.add(
        e.ToolCallRequested(call_id, call.name, call.arguments_json, effect, verdict, call.provider_call_id)
    )
    judge(draft, call_id, call)


def judge(draft: Draft, call_id: str, call: ProposedCall) -> None:
    """What follows at once from asking for a call: its end, or whom it waits for."""
    tool = draft.state.tool(call.name)
    verdict = policy.verdict(tool, call)
    if verdict is Verdict.INVALID:
        problem = call.problem or f"there is no tool {call.name}"
        draft.add(e.ToolCallCompleted(call_id, CallStatus.INVALID, problem))
        return
    assert tool is not None
    if verdict is Verdict.NEEDS_APPROVAL:
        rule = policy.gate(tool, call)
        assert rule is not None
        request_approval(draft, call_id, tool, call, rule)
    elif tool.asks:
        draft.add(e.QuestionAsked(call_id, *question_of(call.arguments_json)))


def model_failed(draft: Draft, failure: o.ModelFailed) -> None:
    state = draft.state
    retry = failure.retryable and failure.attempt < policy.MODEL_ATTEMPTS_MAX and not state.ending
    delay = policy.backoff(failure.attempt, failure.jitter, failure.retry_after_micros) if retry else 0
    fault = Fault(failure.code, failure.message)
    draft.add(e.ModelCallFailed(failure.call_id, failure.attempt, fault, retry, delay))
    if not retry and not state.ending:
        fail(draft, StopReason.MODEL_ERROR, failure.message, failure.code)


def tool_returned(draft: Draft, result: o.ToolReturned) -> None:
    call = draft.state.calls[result.call_id]
    tool = draft.state.tool(call.name)
    if tool is not None and tool.keeps_tasks and result.status is CallStatus.SUCCEEDED:
        tasks = tasks_of(call.arguments_json)
        if tasks is not None and tasks != draft.state.tasks:
            draft.add(e.TasksUpdated(tasks))
    completed = e.ToolCallCompleted(result.call_id, result.status, result.observation, result.duration_micros)
    draft.add(completed)


def tool_failed(draft: Draft, failure: o.ToolFailed) -> None:
    """Another attempt where the effect class and the tool allow one; else the agent sees the failure."""
    state = draft.state
    call = state.calls[failure.call_id]
    tool = state.tool(call.name)
    attempts_max = 1 if tool is None or call.effect is Effect.AT_MOST_ONCE else tool.attempts_max
    if failure.retryable and failure.attempt < attempts_max and not state.ending:
        delay = policy.backoff(failure.attempt, failure.jitter, None)
        fault = Fault(_CODE_UNKNOWN, failure.message)
        draft.add(e.ToolAttemptFailed(failure.call_id, failure.attempt, fault, delay))
        return
    completed = e.ToolCallCompleted(failure.call_id, failure.status, failure.message, failure.duration_micros)
    draft.add(completed)


def aborted(draft: Draft, outcome: o.Aborted) -> None:
    """The runtime itself stopped the call, because the thread is ending."""
    state = draft.state
    model_call = state.model_call
    if model_call is not None and model_call.call_id == outcome.call_id:
        fault = Fault(_CODE_CANCELLED, "the call was stopped")
        draft.add(e.ModelCallFailed(outcome.call_id, outcome.attempt, fault))
        draft.add(unknown_usage(state, model_call))
        return
    unknown = state.calls[outcome.call_id].effect is Effect.AT_MOST_ONCE
    status = CallStatus.UNKNOWN if unknown else CallStatus.CANCELLED
    text = "stopped before the result came" + (": whether it took effect is unknown" if unknown else "")
    draft.add(e.ToolCallCompleted(outcome.call_id, status, text, outcome.duration_micros))


def recovered(draft: Draft, outcome: o.Recovered) -> None:
    """After a crash: calls that may be repeated begin again, the others end UNKNOWN."""
    unknown, model_call = lost_calls(draft.state), draft.state.model_call
    call_ids = tuple(call.call_id for call in unknown)
    draft.add(e.ExecutionRecovered(outcome.epoch, call_ids, outcome.blameless))
    if model_call is not None and model_call.in_flight:
        draft.add(unknown_usage(draft.state, model_call))
    poisoned = outcome.guilty and suspicion.provable(draft.state)
    end_unknown(draft, unknown, may_ask=not poisoned)
    state = draft.state
    if poisoned and not state.ending and not state.ended:
        fail(draft, StopReason.POISONED, suspicion.verdict(state), _CODE_ABORTED)


def lost_calls(state: State) -> list[Call]:
    """Those in flight that must not be repeated."""
    return [call for call in state.calls.values() if call.in_flight and call.effect is Effect.AT_MOST_ONCE]


def end_unknown(draft: Draft, calls: list[Call], *, may_ask: bool = True, why: str = "after a crash") -> None:
    """What the agent's policy makes of calls of which nobody here can learn the outcome."""
    policy_is_ask = draft.state.spec.on_unknown_outcome is UnknownPolicy.ASK
    for call in calls:
        if policy_is_ask and may_ask and not draft.state.ending:
            ask_for_outcome(draft, call)
            continue
        draft.add(e.ToolCallCompleted(call.call_id, CallStatus.UNKNOWN, UNKNOWN_OUTCOME))
    if calls and draft.state.spec.on_unknown_outcome is UnknownPolicy.FAIL and not draft.state.ending:
        names = ", ".join(call.call_id for call in calls)
        fail(draft, StopReason.TOOL_OUTCOME_UNKNOWN, f"the outcome of {names} is unknown {why}")


def drive_failed(draft: Draft) -> None:
    """Ends a thread that the runtime cannot drive. Why is for the server's log, not for its callers."""
    text = "the server failed at driving the thread; its log says why"
    fail(draft, StopReason.INTERNAL, text, _CODE_INTERNAL)
