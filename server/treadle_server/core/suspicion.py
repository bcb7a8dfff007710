"""Whom to suspect when servers die: threads with the same step in flight each time, and no outcome of it."""

from treadle_server.core.state import State

SUSPECT_FROM = 2
"""Crashes in a row after which a thread is driven apart from the others."""
GUILTY_FROM = 3
"""Fewer prove nothing, whatever a server says of the last one."""


def crashes(state: State, epoch: int, *, blameless: bool) -> int:
    """How often in a row servers died during what is in flight, when that of `epoch` takes the thread up.

    0 when nothing is in flight, or that server has taken it up already.
    """
    steps = state.steps_in_flight
    if not steps or state.recovered_epoch == epoch:
        return 0
    return max(state.crashes.get(step, 0) for step in steps) + (not blameless)


def suspected(state: State) -> bool:
    """No outcome has cleared it since it was taken up."""
    return not state.ended and _most(state) >= SUSPECT_FROM


def provable(state: State) -> bool:
    """It has been taken up after enough crashes to be found guilty."""
    return _most(state) >= GUILTY_FROM


def proven_alone(state: State, epoch: int) -> bool:
    """Whether a crash with nothing else to do in the server, not recorded yet, is the third without a sign of
    progress between: then there is nobody else who can have done it.
    """
    counts = state.recovered_epoch != epoch and bool(state.steps_in_flight) and not state.ended
    return counts and state.fruitless + 1 >= GUILTY_FROM


def verdict(state: State) -> str:
    """What the thread's end says of it."""
    step = max(state.crashes, key=lambda name: (state.crashes[name], name))
    what = f"the tool {step}" if step else "the model"
    return f"the server went down {state.crashes[step]} times in a row during this thread's call of {what}"


def _most(state: State) -> int:
    return max(state.crashes.values(), default=0)
