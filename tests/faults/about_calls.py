"""Invariants between logs and what the world did: tools, models, tokens."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.faults.about_people import note_of
from tests.faults.evidence import History
from tests.faults.ledger import BEGUN, DONE, MODEL, Line
from treadle import Action, Thread, ThreadEvent
from treadle.v1.event_pb2 import ToolCallCompleted

_ENDING = (Thread.CANCEL, Thread.COMPLETE)
READ_ONLY_TOOL, AT_MOST_ONCE_TOOLS = "look", frozenset({"send", "pay"})
ABORT_MICROS = 1_000_000
"""So long after an acknowledged end a model call may still arrive that was sent before it."""


@dataclass(slots=True)
class LoggedCall:
    """One tool call as its thread's log has it."""

    thread: str
    call_id: str
    note: str
    """Of the arguments that it runs with, also when a person changed them."""
    attempts: list[int] = field(default_factory=list)
    completed: ToolCallCompleted | None = None


def calls_at_most_once_were_made_at_most_once(history: History) -> Iterator[str]:
    counts = Counter(
        (line.note, line.step) for line in _tool_lines(history) if line.tool in AT_MOST_ONCE_TOOLS
    )
    for (note, step), count in counts.items():
        if count > 1:
            yield f"{note} was {step} {count} times"


def a_call_keeps_its_key(history: History) -> Iterator[str]:
    keys = defaultdict(set)
    for line in _tool_lines(history):
        keys[line.note].add(line.key)
    for note, its_keys in keys.items():
        if len(its_keys) > 1:
            yield f"{note} was called with {len(its_keys)} idempotency keys"


def a_key_has_one_call(history: History) -> Iterator[str]:
    notes = defaultdict(set)
    for line in _tool_lines(history):
        notes[line.key].add(line.note)
    for key, its_notes in notes.items():
        if len(its_notes) > 1:
            yield f"key {key} was used for {sorted(its_notes)}"


def results_come_from_effects(history: History) -> Iterator[str]:
    done = {line.note for line in _tool_lines(history, DONE)}
    for call in _calls(history).values():
        succeeded = call.completed is not None and call.completed.status == Action.SUCCEEDED
        if succeeded and call.note not in done:
            yield f"{call.note} has a result and never happened"


def effects_come_after_their_intents(history: History) -> Iterator[str]:
    """What changes the world has a committed intent of just that attempt, and an attempt happens once."""
    calls = _calls(history)
    happened: Counter[tuple[str, int]] = Counter()
    for line in _tool_lines(history, DONE):
        call = calls.get(line.note)
        if line.tool == READ_ONLY_TOOL:  # does not wait: a crash may take even what asked for it
            continue
        if call is None:
            yield f"{line.note} happened and was never asked for"
        else:
            happened[line.note, line.attempt] += 1
            if line.attempt not in call.attempts or line.call_id != call.call_id:
                yield f"{line.note} happened in attempt {line.attempt} of {call.attempts}"
    for (note, attempt), count in happened.items():
        if count > 1:
            yield f"attempt {attempt} at {note} happened {count} times"


def nothing_begins_after_an_acknowledged_end(history: History) -> Iterator[str]:
    ends = {ended.thread: ended.micros for ended in history.ended}
    for line in history.ledger:
        end = ends.get(f"threads/{line.note.partition('/')[0]}")
        if end is None or line.step != BEGUN:
            continue
        if line.micros > end + (ABORT_MICROS if line.tool == MODEL else 0):
            yield f"{line.tool} {line.note} began {line.micros - end} us after the end was acknowledged"


def only_calls_that_were_interrupted_are_unknown(history: History) -> Iterator[str]:
    """By a crash, which the log tells, or by the end of the thread; and only those at most once."""
    for name, log in history.logs.items():
        crashed = {call_id for event in log for call_id in event.execution_recovered.unknown_tool_call_ids}
        ending = False
        for event in log:
            ending = ending or event.control_requested.command in _ENDING
            completed = event.tool_call_completed
            if not event.HasField("tool_call_completed"):
                continue
            left_open, unknown = completed.tool_call_id in crashed, completed.status == Action.UNKNOWN
            if unknown != left_open and not (unknown and ending):
                status = Action.Status.Name(completed.status)
                yield f"{completed.tool_call_id} of {name} is {status}; left open by a crash: {left_open}"


