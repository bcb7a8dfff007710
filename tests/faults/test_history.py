"""The checker itself: a sound history passes, and every invariant finds what breaks it."""

from collections.abc import Callable
from copy import deepcopy

import pytest

from tests.faults import about_calls as calls
from tests.faults import about_logs as logs
from tests.faults import history as h
from tests.faults import sound_people
from tests.faults.history import Acknowledged, Ended, History
from tests.faults.ledger import ANSWERED, BEGUN, DONE, MODEL, Line
from tests.faults.watching import Seen
from treadle import Action, Thread, ThreadEvent
from treadle.v1.iteration_pb2 import Iteration

NAME = "threads/a"
STATUSES = {"call-1": Action.UNKNOWN, "call-2": Action.SUCCEEDED}
TOKENS = 15


def event(kind: str, **fields: object) -> ThreadEvent:
    made = ThreadEvent(thread=NAME)
    payload = getattr(made, kind)
    payload.SetInParent()
    for name, value in fields.items():
        setattr(payload, name, value)
    return made


def requested(call_id: str, note: str) -> ThreadEvent:
    return event("tool_call_requested", tool_call_id=call_id, arguments_json=f'{{"note":"{note}"}}')


def sound() -> History:
    """One thread that sent once and saved, was killed and recovered, saved again, and was completed."""
    log = [
        event("thread_created"),
        event("state_changed", to=Thread.RUNNING),
        event("iteration_started", number=1),
        event("model_call_started", call_id="model-1", attempt=1),
        event("usage_recorded", call_id="model-1", attempt=1),
        requested("call-1", "a/1/1"),
        requested("call-2", "a/1/2"),
        event("tool_call_started", tool_call_id="call-1", attempt=1),
        event("tool_call_started", tool_call_id="call-2", attempt=1),
        event("execution_recovered"),
        event("tool_call_completed", tool_call_id="call-1", status=Action.UNKNOWN),
        event("tool_call_started", tool_call_id="call-2", attempt=2),
        event("tool_call_completed", tool_call_id="call-2", status=Action.SUCCEEDED),
        event("thread_ended", state=Thread.COMPLETED, stop_reason=Thread.COMPLETED_BY_CALLER),
    ]
    setattr(log[1].state_changed, "from", Thread.PENDING)
    log[4].usage_recorded.usage.total_tokens = TOKENS
    log[4].usage_recorded.cost.known = True
    log[9].execution_recovered.unknown_tool_call_ids.append("call-1")
    log[-1].thread_ended.output.text = "done"
    log[-1].thread_ended.cost.known = True
    for sequence, each in enumerate(log, start=1):
        each.sequence = sequence
    return History(
        acknowledged=[Acknowledged("r", NAME), Acknowledged("r", NAME)],
        seen=[
            Seen("watcher", NAME, deepcopy(log), connections=3, complete=True),
            Seen("left early", NAME, log[:2]),
        ],
        threads={NAME: _thread(len(log))},
        logs={NAME: log},
        ledger=[
            Line(MODEL, "a/1", step=BEGUN, micros=5),
            Line(MODEL, "a/1", step=DONE, micros=6, tokens=TOKENS),
            Line("send", "a/1/1", "call-1", "key-1", 1, BEGUN, 10),
            Line("send", "a/1/1", "call-1", "key-1", 1, DONE, 11),
            Line("save", "a/1/2", "call-2", "key-2", 1, BEGUN, 10),
            Line("save", "a/1/2", "call-2", "key-2", 1, DONE, 12),
            Line("save", "a/1/2", "call-2", "key-2", 2, BEGUN, 20),
            Line("save", "a/1/2", "call-2", "key-2", 2, DONE, 21),
            Line("save", "a/1/2", "call-2", "key-2", 2, ANSWERED, 22),
        ],
        ended=[Ended(NAME, Thread.COMPLETED, 30, "done")],
    )


def _thread(last_sequence: int) -> Thread:
    thread = Thread(
        name=NAME,
        state=Thread.COMPLETED,
        stop_reason=Thread.COMPLETED_BY_CALLER,
        success=True,
        last_sequence=last_sequence,
        iteration_count=1,
        actions_taken=2,
        iterations=[Iteration(number=1)],
    )
    thread.output.text = "done"
    thread.usage.total_tokens = TOKENS
    thread.cost.known = True
    for call_id, note in (("call-1", "a/1/1"), ("call-2", "a/1/2")):
        action = thread.iterations[0].actions.add(tool_call_id=call_id, status=STATUSES[call_id])
        action.arguments_json = f'{{"note":"{note}"}}'
    return thread


