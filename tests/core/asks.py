"""All that can be asked of a thread as it is, sensible or not."""

from tests.core.histories import COST, HOUR, REFERENCE, USAGE, proposed
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.accept import Ask
from treadle_server.core.approvals import ApprovalRule
from treadle_server.core.commands import CallModel
from treadle_server.core.decide import decide
from treadle_server.core.kinds import CallStatus, Decision, ThreadState
from treadle_server.core.state import Call, State
from treadle_server.core.values import Content, ProposedCall, Usage

_TWO = ApprovalRule(approvers_needed=2, exclude_starter=True, expire_after_micros=HOUR)
_NOBODY = ApprovalRule()
TURNS: tuple[tuple[str, tuple[ProposedCall, ...]], ...] = (
    ("the answer", ()),
    ("", ()),
    ("on it", proposed("look", "save", "send")),
    ("", proposed("pay", "sign", "ask", "open_file")),
    ("", proposed("ask", "open_file")),
    ("", proposed("send", "ask_boss", "delete_file")),
    ("", (ProposedCall("send", '{"n":1}', rule=_TWO), ProposedCall("pay", '{"n":2}', rule=_NOBODY))),
    ("", proposed("look", "finish")),
    ("", proposed("finish", "ask")),
    ("", proposed("nothing of the kind")),
    ("", (ProposedCall("look", "{", "not JSON"), *proposed("look"))),
    ("", proposed(*["look"] * 33)),
)


def possible(state: State, now: int) -> list[Ask]:
    """The asks, fitting and not, in an order that follows from the state alone."""
    asks: list[Ask] = [*_signals(now), *_begins(state, now), s.Due(now), o.Recovered(now, 2)]
    for call in state.calls.values():
        asks.extend(_about(call, now))
    if state.model_call is not None:
        asks.extend(_model_outcomes(state.model_call.call_id, state.model_call.attempt, now))
    asks.extend(_model_outcomes("model-9", 1, now)[:3])
    return asks


def _signals(now: int) -> list[Ask]:
    completes = (ThreadState.COMPLETED, ThreadState.FAILED, ThreadState.CANCELLED)
    return [
        s.Create(now, REFERENCE, Content("again")),
        s.Pause(now),
        s.Resume(now),
        s.Cancel(now, reason="enough"),
        *(s.Complete(now, state, Content("mine"), reason="so be it") for state in completes),
        s.SendInput(now, Content("one more thing")),
        s.SendInput(now, Content("yes"), "call-9-9"),
        s.SubmitToolResult(now, "call-9-9", "text"),
        s.Decide(now, "approval-call-9-9", Decision.REJECT, "users/bob"),
    ]


def _begins(state: State, now: int) -> list[Ask]:
    wanted = sorted(decide(state), key=lambda command: command.call_id)
    ready = tuple(command for command in wanted if not command.begun)
    made: list[Ask] = [s.Begin(now, (CallModel("model-9", 1, begun=False),)), s.Begin(now, ready)]
    made.extend(s.Begin(now, (command,)) for command in wanted)
    return made


def _about(call: Call, now: int) -> list[Ask]:
    call_id, approval_id, digest = call.call_id, f"approval-{call.call_id}", ""
    if call.approval is not None:
        approval_id, digest = call.approval.approval_id, call.approval.digest
    edited = '{"n":7}'
    approve, reject = Decision.APPROVE, Decision.REJECT
    return [
        s.SendInput(now, Content("yes"), call_id),
        s.SubmitToolResult(now, call_id, "text"),
        s.SubmitToolResult(now, call_id, "no such file", ok=False),
        *(s.Decide(now, approval_id, approve, person, digest) for person in ("users/bob", "users/cat")),
        s.Decide(now, approval_id, approve, "users/bob", digest, edited),
        s.Decide(now, approval_id, approve, "users/cat", digest, result_json="7"),
        s.Decide(now, approval_id, approve, "users/bob", "sha256:stale"),
        s.Decide(now, approval_id, reject, "users/bob", message="no"),
        *_tool_outcomes(call_id, call.attempt, now),
        o.ToolReturned(now, call_id, call.attempt + 1, CallStatus.SUCCEEDED, "too early"),
        *_model_outcomes(call_id, call.attempt, now)[:1],
    ]


def _tool_outcomes(call_id: str, attempt: int, now: int) -> list[Ask]:
    return [
        o.ToolReturned(now, call_id, attempt, CallStatus.SUCCEEDED, "done", 5),
        o.ToolReturned(now, call_id, attempt, CallStatus.FAILED, "could not"),
        o.ToolFailed(now, call_id, attempt, CallStatus.FAILED, "no line", retryable=True),
        o.ToolFailed(now, call_id, attempt, CallStatus.TIMED_OUT, "too slow", retryable=False),
        o.Aborted(now, call_id, attempt),
    ]


def _model_outcomes(call_id: str, attempt: int, now: int) -> list[Ask]:
    turns: list[Ask] = [
        o.ModelReplied(now, call_id, attempt, text, "hm", calls, USAGE, COST) for text, calls in TURNS
    ]
    return [
        *turns,
        o.ModelReplied(now, call_id, attempt, "I will not", refusal="against the rules"),
        o.ModelReplied(now, call_id, attempt, "{}", usage=Usage(), problem="does not fit the schema"),
        o.ModelFailed(now, call_id, attempt, 14, "overloaded", retryable=True, jitter=0.5),
        o.ModelFailed(now, call_id, attempt, 3, "no such model", retryable=False),
        o.Aborted(now, call_id, attempt),
        *_tool_outcomes(call_id, attempt, now)[:3],
    ]
