"""The only maker of events: what was asked, judged on the newest state."""

from typing import assert_never

from treadle_server.core import children, decisions, forking, replies, requests
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.commands import CallAgent, CallModel, CallTool
from treadle_server.core.decide import decide, due, lifetime_end, running_end
from treadle_server.core.draft import Draft
from treadle_server.core.ending import carry_out, settle, time_out
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import ThreadState
from treadle_server.core.state import State

Ask = s.Signal | s.Begin | s.Due | o.Outcome


def accept(state: State, ask: Ask) -> tuple[e.Event, ...] | Refused:
    """The events that an ask makes, perhaps none; or why it is refused. `state` is untouched."""
    draft = advance(state, ask)
    return draft if isinstance(draft, Refused) else tuple(draft.events)


def advance(state: State, ask: Ask) -> Draft | Refused:
    """As `accept`, with the state after the events."""
    if state.unreadable:
        return Refused(Reason.RECORD_CORRUPT, "the thread's log was written by a newer release")
    draft = Draft(state, ask.now)
    refused = _take(draft, ask)
    if refused is not None:
        return refused
    settle(draft)
    return draft


def begin_ready(draft: Draft, now: int) -> None:
    """Adds the intents of all that is wanted, not begun and due, to the append of what led to them."""
    commands = due(draft.state, now)
    if commands:
        _begin(draft, s.Begin(now, tuple(sorted(commands, key=lambda c: (len(c.call_id), c.call_id)))))
        settle(draft)


def _take(draft: Draft, ask: Ask) -> Refused | None:
    match ask:
        case s.Begin():
            return _begin(draft, ask)
        case s.Due():
            return _due(draft, ask)
        case (
            o.HistoryRead()
            | o.ModelReplied()
            | o.ModelFailed()
            | o.ToolReturned()
            | o.ToolFailed()
            | o.ChildStarted()
            | o.ChildEnded()
            | o.Aborted()
            | o.Recovered()
            | o.DriveFailed()
        ):
            return _outcome(draft, ask)
        case _:
            return _signal(draft, ask)


def _signal(draft: Draft, ask: s.Signal) -> Refused | None:
    if draft.state.status is ThreadState.UNSPECIFIED and not isinstance(ask, s.Create):
        return Refused(Reason.RESOURCE_NOT_FOUND, "the thread does not exist")
    match ask:
        case s.Create():
            return requests.create(draft, ask)
        case s.Fork():
            forking.fork(draft, ask)
            return None
        case s.Pause():
            return requests.pause(draft, ask)
        case s.Resume():
            return requests.resume(draft, ask)
        case s.Cancel():
            return requests.cancel(draft, ask)
        case s.Complete():
            return requests.complete(draft, ask)
        case s.SendInput():
            return requests.send_input(draft, ask)
        case s.SubmitToolResult():
            return requests.submit_tool_result(draft, ask)
        case s.Decide():
            return decisions.decide_approval(draft, ask)
        case _:
            assert_never(ask)


def _outcome(draft: Draft, outcome: o.Outcome) -> Refused | None:
    if not replies.fits(draft.state, outcome):
        return Refused(Reason.THREAD_STATE_CONFLICT, "the outcome belongs to no call in flight")
    match outcome:
        case o.HistoryRead():
            draft.add(outcome.history)
        case o.ModelReplied():
            replies.model_replied(draft, outcome)
        case o.ModelFailed():
            replies.model_failed(draft, outcome)
        case o.ToolReturned():
            replies.tool_returned(draft, outcome)
        case o.ToolFailed():
            replies.tool_failed(draft, outcome)
        case o.ChildStarted():
            children.child_started(draft, outcome)
        case o.ChildEnded():
            children.child_ended(draft, outcome)
        case o.Aborted():
            replies.aborted(draft, outcome)
        case o.Recovered():
            replies.recovered(draft, outcome)
        case o.DriveFailed():
            replies.drive_failed(draft)
        case _:
            assert_never(outcome)
    return None


def _begin(draft: Draft, ask: s.Begin) -> Refused | None:
    """Makes the intents. Refused whole if one of the commands is not wanted (any more)."""
    wanted = decide(draft.state)
    if any(command not in wanted or command.begun for command in ask.commands):
        return Refused(Reason.THREAD_STATE_CONFLICT, "a command to begin is not wanted")
    if ask.commands and draft.state.status is ThreadState.PENDING:
        draft.go(ThreadState.RUNNING)
    for command in ask.commands:
        match command:
            case CallModel():
                _begin_model_call(draft, command)
            case CallTool() | CallAgent():
                draft.add(e.ToolCallStarted(command.call_id, command.attempt))
            case _:
                assert_never(command)
    return None


def _begin_model_call(draft: Draft, command: CallModel) -> None:
    if draft.state.model_call is None:
        draft.add(e.IterationStarted(draft.state.iteration + 1, draft.state.inputs))
    origin = draft.state.origin
    assert origin is not None
    draft.add(e.ModelCallStarted(command.call_id, command.attempt, origin.spec.model))


def _due(draft: Draft, ask: s.Due) -> Refused | None:
    state = draft.state
    if state.ended or state.status is ThreadState.UNSPECIFIED:
        return None
    pending = state.pending
    if pending is not None and state.ending:  # accepted first: no other deadline overtakes it
        if ask.now >= pending.since + pending.grace_micros:
            carry_out(draft)
    elif ask.now >= lifetime_end(state):
        time_out(draft, "limits.max_lifetime")
    elif state.running_since and ask.now >= running_end(state):
        time_out(draft, "limits.timeout")
    else:
        decisions.expire_approvals(draft, ask.now)
    return None