def at(history: History, kind: str) -> ThreadEvent:
    """The last event of a kind."""
    return [each for each in history.logs[NAME] if each.HasField(kind)][-1]  # type: ignore[arg-type]


def fail_a_caller(history: History) -> None:
    history.failures.append("execute of 7: NOT_FOUND")


def lose_a_thread(history: History) -> None:
    history.acknowledged.append(Acknowledged("s", "threads/b"))


def forget_an_end(history: History) -> None:
    history.threads[NAME].state = Thread.FAILED


def forget_an_output(history: History) -> None:
    history.threads[NAME].output.text = "something else"


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


def count_wrongly(history: History) -> None:
    history.threads[NAME].actions_taken = 3


def drop_usage(history: History) -> None:
    history.threads[NAME].usage.total_tokens = 0


def show_another_observation(history: History) -> None:
    history.threads[NAME].iterations[0].actions[1].observation = "made up"


def never_end(history: History) -> None:
    history.threads[NAME].state = Thread.RUNNING


def wait_for_nothing(history: History) -> None:
    history.threads[NAME].state = Thread.WAITING_INPUT


def end_twice(history: History) -> None:
    history.logs[NAME][5].thread_ended.state = Thread.COMPLETED


def go_on_behind_the_end(history: History) -> None:
    history.logs[NAME].append(ThreadEvent(thread=NAME, sequence=99))


def go_back(history: History) -> None:
    history.logs[NAME][2].state_changed.to = Thread.PENDING
    setattr(history.logs[NAME][2].state_changed, "from", Thread.RUNNING)


def change_from_another_state(history: History) -> None:
    setattr(history.logs[NAME][1].state_changed, "from", Thread.PAUSED)


def end_for_a_reason_of_failures(history: History) -> None:
    history.threads[NAME].stop_reason = Thread.MAX_TOKENS


def fail_for_no_reason(history: History) -> None:
    history.threads[NAME].state = Thread.FAILED
    history.threads[NAME].stop_reason = Thread.FINISHED


def poison(history: History) -> None:
    history.threads[NAME].stop_reason = Thread.POISONED


def repeat_a_call(history: History) -> None:
    history.ledger.append(Line("send", "a/1/1", "call-1", "key-1", 2))


def change_a_key(history: History) -> None:
    history.ledger.append(Line("save", "a/1/2", "call-2", "key-3", 3))


def use_a_key_again(history: History) -> None:
    history.ledger.append(Line("save", "a/1/3", "call-3", "key-2", 1))


def invent_a_result(history: History) -> None:
    del history.ledger[4:]


def act_without_intent(history: History) -> None:
    history.ledger.append(Line("save", "a/1/2", "call-2", "key-2", 3))


def act_twice_in_an_attempt(history: History) -> None:
    history.ledger.append(Line("save", "a/1/2", "call-2", "key-2", 2))


def act_unasked(history: History) -> None:
    history.ledger.append(Line("save", "a/2/1", "call-2-1", "key-9", 1))


def begin_after_the_end(history: History) -> None:
    history.ledger.append(Line("look", "a/1/2", "call-2", "key-2", 3, BEGUN, 31))


def call_the_model_after_the_end(history: History) -> None:
    history.ledger.append(Line(MODEL, "a/1", step=BEGUN, micros=31 + calls.ABORT_MICROS))


def doubt_for_no_reason(history: History) -> None:
    at(history, "tool_call_completed").tool_call_completed.status = Action.UNKNOWN


def believe_a_lost_result(history: History) -> None:
    history.logs[NAME][10].tool_call_completed.status = Action.SUCCEEDED


def complete_a_call_again(history: History) -> None:
    history.logs[NAME].insert(-1, at(history, "tool_call_completed"))


def call_the_model_for_nothing(history: History) -> None:
    at(history, "model_call_started").model_call_started.attempt = 1
    history.logs[NAME].insert(4, at(history, "model_call_started"))


