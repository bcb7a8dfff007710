"""Accepting what callers ask, by the control table."""

from treadle_server.core import events as e
from treadle_server.core import policy
from treadle_server.core import signals as s
from treadle_server.core.draft import Draft
from treadle_server.core.ending import resting_state
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import (
    TERMINAL,
    CallStatus,
    Control,
    StopReason,
    ThreadState,
)
from treadle_server.core.state import State
from treadle_server.core.transitions import Reaction, Row, allowed, reaction


def conflict(state: State, what: str) -> Refused:
    """Refuses something that the present state does not allow."""
    during, possible = state.status.name, allowed(state.status)
    if state.pending is not None and state.ending:
        command = state.pending.command.name
        during, possible = f"{during} with {command} pending", (command, Row.FORK.name)
    return Refused(
        Reason.THREAD_STATE_CONFLICT,
        f"{what} is not possible while the thread is {during}; possible are {', '.join(possible)}",
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
            retried_from=ask.retried_from,
            parent_call=ask.parent_call,
            initial_context_ignored=ask.initial_context_ignored,
            context=ask.context,
            busy_policy=ask.busy_policy,
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
            Reason.CONCURRENCY_LIMITED,
            f"{policy.INPUTS_MAX} inputs wait to be taken already",
            metadata={"limit": str(policy.INPUTS_MAX)},
        )
    draft.add(e.InputReceived(ask.content, principal=ask.principal))
    return None


def _answer(draft: Draft, ask: s.SendInput) -> Refused | None:
    call = draft.state.calls.get(ask.tool_call_id)
    if not _settles(draft.state, Row.ANSWER) or call is None or not call.open or not call.asked:
        what = f"answering {ask.tool_call_id}"
        return _not_open(draft.state, Row.ANSWER, what, f"{ask.tool_call_id} is no open question")
    draft.add(e.InputReceived(ask.content, ask.tool_call_id, ask.principal))
    text = "\n".join(part for part in (ask.content.text, ask.content.data_json) if part)
    draft.add(e.ToolCallCompleted(call.call_id, CallStatus.SUCCEEDED, text))
    return None


def submit_tool_result(draft: Draft, ask: s.SubmitToolResult) -> Refused | None:
    call = draft.state.calls.get(ask.tool_call_id)
    waits = call is not None and call.open and call.client and not call.gated
    if not _settles(draft.state, Row.TOOL_RESULT) or call is None or not waits:
        what = f"submitting a result of {ask.tool_call_id}"
        return _not_open(
            draft.state, Row.TOOL_RESULT, what, f"{ask.tool_call_id} is no open call of a client tool"
        )
    status = CallStatus.SUCCEEDED if ask.ok else CallStatus.FAILED
    draft.add(e.ToolCallCompleted(call.call_id, status, ask.observation, principal=ask.principal))
    return None


def _not_open(state: State, row: Row, what: str, fault: str) -> Refused:
    """Refuses to settle a call that does not wait for it, and names those that do."""
    refused = conflict(state, what)
    if not _settles(state, row):
        return refused
    open_calls = [
        call.call_id
        for call in state.calls.values()
        if call.open and not call.gated and (call.asked if row is Row.ANSWER else call.client)
    ]
    those = f"open are {', '.join(open_calls)}" if open_calls else "none is open"
    return Refused(refused.reason, f"tool_call_id: {fault}; {those}", metadata=refused.metadata)


def _settles(state: State, row: Row) -> bool:
    return reaction(row, state.status) is Reaction.SETTLE and not state.ending
