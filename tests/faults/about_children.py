"""Invariants of threads that other threads started."""

from collections import Counter
from collections.abc import Iterator

from tests.faults.about_logs import ENDED
from tests.faults.evidence import History
from treadle import Thread, ThreadEvent
from treadle.v1.event_pb2 import ChildThreadEnded


def a_call_of_an_agent_has_one_thread(history: History) -> Iterator[str]:
    """Whatever crashed between making it and recording that, and both sides say so."""
    counts = Counter[tuple[str, str]]()
    for name, thread in history.threads.items():
        if thread.parent_thread:
            created = history.logs[name][0].thread_created if history.logs.get(name) else None
            call_id = created.parent_call.tool_call_id if created is not None else ""
            counts[thread.parent_thread, call_id] += 1
    for (parent, call_id), count in counts.items():
        if count > 1:
            yield f"{call_id} of {parent} has {count} threads"
    for parent, log in history.logs.items():
        for event in log:
            child = event.child_thread_started.child_thread
            if child and history.threads.get(child, Thread()).parent_thread != parent:
                yield f"{parent} says that it started {child}, which is not its child"


def the_end_of_a_child_reaches_its_parent_once(history: History) -> Iterator[str]:
    """As it was; not at all only when the parent was ended before."""
    for parent, log in history.logs.items():
        told = [event.child_thread_ended for event in log if event.HasField("child_thread_ended")]
        times = Counter(each.child_thread for each in told)
        started = {event.child_thread_started.child_thread for event in log} - {""}
        finished = bool(log) and log[-1].thread_ended.stop_reason == Thread.FINISHED
        for child in started:
            if times[child] > 1 or (finished and not times[child]):
                yield f"{parent} was told {times[child]} times that {child} ended"
        for each in told:
            if not _is_so(each, history.logs.get(each.child_thread, [])):
                yield f"{parent} was told of {each.child_thread} otherwise than it ended"


def _is_so(told: ChildThreadEnded, log: list[ThreadEvent]) -> bool:
    if not log:
        return False
    ended = log[-1].thread_ended
    return (told.state, told.stop_reason, told.output) == (ended.state, ended.stop_reason, ended.output)


def no_child_outlives_its_parent(history: History) -> Iterator[str]:
    for name, thread in history.threads.items():
        parent = history.threads.get(thread.parent_thread)
        if parent is not None and parent.state in ENDED and thread.state not in ENDED:
            yield f"{name} is {Thread.State.Name(thread.state)} and its parent has ended"
