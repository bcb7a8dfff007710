"""What one thread tells another: it is kept with the change that made it say so, and told afterwards."""

from dataclasses import dataclass

from treadle_server.core import events as e
from treadle_server.core.kinds import Control, StopReason, ThreadState
from treadle_server.core.outcomes import ChildEnded
from treadle_server.core.signals import GRACE_MICROS, Cancel, Pause, Resume
from treadle_server.core.state import Call, State

Told = Pause | Resume | Cancel | ChildEnded
SPEAKS = frozenset({e.ControlRequested, e.ChildThreadStarted, e.ToolCallCompleted, e.ThreadEnded})
"""Events that may make a thread say something."""
_SHARE = (4, 5)
"""Of a grace: what a thread gets that is stopped with its parent, so that its answer comes in time."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One of the two names to whom: a thread of the tenant, or the one that a call of the sender's made.

    Who has ended, or was never made, is told nothing.
    """

    ask: Told
    thread: str = ""
    """`threads/{thread}`."""
    call_id: str = ""


def letters(state: State, event: e.Event) -> tuple[Letter, ...]:
    """What the event makes the thread tell its parent and its children; `state` is the one after it."""
    match event.payload:
        case e.ControlRequested() as control:
            return tuple(
                Letter(_passed_on(state, control, event.time_micros), call_id=call.call_id)
                for call in state.children
            )
        case e.ChildThreadStarted(tool_call_id=call_id):
            return _catching_up(state, call_id, event.time_micros)
        case e.ToolCallCompleted(tool_call_id=call_id):
            call = state.calls.get(call_id)
            if call is not None and _may_live(call):
                return (Letter(_stop(event.time_micros, GRACE_MICROS), call_id=call_id),)
        case e.ThreadEnded():
            answer, origin = child_ended(state, event.time_micros), state.origin
            if answer is not None and origin is not None:
                return (Letter(answer, thread=origin.parent_thread),)
    return ()


def _passed_on(state: State, control: e.ControlRequested, now: int) -> Told:
    match control.command:
        case Control.PAUSE:
            return Pause(now, control.principal, control.reason)
        case Control.RESUME:
            return Resume(now, control.principal, control.reason)
    return _stop(now, control.grace_micros)


def _stop(now: int, grace_micros: int) -> Cancel:
    share, whole = _SHARE
    return Cancel(
        now,
        reason="the thread that called it ended",
        grace_micros=grace_micros * share // whole,
        stop_reason=StopReason.PARENT_ENDED,
    )


def _catching_up(state: State, call_id: str, now: int) -> tuple[Letter, ...]:
    """A child that was being made while its parent was asked something."""
    pending = state.pending
    if pending is not None and state.ending:
        left = max(0, pending.since + pending.grace_micros - now)
        return (Letter(_stop(now, left), call_id=call_id),)
    if pending is not None or state.status is ThreadState.PAUSED:
        return (Letter(Pause(now, reason="the thread that called it is paused"), call_id=call_id),)
    return ()


def _may_live(call: Call) -> bool:
    """The call is over, and the thread that does it may not be."""
    return bool(call.agent_version and call.attempt) and not call.child_ended


def child_ended(state: State, now: int) -> ChildEnded | None:
    """What a thread that has ended tells the one that called it; None when no agent called it."""
    origin = state.origin
    if origin is None or origin.parent_call is None:
        return None
    return ChildEnded(
        now,
        origin.parent_call.tool_call_id,
        origin.spec.agent_version,
        state.status,
        state.stop_reason,
        state.output,
        state.error,
        state.usage.plus(state.children_usage),
        state.cost.plus(state.children_cost),
    )
