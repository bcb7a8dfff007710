"""What callers were told, what the log holds and what tools did; and what must hold between the three."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tests.faults.ledger import Line
from tests.faults.watching import Seen
from treadle import Action, Client, Thread, ThreadEvent
from treadle.v1.event_pb2 import ToolCallCompleted

ENDED = frozenset({Thread.COMPLETED, Thread.FAILED, Thread.CANCELLED, Thread.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An RPC that makes a thread said OK."""

    request_id: str
    thread: str


@dataclass(slots=True)
class History:
    """One run of a fault test, after everything has come to rest."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    threads: dict[str, Thread] = field(default_factory=dict)
    logs: dict[str, list[ThreadEvent]] = field(default_factory=dict)
    ledger: list[Line] = field(default_factory=list)

    async def read(self, client: Client) -> "History":
        """Takes all threads and their logs from the server."""
        async for thread in client.list_threads(page_size=1000):
            self.threads[thread.name] = thread
        for name in self.threads:
            self.logs[name] = [event async for event in client.list_events(name, page_size=1000)]
        return self


Invariant = Callable[[History], Iterator[str]]
"""Gives a line for everything that is wrong."""


def acknowledged_threads_are_there(history: History) -> Iterator[str]:
    for acknowledged in history.acknowledged:
        if acknowledged.thread not in history.threads:
            yield f"{acknowledged.thread} was acknowledged and is lost"


def a_request_id_has_one_thread(history: History) -> Iterator[str]:
    threads = defaultdict(set)
    for acknowledged in history.acknowledged:
        threads[acknowledged.request_id].add(acknowledged.thread)
    for request_id, names in threads.items():
        if len(names) > 1:
            yield f"request {request_id} was answered with {sorted(names)}"
    made = len(history.threads)
    if made > len(threads):
        yield f"{len(threads)} requests made {made} threads"


def logs_are_numbered_without_holes(history: History) -> Iterator[str]:
    for name, log in history.logs.items():
        yield from _numbered(f"the log of {name}", log)


def watchers_were_sent_every_event_once(history: History) -> Iterator[str]:
    for seen in history.seen:
        whole = len(history.logs.get(seen.thread, ()))
        yield from _numbered(f"{seen.watcher}, of {seen.thread}", seen.events, whole if seen.complete else 0)


def what_was_sent_is_what_is_stored(history: History) -> Iterator[str]:
    for seen in history.seen:
        stored = {event.sequence: event for event in history.logs.get(seen.thread, ())}
        for event in seen.events:
            if event != stored.get(event.sequence):
                yield f"{seen.watcher} was sent {event.sequence} of {seen.thread} other than it is stored"


def all_threads_have_ended(history: History) -> Iterator[str]:
    for name, thread in history.threads.items():
        if thread.state not in ENDED:
            yield f"{name} is {Thread.State.Name(thread.state)}"


def the_end_comes_once_and_last(history: History) -> Iterator[str]:
    for name, log in history.logs.items():
        places = [place for place, event in enumerate(log, 1) if event.HasField("thread_ended")]
        if places != [len(log)]:
            yield f"{name} has {len(log)} events and ends at {places}"


def no_thread_is_poisoned(history: History) -> Iterator[str]:
    for name, thread in history.threads.items():
        if thread.stop_reason == Thread.POISONED:
            yield f"{name} was failed as POISONED"


def calls_at_most_once_were_made_at_most_once(history: History) -> Iterator[str]:
    for key, lines in _by_key(history.ledger).items():
        if lines[0].tool == "send" and len(lines) > 1:
            yield f"{lines[0].note}, key {key}, was sent {len(lines)} times"


def a_call_keeps_its_key(history: History) -> Iterator[str]:
    keys = defaultdict(set)
    for line in history.ledger:
        keys[line.note].add(line.key)
    for note, its_keys in keys.items():
        if len(its_keys) > 1:
            yield f"{note} was called with {len(its_keys)} idempotency keys"


def results_come_from_calls(history: History) -> Iterator[str]:
    done = {line.note for line in history.ledger}
    for note, completed in _completed_calls(history):
        if completed.status == Action.SUCCEEDED and note not in done:
            yield f"{note} has a result and was never called"


def only_calls_that_crashed_are_unknown(history: History) -> Iterator[str]:
    for name, log in history.logs.items():
        crashed = {call_id for event in log for call_id in event.execution_recovered.unknown_tool_call_ids}
        for event in log:
            completed = event.tool_call_completed
            left_open = completed.tool_call_id in crashed
            if event.HasField("tool_call_completed") and (completed.status == Action.UNKNOWN) != left_open:
                status = Action.Status.Name(completed.status)
                yield f"{completed.tool_call_id} of {name} is {status}; left open by a crash: {left_open}"


INVARIANTS: tuple[Invariant, ...] = (
    acknowledged_threads_are_there,
    a_request_id_has_one_thread,
    logs_are_numbered_without_holes,
    watchers_were_sent_every_event_once,
    what_was_sent_is_what_is_stored,
    all_threads_have_ended,
    the_end_comes_once_and_last,
    no_thread_is_poisoned,
    calls_at_most_once_were_made_at_most_once,
    a_call_keeps_its_key,
    results_come_from_calls,
    only_calls_that_crashed_are_unknown,
)


def problems(history: History, invariants: Iterable[Invariant] = INVARIANTS) -> list[str]:
    """Everything that is wrong, each line with the name of its invariant."""
    return [f"{check.__name__}: {line}" for check in invariants for line in check(history)]


def check(history: History) -> None:
    """Fails with the first of all that is wrong."""
    found = problems(history)
    assert not found, f"{len(found)} problems\n" + "\n".join(found[:20])


def _numbered(what: str, events: list[ThreadEvent], whole: int = 0) -> Iterator[str]:
    """1, 2, 3 up to the last one, which is `whole` where that is given."""
    numbers = [event.sequence for event in events]
    expected = list(range(1, (whole or len(numbers)) + 1))
    if numbers != expected:
        place = next(
            (i for i, pair in enumerate(zip(numbers, expected, strict=False)) if pair[0] != pair[1]), -1
        )
        yield f"{what}: {len(numbers)} of {len(expected)} events, wrong from place {place}: {numbers[-5:]}"


def _by_key(ledger: Iterable[Line]) -> dict[str, list[Line]]:
    lines = defaultdict(list)
    for line in ledger:
        lines[line.key].append(line)
    return lines


def _completed_calls(history: History) -> Iterator[tuple[str, ToolCallCompleted]]:
    for log in history.logs.values():
        notes: dict[str, str] = {}
        for event in log:
            if event.HasField("tool_call_requested"):
                requested = event.tool_call_requested
                notes[requested.tool_call_id] = json.loads(requested.arguments_json).get("note", "")
            elif event.HasField("tool_call_completed"):
                note = notes.get(event.tool_call_completed.tool_call_id)
                if note:
                    yield note, event.tool_call_completed
