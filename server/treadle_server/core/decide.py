"""What should be in flight, and when to look again. Both read the state only."""

from treadle_server.core import policy
from treadle_server.core.commands import CallAgent, CallModel, CallTool, Command
from treadle_server.core.kinds import Control, ThreadState
from treadle_server.core.state import Call, State

DEBOUNCES_MAX = 5
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
        return _calls(state, open_calls)
    return [CallModel(f"model-{state.iteration + 1}", 1, begun=False, not_before=quiet_at(state))]


def quiet_at(state: State) -> int:
    """When a thread of a session may begin, if no further input comes; 0 = at once.

    Whoever goes on talking holds it back for five times as long at most.
    """
    debounce = state.spec.input_debounce_micros
    if state.iteration or not debounce or state.origin is None or not state.origin.session:
        return 0
    return min(state.input_time + debounce, state.create_time + DEBOUNCES_MAX * debounce)


def wants_history(state: State) -> bool:
    """What was said earlier in its session is not known yet, and the model is to be told."""
    told = not state.spec.history_messages_max or state.recalled or state.iteration > 0
    in_session = state.origin is not None and bool(state.origin.session)
    return in_session and not told and not state.ended


def _calls(state: State, open_calls: list[Call]) -> list[Command]:
    """Calls of agents wait for room among the children; those in flight have theirs."""
    wanted: list[Command] = []
    of_agents = [call for call in open_calls if call.agent_version]
    room = state.spec.limits.max_children - sum(call.delegated or call.in_flight for call in of_agents)
    for call in open_calls:
        if call.runnable and call.agent_version and not call.in_flight:
            room -= 1
        if call.runnable and (room >= 0 or call.in_flight or not call.agent_version):
            wanted.append(_call(call))
    return wanted


def _call(call: Call) -> CallTool | CallAgent:
    attempt = call.attempt if call.in_flight else call.attempt + 1
    if call.agent_version:
        return CallAgent(
            call.call_id,
            call.name,
            call.agent_version,
            call.arguments_json,
            attempt,
            call.in_flight,
            call.not_before,
        )
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
        approval = call.approval
        if call.gated and approval is not None and approval.expire_time:
            warned, until = approval.expiring, approval.expire_time
            times.append(until if warned else policy.expiring_at(approval.create_time, until))
    return min(times)


def lifetime_end(state: State) -> int:
    """When the thread is too old, whatever it did."""
    return state.create_time + state.spec.limits.max_lifetime_micros


def running_end(state: State) -> int:
    """When the thread has run for too long, if it goes on running."""
    return state.running_since + state.spec.limits.timeout_micros - state.running_micros