def forget_what_an_attempt_used(history: History) -> None:
    del history.logs[NAME][4]


def claim_to_know_the_cost(history: History) -> None:
    at(history, "usage_recorded").usage_recorded.cost.known = False


def charge_too_much(history: History) -> None:
    at(history, "usage_recorded").usage_recorded.usage.total_tokens = TOKENS + 1


def ask_a_model_in_secret(history: History) -> None:
    history.ledger.append(Line(MODEL, "a/1", step=BEGUN, micros=7))


BREAKS: tuple[tuple[Callable[[History], None], h.Invariant], ...] = (
    (fail_a_caller, logs.callers_are_answered_as_promised),
    (lose_a_thread, logs.acknowledged_threads_are_there),
    (forget_an_end, logs.acknowledged_ends_hold),
    (forget_an_output, logs.acknowledged_ends_hold),
    (answer_twice, logs.a_request_id_has_one_thread),
    (make_twice, logs.a_request_id_has_one_thread),
    (leave_a_hole, logs.logs_are_numbered_without_holes),
    (send_twice, logs.watchers_were_sent_every_event_once),
    (send_too_few, logs.watchers_were_sent_every_event_once),
    (skip_one_for_who_left, logs.watchers_were_sent_every_event_once),
    (send_something_else, logs.what_was_sent_is_what_is_stored),
    (count_wrongly, logs.a_thread_is_what_its_log_tells),
    (drop_usage, logs.a_thread_is_what_its_log_tells),
    (show_another_observation, logs.a_thread_is_what_its_log_tells),
    (never_end, logs.all_threads_have_ended_or_wait_for_something),
    (wait_for_nothing, logs.all_threads_have_ended_or_wait_for_something),
    (end_twice, logs.the_end_comes_once_and_last),
    (go_on_behind_the_end, logs.the_end_comes_once_and_last),
    (go_back, logs.states_follow_the_table),
    (change_from_another_state, logs.states_follow_the_table),
    (end_for_a_reason_of_failures, logs.ends_have_a_reason_of_the_table),
    (fail_for_no_reason, logs.ends_have_a_reason_of_the_table),
    (poison, logs.no_thread_is_poisoned),
    (repeat_a_call, calls.calls_at_most_once_were_made_at_most_once),
    (change_a_key, calls.a_call_keeps_its_key),
    (use_a_key_again, calls.a_key_has_one_call),
    (invent_a_result, calls.results_come_from_effects),
    (act_without_intent, calls.effects_come_after_their_intents),
    (act_twice_in_an_attempt, calls.effects_come_after_their_intents),
    (act_unasked, calls.effects_come_after_their_intents),
    (begin_after_the_end, calls.nothing_begins_after_an_acknowledged_end),
    (call_the_model_after_the_end, calls.nothing_begins_after_an_acknowledged_end),
    (doubt_for_no_reason, calls.only_calls_that_were_interrupted_are_unknown),
    (believe_a_lost_result, calls.only_calls_that_were_interrupted_are_unknown),
    (complete_a_call_again, calls.calls_complete_once),
    (call_the_model_for_nothing, calls.attempts_at_models_are_all_accounted_for),
    (forget_what_an_attempt_used, calls.attempts_at_models_are_all_accounted_for),
    (claim_to_know_the_cost, calls.attempts_at_models_are_all_accounted_for),
    (charge_too_much, calls.tokens_are_those_of_the_answers),
    (ask_a_model_in_secret, calls.tokens_are_those_of_the_answers),
    *sound_people.BREAKS,
)


def test_a_sound_history_passes() -> None:
    h.check(sound())
    h.check(sound_people.add_people(sound()))


@pytest.mark.parametrize(("break_it", "invariant"), BREAKS, ids=lambda value: value.__name__)
def test_an_invariant_finds_what_breaks_it(
    break_it: Callable[[History], None], invariant: h.Invariant
) -> None:
    broken = sound_people.add_people(sound())

    break_it(broken)

    assert h.problems(broken, [invariant]), invariant.__name__
    with pytest.raises(AssertionError, match=invariant.__name__):
        h.check(broken)


def test_every_invariant_is_broken_by_one_of_these_tests() -> None:
    assert {invariant for _, invariant in BREAKS} == set(h.INVARIANTS)
