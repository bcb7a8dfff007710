"""What must hold of a thread's log once everything has come to rest."""

import json
from collections.abc import Callable, Iterator, Sequence

from tests.faults import about_calls, about_logs
from tests.faults.history import History, Invariant, problems
from tests.machine.expected import APPROVAL, OUTCOME, Call, Expected
from treadle import Approval, Thread, ThreadEvent

OF_ANY_THREAD: tuple[Invariant, ...] = (
    about_logs.logs_are_numbered_without_holes,
    about_logs.watchers_were_sent_every_event_once,
    about_logs.what_was_sent_is_what_is_stored,
    about_logs.a_thread_is_what_its_log_tells,
    about_logs.all_threads_have_ended_or_wait_for_something,
    about_logs.the_end_comes_once_and_last,
    about_logs.states_follow_the_table,
    about_logs.ends_have_a_reason_of_the_table,
    about_calls.calls_complete_once,
    about_calls.attempts_at_models_are_all_accounted_for,
)
Log = Sequence[ThreadEvent]


def faults(expected: Expected, history: History) -> list[str]:
    """Everything that is wrong with one thread that has ended and been watched from its first event."""
    log = history.logs[f"threads/{expected.thread}"]
    of_the_log = [f"{check.__name__}: {line}" for check in CHECKS for line in check(expected, log)]
    return [*problems(history, OF_ANY_THREAD), *of_the_log]


def the_end_is_the_one_expected(expected: Expected, log: Log) -> Iterator[str]:
    ended = log[-1].thread_ended
    found = Thread.State.Name(ended.state), Thread.StopReason.Name(ended.stop_reason)
    if found != (expected.state, expected.reason):
        yield f"{found}, should be {expected.state} for {expected.reason}"


def every_control_is_there_once_and_in_order(expected: Expected, log: Log) -> Iterator[str]:
    reasons = [event.control_requested.reason for event in log if event.HasField("control_requested")]
    if reasons != expected.controls:
        yield f"{reasons}, should be {expected.controls}"


def every_input_is_taken_once(expected: Expected, log: Log) -> Iterator[str]:
    """At the iteration that comes next, unless the thread ended before one came."""
    texts = {
        event.sequence: event.input_received.content.text
        for event in log
        if event.HasField("input_received") and not event.input_received.tool_call_id
    }
    steers = list(texts.values())[1:]
    if steers != expected.steered:
        yield f"inputs {steers}, should be {expected.steered}"
    for event in log:
        if event.HasField("iteration_started"):
            taken = [texts[sequence] for sequence in event.iteration_started.consumed_inputs]
            wanted = expected.taken[event.iteration_started.number]
            if taken != ([texts[min(texts)], *wanted] if event.iteration_started.number == 1 else wanted):
                yield f"iteration {event.iteration_started.number} takes {taken}, should take {wanted}"


def every_answer_and_result_is_there(expected: Expected, log: Log) -> Iterator[str]:
    notes = _notes(log)
    answers = {
        notes[event.input_received.tool_call_id]: event.input_received.content.text
        for event in log
        if event.HasField("input_received") and event.input_received.tool_call_id
    }
    if answers != expected.answered:
        yield f"answers {answers}, should be {expected.answered}"
    results = {
        notes[event.tool_call_completed.tool_call_id]: event.tool_call_completed.observation
        for event in log
        if event.HasField("tool_call_completed")
    }
    for note, text in {**expected.answered, **expected.submitted}.items():
        if text not in results[note]:
            yield f"{note} came to {results[note]!r}, should be {text!r}"


def every_decision_is_the_one_acknowledged(expected: Expected, log: Log) -> Iterator[str]:
    """And there is one at most. What nobody decided was cancelled by the end."""
    notes, asked, decided = _notes(log), {}, {}
    for event in log:
        if event.HasField("approval_requested"):
            request = event.approval_requested
            kind = OUTCOME if request.kind == Approval.TOOL_OUTCOME else APPROVAL
            asked[request.approval_id] = (notes[request.tool_call_id], kind)
        if event.HasField("approval_decided"):
            its = event.approval_decided
            place = asked[its.approval_id]
            if place in decided:
                yield f"{place} was decided twice"
            edited = json.loads(its.edited_arguments_json)["note"] if its.edited_arguments_json else ""
            decided[place] = (Approval.State.Name(its.state), edited, its.result_json)
    wanted = {(call.note, kind): _decided(call, kind) for call in expected.everything for kind in call.waits}
    if decided != wanted:
        yield f"{decided}, should be {wanted}"


def _decided(call: Call, kind: str) -> tuple[str, str, str]:
    decision, edited, result = call.decisions.get(kind, ("", "", ""))
    return {"APPROVE": "APPROVED", "REJECT": "REJECTED", "": "CANCELLED"}[decision], edited, result


def nothing_gated_starts_before_its_approval(_: Expected, log: Log) -> Iterator[str]:
    gated: set[str] = set()
    calls: dict[str, str] = {}
    for event in log:
        if event.HasField("approval_requested"):
            calls[event.approval_requested.approval_id] = event.approval_requested.tool_call_id
            gated.add(event.approval_requested.tool_call_id)
        elif event.HasField("approval_decided") and event.approval_decided.state == Approval.APPROVED:
            gated.discard(calls[event.approval_decided.approval_id])
        elif event.HasField("tool_call_started") and event.tool_call_started.tool_call_id in gated:
            yield f"{event.tool_call_started.tool_call_id} starts at {event.sequence}"


def _notes(log: Log) -> dict[str, str]:
    """Of each call, by its id."""
    notes = {}
    for event in log:
        if event.HasField("tool_call_requested"):
            given = json.loads(event.tool_call_requested.arguments_json)
            notes[event.tool_call_requested.tool_call_id] = next(
                str(given[name]) for name in ("note", "question", "what") if name in given
            )
    return notes


CHECKS: tuple[Callable[[Expected, Log], Iterator[str]], ...] = (
    the_end_is_the_one_expected,
    every_control_is_there_once_and_in_order,
    every_input_is_taken_once,
    every_answer_and_result_is_there,
    every_decision_is_the_one_acknowledged,
    nothing_gated_starts_before_its_approval,
)
