"""The checker itself: a sound history passes, and every invariant finds what breaks it."""

from collections.abc import Callable
from copy import deepcopy

import pytest

from tests.faults import history as h
from tests.faults.history import Acknowledged, History
from tests.faults.ledger import Line
from tests.faults.watching import Seen
from treadle import Action, Thread, ThreadEvent

NAME = "threads/a"


def sound() -> History:
    """One thread that sent once, was killed and recovered, saved, and ended."""
    log = [ThreadEvent(thread=NAME, sequence=sequence) for sequence in range(1, 8)]
    log[0].thread_created.SetInParent()
    for event, call_id, note in ((log[1], "call-1", "a/1/1"), (log[2], "call-2", "a/1/2")):
        event.tool_call_requested.tool_call_id = call_id
        event.tool_call_requested.arguments_json = f'{{"note":"{note}"}}'
    log[3].execution_recovered.unknown_tool_call_ids.append("call-1")
    for event, call_id, status in ((log[4], "call-1", Action.UNKNOWN), (log[5], "call-2", Action.SUCCEEDED)):
        event.tool_call_completed.tool_call_id = call_id
        event.tool_call_completed.status = status
    log[6].thread_ended.state = Thread.COMPLETED
    return History(
        acknowledged=[Acknowledged("r", NAME), Acknowledged("r", NAME)],
        seen=[
            Seen("watcher", NAME, deepcopy(log), connections=3, complete=True),
            Seen("left early", NAME, log[:2]),
        ],
        threads={NAME: Thread(name=NAME, state=Thread.COMPLETED)},
        logs={NAME: log},
        ledger=[
            Line("send", "a/1/1", "call-1", "key-1", 1),
            Line("save", "a/1/2", "call-2", "key-2", 1),
            Line("save", "a/1/2", "call-2", "key-2", 2),
        ],
    )


def lose_a_thread(history: History) -> None:
    history.acknowledged.append(Acknowledged("s", "threads/b"))


def answer_twice(history: History) -> None:
    history.acknowledged.append(Acknowledged("r", "threads/b"))


def make_twice(history: History) -> None:
    history.threads["threads/b"] = Thread(name="threads/b", state=Thread.COMPLETED)


def leave_a_hole(history: History) -> None:
    del history.logs[NAME][1]


def send_twice(history: History) -> None:
    history.seen[0].events.insert(3, history.seen[0].events[2])


def send_too_few(history: History) -> None:
    del history.seen[0].events[-1]


def skip_one_for_who_left(history: History) -> None:
    del history.seen[1].events[0]


def send_something_else(history: History) -> None:
    history.seen[0].events[1].iteration = 9


def never_end(history: History) -> None:
    history.threads[NAME].state = Thread.RUNNING


def end_twice(history: History) -> None:
    history.logs[NAME][5].thread_ended.state = Thread.COMPLETED


def go_on_behind_the_end(history: History) -> None:
    history.logs[NAME].append(ThreadEvent(thread=NAME, sequence=8))


def poison(history: History) -> None:
    history.threads[NAME].stop_reason = Thread.POISONED


def repeat_a_call(history: History) -> None:
    history.ledger.append(Line("send", "a/1/1", "call-1", "key-1", 2))


def change_a_key(history: History) -> None:
    history.ledger.append(Line("save", "a/1/2", "call-2", "key-3", 3))


def invent_a_result(history: History) -> None:
    del history.ledger[1:]


def doubt_for_no_reason(history: History) -> None:
    history.logs[NAME][5].tool_call_completed.status = Action.UNKNOWN


def believe_a_lost_result(history: History) -> None:
    history.logs[NAME][4].tool_call_completed.status = Action.SUCCEEDED


BREAKS: tuple[tuple[Callable[[History], None], h.Invariant], ...] = (
    (lose_a_thread, h.acknowledged_threads_are_there),
    (answer_twice, h.a_request_id_has_one_thread),
    (make_twice, h.a_request_id_has_one_thread),
    (leave_a_hole, h.logs_are_numbered_without_holes),
    (send_twice, h.watchers_were_sent_every_event_once),
    (send_too_few, h.watchers_were_sent_every_event_once),
    (skip_one_for_who_left, h.watchers_were_sent_every_event_once),
    (send_something_else, h.what_was_sent_is_what_is_stored),
    (never_end, h.all_threads_have_ended),
    (end_twice, h.the_end_comes_once_and_last),
    (go_on_behind_the_end, h.the_end_comes_once_and_last),
    (poison, h.no_thread_is_poisoned),
    (repeat_a_call, h.calls_at_most_once_were_made_at_most_once),
    (change_a_key, h.a_call_keeps_its_key),
    (invent_a_result, h.results_come_from_calls),
    (doubt_for_no_reason, h.only_calls_that_crashed_are_unknown),
    (believe_a_lost_result, h.only_calls_that_crashed_are_unknown),
)


def test_a_sound_history_passes() -> None:
    h.check(sound())


@pytest.mark.parametrize(("break_it", "invariant"), BREAKS, ids=lambda value: value.__name__)
def test_an_invariant_finds_what_breaks_it(
    break_it: Callable[[History], None], invariant: h.Invariant
) -> None:
    broken = sound()

    break_it(broken)

    assert h.problems(broken, [invariant]), invariant.__name__
    with pytest.raises(AssertionError, match=invariant.__name__):
        h.check(broken)


def test_every_invariant_is_broken_by_one_of_these_tests() -> None:
    assert {invariant for _, invariant in BREAKS} == set(h.INVARIANTS)
