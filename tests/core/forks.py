"""Threads that begin with the events of another."""

from tests.core.histories import DAY, REFERENCE, T0, History
from treadle_server.core import signals as s
from treadle_server.core.evolve import fold
from treadle_server.core.spec import Spec
from treadle_server.core.values import Content, ProposedCall

LATER = T0 + DAY


def fork(history: History, cut: int = 0, its_spec: Spec | None = None, text: str = "") -> History:
    """The history cut off after an event, 0 for the last that is shared, and gone on from a day later."""
    whole = len(history.events) - history.state.ended
    forked = History(its_spec or history.state.spec)
    forked.events = history.events[: cut or whole]
    forked.state = fold(forked.state, forked.events)
    open_calls = [call for call in forked.state.calls.values() if call.open]
    forked.at(LATER).ask(
        s.Fork,
        spec=REFERENCE,
        forked_from="threads/first",
        input=Content(text) if text else None,
        principal="users/eve",
        reviewed=tuple((call.call_id, ProposedCall(call.name, call.arguments_json)) for call in open_calls),
    )
    return forked
