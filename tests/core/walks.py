"""Random walks: any asks, one after another, from any situation."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from random import Random

from hypothesis import strategies as st

from tests.core.asks import possible
from tests.core.histories import HOUR, SECOND, SITUATIONS, History, limited, spec
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.accept import Ask, accept
from treadle_server.core.errors import Refused
from treadle_server.core.events import Event, ThreadEnded
from treadle_server.core.kinds import UnknownPolicy
from treadle_server.core.state import State

SPECS = (
    spec(),
    limited(max_iterations=3, max_tool_calls=6),
    spec(on_unknown_outcome=UnknownPolicy.FAIL, output_schema_json="{}"),
    spec(on_unknown_outcome=UnknownPolicy.ASK),
)
_PAUSES = (0, 0, SECOND // 4, SECOND, SECOND, 10 * SECOND, -SECOND, HOUR)


class Will(Enum):
    """Which asks a step chooses from."""

    DRIVE = auto()
    """What brings the thread forward: begins, outcomes, answers and decisions."""
    PEOPLE = auto()
    """Controls, clocks and crashes, where they change something and do not end the thread."""
    ANY = auto()
    """Everything, also what is refused, changes nothing or ends the thread."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A step: how long after the one before, and which of the asks."""

    pause: int
    seed: int
    will: Will


@dataclass(frozen=True, slots=True)
class Step:
    """One ask and what it made of the state before it."""

    before: State
    ask: Ask
    made: tuple[Event, ...] | Refused


_choice = st.builds(
    Choice,
    st.sampled_from(_PAUSES),
    st.integers(0, 10_000),
    st.sampled_from((Will.DRIVE, Will.DRIVE, Will.DRIVE, Will.DRIVE, Will.PEOPLE, Will.PEOPLE, Will.ANY)),
)
choices = st.one_of(st.lists(_choice, max_size=10), st.lists(_choice, min_size=20, max_size=40))
starts = st.one_of(
    st.sampled_from(sorted(SITUATIONS)).map(lambda name: SITUATIONS[name]),
    st.sampled_from(SPECS).map(lambda its_spec: lambda: History(its_spec).create()),
)


_DRIVING = (
    s.Begin,
    o.ModelReplied,
    o.ModelFailed,
    o.ToolReturned,
    o.ToolFailed,
    s.SendInput,
    s.Decide,
    s.SubmitToolResult,
)


def walk(history: History, path: list[Choice]) -> Iterator[Step]:
    """Goes the way; `history` has all that happened, and each step is shown after it was taken."""
    for choice in path:
        history.now += choice.pause
        before = history.state
        ask = _chosen(before, history.now, choice)
        made = accept(before, ask)
        if not isinstance(made, Refused):
            history.take(ask)
        yield Step(before, ask, made)


def _chosen(state: State, now: int, choice: Choice) -> Ask:
    asks = possible(state, now)
    Random(choice.seed).shuffle(asks)
    if choice.will is Will.ANY:
        return asks[0]
    driving = choice.will is Will.DRIVE
    chosen = (ask for ask in asks if isinstance(ask, _DRIVING) is driving and _goes_on(accept(state, ask)))
    return next(chosen, asks[0])


def _goes_on(made: tuple[Event, ...] | Refused) -> bool:
    return not isinstance(made, Refused) and bool(made) and not isinstance(made[-1].payload, ThreadEnded)


def walked(history: History, path: list[Choice]) -> History:
    for _ in walk(history, path):
        pass
    return history
