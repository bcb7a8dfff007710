"""What a thread of the machine will do: turns of calls, each held by a gate or free, and its agent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

TOOLS = ("look", "save", "send", "pay")
"""Of the world. `pay` waits for a person's approval first."""
AT_MOST_ONCE = frozenset({"send", "pay"})
QUESTION, CLIENT_TOOL = "ask_user", "measure"
POLICIES = ("TELL_MODEL", "ASK", "FAIL")
STEERS_MAX = 6
"""Of one thread. Each may cost a turn more."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    tool: str
    held: bool = False
    """The world answers once the call's gate is open."""


@dataclass(frozen=True, slots=True)
class Plan:
    turns: tuple[tuple[PlannedCall, ...], ...]
    policy: str
    """What the agent does about calls whose outcome nobody knows."""
    model_held: bool
    """Every turn of the model waits for a gate."""
    queued: bool
    """Another thread holds its session."""

    def script(self, thread: str) -> dict[str, Any]:
        """For the scripted model, or for the one of the world when turns are held."""
        turns: list[dict[str, Any]] = [
            {"calls": [_call(thread, number, place, call) for place, call in enumerate(calls, start=1)]}
            for number, calls in enumerate(self.turns, start=1)
        ]
        last = [{"text": answer(number)} for number in self.answers]
        if not self.model_held:
            return {"turns": [*turns, *last]}
        held = [
            {**turn, "gate": model_gate(thread, number)}
            for number, turn in enumerate([*turns, *last], start=1)
        ]
        return {"turns": held, "thread": thread}

    def gates(self, thread: str) -> Iterator[str]:
        """All of them: what is begun in the world waits for its gate, also when nobody waits for it."""
        for number, calls in enumerate(self.turns, start=1):
            for place, call in enumerate(calls, start=1):
                if call.held:
                    yield call_gate(note(thread, number, place))
        if self.model_held:
            yield from (model_gate(thread, number) for number in range(1, self.answers.stop))

    @property
    def answers(self) -> range:
        """Numbers of the turns that answer."""
        return range(len(self.turns) + 1, len(self.turns) + STEERS_MAX + 2)


def answer(turn: int) -> str:
    return f"answer of turn {turn}"


def model_gate(thread: str, turn: int) -> str:
    return f"{thread}.{turn}"


def note(thread: str, turn: int, place: int) -> str:
    """Also what the ledger knows a call by."""
    return f"{thread}/{turn}/{place}"


def call_gate(its_note: str) -> str:
    return its_note.replace("/", ".")


def arguments(tool: str, its_note: str, *, held: bool) -> dict[str, Any]:
    if tool == QUESTION:
        return {"question": its_note}
    if tool == CLIENT_TOOL:
        return {"what": its_note}
    return {"note": its_note, **({"gate": call_gate(its_note)} if held else {})}


def _call(thread: str, turn: int, place: int, call: PlannedCall) -> dict[str, Any]:
    return {
        "name": call.tool,
        "arguments": arguments(call.tool, note(thread, turn, place), held=call.held),
    }


_WORLD = st.builds(PlannedCall, st.sampled_from(TOOLS), st.booleans())
_PEOPLE = st.builds(PlannedCall, st.sampled_from(("pay", "pay", QUESTION, CLIENT_TOOL)))
_TURN = st.lists(_WORLD | _PEOPLE, min_size=1, max_size=3).map(tuple)
PLANS = st.builds(
    Plan,
    st.lists(_TURN, min_size=0, max_size=3).map(tuple),
    st.sampled_from(POLICIES),
    st.sampled_from((False, False, True)),
    st.sampled_from((False, False, True)),
)
