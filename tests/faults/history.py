"""What must hold of every history: the invariants, by name, in one list."""

from collections.abc import Callable, Iterable, Iterator

from tests.faults import about_calls, about_children, about_logs, about_people
from tests.faults.evidence import Acknowledged, Ended, History

__all__ = ["INVARIANTS", "Acknowledged", "Ended", "History", "Invariant", "check", "problems"]

Invariant = Callable[[History], Iterator[str]]
"""Gives a line for everything that is wrong."""

INVARIANTS: tuple[Invariant, ...] = (
    about_logs.callers_are_answered_as_promised,
    about_logs.acknowledged_threads_are_there,
    about_logs.acknowledged_ends_hold,
    about_logs.a_request_id_has_one_thread,
    about_logs.logs_are_numbered_without_holes,
    about_logs.watchers_were_sent_every_event_once,
    about_logs.what_was_sent_is_what_is_stored,
    about_logs.a_thread_is_what_its_log_tells,
    about_logs.all_threads_have_ended_or_wait_for_something,
    about_logs.the_end_comes_once_and_last,
    about_logs.states_follow_the_table,
    about_logs.ends_have_a_reason_of_the_table,
    about_logs.no_thread_is_poisoned,
    about_calls.calls_at_most_once_were_made_at_most_once,
    about_calls.a_call_keeps_its_key,
    about_calls.a_key_has_one_call,
    about_calls.results_come_from_effects,
    about_calls.effects_come_after_their_intents,
    about_calls.nothing_begins_after_an_acknowledged_end,
    about_calls.only_calls_that_were_interrupted_are_unknown,
    about_calls.calls_complete_once,
    about_calls.attempts_at_models_are_all_accounted_for,
    about_calls.tokens_are_those_of_the_answers,
    about_people.nothing_gated_happens_without_its_approval,
    about_people.approvals_are_decided_once,
    about_people.acknowledged_decisions_are_in_the_log,
    about_people.acknowledged_inputs_are_taken_once,
    about_people.acknowledged_answers_are_the_results,
    about_children.a_call_of_an_agent_has_one_thread,
    about_children.the_end_of_a_child_reaches_its_parent_once,
    about_children.no_child_outlives_its_parent,
)


SHOWN_MAX = 3
"""Lines of each invariant."""


def problems(history: History, invariants: Iterable[Invariant] = INVARIANTS) -> list[str]:
    """Everything that is wrong, each line with the name of its invariant."""
    return [f"{check.__name__}: {line}" for check in invariants for line in check(history)]


def check(history: History) -> None:
    """Fails with the first lines of each invariant that does not hold."""
    found = [problems(history, [invariant]) for invariant in INVARIANTS]
    lines = [line for each in found for line in each[:SHOWN_MAX]]
    assert not lines, f"{sum(map(len, found))} problems\n" + "\n".join(lines)
