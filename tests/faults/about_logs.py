"""Invariants of threads, their logs and what watchers were sent of them."""

from collections import defaultdict
from collections.abc import Iterator

from tests.faults.client_view import ClientView
from tests.faults.evidence import History
from treadle import Thread, ThreadEvent

S = Thread
ENDED = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED, S.TIMED_OUT})
WAITING = frozenset({S.WAITING_APPROVAL, S.WAITING_INPUT, S.PAUSED})

# Copied from the page about the API: the server must agree with it, and not with itself.
NEXT = {
    S.PENDING: {S.RUNNING, S.PAUSED, *ENDED},
    S.RUNNING: {S.WAITING_APPROVAL, S.WAITING_INPUT, S.PAUSED, *ENDED},
    S.WAITING_APPROVAL: {S.RUNNING, S.WAITING_INPUT, S.PAUSED, *ENDED},
    S.WAITING_INPUT: {S.RUNNING, S.WAITING_APPROVAL, S.PAUSED, *ENDED},
    S.PAUSED: {S.PENDING, S.RUNNING, S.WAITING_APPROVAL, S.WAITING_INPUT, *ENDED},
}
REASONS = {
    S.COMPLETED: {S.FINISHED, S.COMPLETED_BY_CALLER},
    S.CANCELLED: {
        S.CANCELLED_BY_CALLER,
        S.COMPLETED_BY_CALLER,
        S.INTERRUPTED,
        S.PARENT_ENDED,
        S.AGENT_DISABLED,
        S.TENANT_DISABLED,
    },
    S.TIMED_OUT: {S.DEADLINE},
}
"""FAILED has all the others."""


def callers_are_answered_as_promised(history: History) -> Iterator[str]:
    yield from history.failures


def acknowledged_threads_are_there(history: History) -> Iterator[str]:
    for acknowledged in history.acknowledged:
        if acknowledged.thread not in history.threads:
            yield f"{acknowledged.thread} was acknowledged and is lost"


def acknowledged_ends_hold(history: History) -> Iterator[str]:
    for ended in history.ended:
        thread = history.threads.get(ended.thread, Thread())
        if thread.state != ended.state or ended.text not in (None, thread.output.text):
            wanted, state = Thread.State.Name(ended.state), Thread.State.Name(thread.state)
            yield f"{ended.thread} was acknowledged as {wanted} and is {state}, {thread.output.text!r}"


def a_request_id_has_one_thread(history: History) -> Iterator[str]:
    threads = defaultdict(set)
    for acknowledged in history.acknowledged:
        threads[acknowledged.request_id].add(acknowledged.thread)
    for request_id, names in threads.items():
        if len(names) > 1:
            yield f"request {request_id} was answered with {sorted(names)}"
    made = sum(not thread.parent_thread for thread in history.threads.values())
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


def a_thread_is_what_its_log_tells(history: History) -> Iterator[str]:
    for name, thread in history.threads.items():
        different = ClientView.of(history.logs.get(name, ())).differences(thread)
        if different:
            yield f"{name}: its log tells otherwise of {', '.join(different)}"


def all_threads_have_ended_or_wait_for_something(history: History) -> Iterator[str]:
    for name, thread in history.threads.items():
        waits = thread.state == Thread.PAUSED or (thread.state in WAITING and thread.waiting_for)
        if thread.state not in ENDED and not waits:
            yield f"{name} is {Thread.State.Name(thread.state)}"


def the_end_comes_once_and_last(history: History) -> Iterator[str]:
    for name, log in history.logs.items():
        places = [place for place, event in enumerate(log, 1) if event.HasField("thread_ended")]
        alive = history.threads[name].state not in ENDED if name in history.threads else False
        if places != ([] if alive else [len(log)]):
            yield f"{name} has {len(log)} events and ends at {places}"


def states_follow_the_table(history: History) -> Iterator[str]:
    for name, log in history.logs.items():
        state: Thread.State.ValueType = Thread.STATE_UNSPECIFIED
        for event in log:
            if event.HasField("thread_created"):
                state = Thread.PENDING
                continue
            if event.HasField("state_changed"):
                before, after = event.state_changed.__getattribute__("from"), event.state_changed.to
            elif event.HasField("thread_ended"):
                before, after = state, event.thread_ended.state
            else:
                continue
            if before != state or after not in NEXT.get(state, ()):
                names = [Thread.State.Name(each) for each in (state, before, after)]
                yield f"{name} is {names[0]}, and {event.sequence} goes from {names[1]} to {names[2]}"
            state = after


def ends_have_a_reason_of_the_table(history: History) -> Iterator[str]:
    others = frozenset().union(*REASONS.values()) - {Thread.COMPLETED_BY_CALLER}
    for name, thread in history.threads.items():
        if thread.state not in ENDED:
            continue
        reason, given = thread.stop_reason, REASONS.get(thread.state)
        if not reason or (reason not in given if given is not None else reason in others):
            ended = Thread.State.Name(thread.state), Thread.StopReason.Name(reason)
            yield f"{name} is {' for '.join(ended)}"


def no_thread_is_poisoned(history: History) -> Iterator[str]:
    for name, thread in history.threads.items():
        if thread.stop_reason == Thread.POISONED:
            yield f"{name} was failed as POISONED"


def _numbered(what: str, events: list[ThreadEvent], whole: int = 0) -> Iterator[str]:
    """1, 2, 3 up to the last one, which is `whole` where that is given."""
    numbers = [event.sequence for event in events]
    expected = list(range(1, (whole or len(numbers)) + 1))
    if numbers != expected:
        place = next(
            (i for i, pair in enumerate(zip(numbers, expected, strict=False)) if pair[0] != pair[1]), -1
        )
        yield f"{what}: {len(numbers)} of {len(expected)} events, wrong from place {place}: {numbers[-5:]}"
