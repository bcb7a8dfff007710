"""What should be in flight, and when to look again. Both read the state only."""

from treadle_server.core.commands import CallModel, CallTool, Command
from treadle_server.core.kinds import Control, ThreadState
from treadle_server.core.state import Call, State

CLOCK_SLACK_MICROS = 1_000_000
"""Times of events that are recorded together may differ so much in either direction."""
_DRIVEN = frozenset({ThreadState.PENDING, ThreadState.RUNNING})


def decide(state: State) -> frozenset[Command]:
    """All that should be in flight now. Empty: the thread waits for something outside, or has ended."""
    if state.unreadable or state.status not in _DRIVEN or state.ending:
        return frozenset()
    wanted = _wanted(state)
    if state.pending is not None and state.pending.command is Control.PAUSE:
        return frozenset(command for command in wanted if command.begun)
    return frozenset(wanted)


def _wanted(state: State) -> list[Command]:
    call = state.model_call
    if call is not None:
        attempt = call.attempt if call.in_flight else call.attempt + 1
        return [CallModel(call.call_id, attempt, call.in_flight, call.not_before)]
    open_calls = [call for call in state.calls.values() if call.open]
    if open_calls:
        return [_call_tool(call) for call in open_calls if call.runnable]
    return [CallModel(f"model-{state.iteration + 1}", 1, begun=False)]


def _call_tool(call: Call) -> CallTool:
    attempt = call.attempt if call.in_flight else call.attempt + 1
    return CallTool(
        call.call_id, call.name, call.arguments_json, call.effect, attempt, call.in_flight, call.not_before
    )


def due(state: State, now: int) -> list[Command]:
    """What is wanted and may begin.

    A pause before another attempt is over too when its beginning is yet to come: the wall clock was put back
    since, and nobody knows how long it has lasted.
    """
    put_back = now < state.update_time - CLOCK_SLACK_MICROS
    return [c for c in decide(state) if not c.begun and (put_back or c.not_before <= now)]


def wake_at(state: State) -> int | None:
    """When to ask `accept` with Due, micros since 1970; None = only when something else happens."""
    if state.ended or state.unreadable or state.status is ThreadState.UNSPECIFIED:
        return None
    if state.pending is not None and state.ending:
        return state.pending.since + state.pending.grace_micros
    times = [lifetime_end(state)]
    if state.running_since:
        times.append(running_end(state))
    for call in state.calls.values():
        if call.gated and call.approval is not None and call.approval.expire_time:
            times.append(call.approval.expire_time)
    return min(times)


def lifetime_end(state: State) -> int:
    """When the thread is too old, whatever it did."""
    return state.create_time + state.spec.limits.max_lifetime_micros


def running_end(state: State) -> int:
    """When the thread has run for too long, if it goes on running."""
    return state.running_since + state.spec.limits.timeout_micros - state.running_micros
