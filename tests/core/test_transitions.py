"""The first table of the API page, "States": which state may follow which."""

from itertools import product

import pytest

from tests.core.asks import possible
from tests.core.histories import DAY, SITUATIONS, created
from treadle_server.core import events as e
from treadle_server.core.accept import accept
from treadle_server.core.decide import wake_at
from treadle_server.core.errors import Refused
from treadle_server.core.evolve import fold
from treadle_server.core.kinds import ThreadState
from treadle_server.core.transitions import TRANSITIONS

# Copied from the page; `TRANSITIONS` must say the same.
PAGE = """
PENDING          | RUNNING, PAUSED, COMPLETED, FAILED, CANCELLED, TIMED_OUT
RUNNING          | WAITING_APPROVAL, WAITING_INPUT, PAUSED, COMPLETED, FAILED, CANCELLED, TIMED_OUT
WAITING_APPROVAL | RUNNING, WAITING_INPUT, PAUSED, COMPLETED, FAILED, CANCELLED, TIMED_OUT
WAITING_INPUT    | RUNNING, WAITING_APPROVAL, PAUSED, COMPLETED, FAILED, CANCELLED, TIMED_OUT
PAUSED           | PENDING, RUNNING, WAITING_APPROVAL, WAITING_INPUT, COMPLETED, FAILED, CANCELLED, TIMED_OUT
COMPLETED        |
FAILED           |
CANCELLED        |
TIMED_OUT        |
"""
LEGAL = {
    (before.strip(), after.strip())
    for before, afters in (line.split("|") for line in PAGE.strip().splitlines())
    for after in afters.split(",")
    if after.strip()
}
STATES = [state.name for state in ThreadState if state is not ThreadState.UNSPECIFIED]
# Approvals open with the model's turn only, so one never opens while a thread waits for input.
NEVER_NEEDED = {("WAITING_INPUT", "WAITING_APPROVAL")}


def pairs(events: tuple[e.Event, ...], before: ThreadState) -> set[tuple[str, str]]:
    """The transitions that events report, each checked to start where the one before ended."""
    found = set()
    for event in events:
        after = before
        if isinstance(event.payload, e.StateChanged):
            assert event.payload.from_state is before
            after = event.payload.to_state
        elif isinstance(event.payload, e.ThreadEnded):
            after = event.payload.state
        if after is not before:
            found.add((before.name, after.name))
        before = after
    return found


def reached() -> set[tuple[str, str]]:
    """All transitions that any ask makes in any situation, now, when the thread is due, and years later."""
    found = set()
    for situation in SITUATIONS.values():
        history = situation()
        for now in (history.now, wake_at(history.state) or history.now, history.now + 1000 * DAY):
            for ask in possible(history.state, now):
                made = accept(history.state, ask)
                if not isinstance(made, Refused):
                    found |= pairs(made, history.state.status)
    return found


REACHED = reached()


def test_the_table_is_that_of_the_page() -> None:
    table = {(before.name, after.name) for before, afters in TRANSITIONS.items() for after in afters}

    assert table == LEGAL | {("UNSPECIFIED", "PENDING")}


@pytest.mark.parametrize(("before", "after"), [*product(STATES, STATES)])
def test_a_transition_is_made_by_some_ask_if_the_page_has_it_and_by_none_otherwise(
    before: str, after: str
) -> None:
    legal = (before, after) in LEGAL - NEVER_NEEDED

    assert ((before, after) in REACHED) is legal


@pytest.mark.parametrize("state", STATES)
def test_some_situation_shows_each_state(state: str) -> None:
    assert any(situation().state.status.name == state for situation in SITUATIONS.values())


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_situation_is_reached_by_transitions_of_the_page(situation: str) -> None:
    history = SITUATIONS[situation]()

    assert pairs(tuple(history.events[1:]), ThreadState.PENDING) <= LEGAL


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_state_changes_by_three_kinds_of_event_only(situation: str) -> None:
    state = created().state
    for event in SITUATIONS[situation]().events:
        before, state = state.status, fold(state, [event])

        moves = isinstance(event.payload, e.ThreadCreated | e.StateChanged | e.ThreadEnded)
        assert moves or state.status is before