def calls_complete_once(history: History) -> Iterator[str]:
    for name, log in history.logs.items():
        counts = Counter(e.tool_call_completed.tool_call_id for e in log if e.HasField("tool_call_completed"))
        for call_id, count in counts.items():
            if count > 1:
                yield f"{call_id} of {name} was completed {count} times"


def attempts_at_models_are_all_accounted_for(history: History) -> Iterator[str]:
    """Each has its tokens, or is in the cost as unknown, or failed; and a crash adds one at most."""
    for name, log in history.logs.items():
        started, settled, known = Counter[str](), set(), True
        interruptions = 0
        for event in log:
            kind = event.WhichOneof("payload")
            if kind == "model_call_started":
                started[event.model_call_started.call_id] += 1
            elif kind == "usage_recorded":
                usage = event.usage_recorded
                settled.add((usage.call_id, usage.attempt))
                known = known and usage.cost.known
            elif kind == "model_call_failed":
                settled.add((event.model_call_failed.call_id, event.model_call_failed.attempt))
                interruptions += event.model_call_failed.will_retry
            elif kind == "execution_recovered":
                interruptions += 1
            elif kind == "thread_ended" and event.thread_ended.cost.known != known:
                yield f"{name} ended with a cost that is not known as its parts are"
        wanted = {(call, n) for call, count in started.items() for n in range(1, count + 1)}
        if settled != wanted and log and log[-1].HasField("thread_ended"):
            yield f"{name}: attempts not accounted for: {sorted(wanted ^ settled)}"
        if started.total() > len(started) + interruptions:
            yield f"{name}: {started.total()} attempts at {len(started)} calls, {interruptions} interruptions"


def tokens_are_those_of_the_answers(history: History) -> Iterator[str]:
    """For models of the world: what was charged is what an answer had, and every request is in the log."""
    answers, requests = defaultdict(set), Counter[str]()
    for line in history.ledger:
        if line.tool == MODEL and line.step == DONE:
            answers[line.note].add(line.tokens)
        elif line.tool == MODEL and line.step == BEGUN:
            requests[line.note] += 1
    for name, log in history.logs.items():
        started, charged = Counter[str](), Counter[str]()
        for event in log:
            if event.HasField("model_call_started"):
                started[_model_note(name, event.model_call_started.call_id)] += 1
            usage, note = event.usage_recorded, _model_note(name, event.usage_recorded.call_id)
            if event.HasField("usage_recorded") and not usage.estimated and note in requests:
                charged[note] += 1
                if usage.usage.total_tokens not in answers[note]:
                    yield f"{note}: {usage.usage.total_tokens} tokens, answered were {answers[note]}"
        for note in started.keys() & requests.keys():
            if requests[note] > started[note] or charged[note] > 1:
                times = f"{started[note]} starts, charged {charged[note]} times"
                yield f"{note}: {requests[note]} requests, {times}"


def _model_note(thread: str, call_id: str) -> str:
    return f"{thread.removeprefix('threads/')}/{call_id.removeprefix('model-')}"


def _tool_lines(history: History, step: str = "") -> Iterator[Line]:
    for line in history.ledger:
        if line.tool != MODEL and step in ("", line.step):
            yield line


def _calls(history: History) -> dict[str, LoggedCall]:
    """By note. Calls of other tools have none."""
    calls: dict[str, LoggedCall] = {}
    for name, log in history.logs.items():
        for call in _calls_of(name, log):
            calls[call.note] = call
    return calls


def _calls_of(name: str, log: Iterable[ThreadEvent]) -> Iterator[LoggedCall]:
    calls: dict[str, LoggedCall] = {}
    approved: dict[str, str] = {}
    for event in log:
        match event.WhichOneof("payload"):
            case "tool_call_requested":
                asked = event.tool_call_requested
                note = note_of(asked.arguments_json)
                calls[asked.tool_call_id] = LoggedCall(name, asked.tool_call_id, note)
            case "approval_requested":
                approved[event.approval_requested.approval_id] = event.approval_requested.tool_call_id
            case "approval_decided" if event.approval_decided.edited_arguments_json:
                call = calls[approved[event.approval_decided.approval_id]]
                call.note = note_of(event.approval_decided.edited_arguments_json)
            case "tool_call_started" if event.tool_call_started.tool_call_id in calls:
                started = event.tool_call_started
                calls[started.tool_call_id].attempts.append(started.attempt)
            case "tool_call_completed" if event.tool_call_completed.tool_call_id in calls:
                calls[event.tool_call_completed.tool_call_id].completed = event.tool_call_completed
    yield from (call for call in calls.values() if call.note)
