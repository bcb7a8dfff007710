"""Events in the making: each is folded at once, so that the next is made on the newest state."""

from treadle_server.core.events import Event, IterationStarted, Payload, StateChanged
from treadle_server.core.evolve import apply
from treadle_server.core.kinds import StopReason, ThreadState
from treadle_server.core.mail import SPEAKS, Letter, letters
from treadle_server.core.state import State
from treadle_server.core.transitions import TRANSITIONS


class Draft:
    """The events of one append and the state after them. The state it began with is untouched."""

    __slots__ = ("events", "letters", "now", "state")

    def __init__(self, state: State, now: int) -> None:
        self.state = state.copy()
        self.now = max(now, state.update_time)
        self.events: list[Event] = []
        self.letters: list[Letter] = []
        """What the thread tells others, in the append of what made it say so."""

    def add(self, payload: Payload) -> None:
        state = self.state
        iteration = payload.number if type(payload) is IterationStarted else state.iteration
        event = Event(state.sequence + 1, self.now, iteration, payload)
        self.events.append(event)
        apply(state, event)
        if type(payload) in SPEAKS:
            self.letters.extend(letters(state, event))

    def go(self, to_state: ThreadState) -> None:
        """Changes to a state that is not terminal; the one place that does."""
        from_state = self.state.status
        if from_state is to_state:
            return
        assert to_state in TRANSITIONS[from_state], (from_state, to_state)
        self.add(StateChanged(from_state, to_state, StopReason.UNSPECIFIED))
