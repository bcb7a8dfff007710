"""A log without what a crash may change: times, attempts, recoveries, and the order of parallel calls."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from google.protobuf import text_format

from treadle import ThreadEvent

_STARTED = {"model_call_started": "call_id", "tool_call_started": "tool_call_id"}
_PARALLEL = ("tool_call_started", "tool_call_completed")


def normal_form(log: Iterable[ThreadEvent]) -> list[str]:
    """One line per event. Two logs of the same script have the same ones, wherever a server was killed."""
    lines: list[str] = []
    for parallel, group in groupby(_kept(log), key=lambda event: event.WhichOneof("payload") in _PARALLEL):
        # Calls of one turn run at once, and complete in any order: it is kept within each call alone.
        events = sorted(group, key=_call_of if parallel else _in_order)
        lines += [text_format.MessageToString(event, as_one_line=True) for event in events]
    return lines


def _kept(log: Iterable[ThreadEvent]) -> Iterator[ThreadEvent]:
    started = set()
    for event in log:
        kind = str(event.WhichOneof("payload"))
        if kind == "execution_recovered" or event.usage_recorded.estimated:
            continue
        if kind in _STARTED:
            call = (kind, getattr(getattr(event, kind), _STARTED[kind]))
            if call in started:
                continue
            started.add(call)
        yield _stripped(event, kind)


def _stripped(event: ThreadEvent, kind: str) -> ThreadEvent:
    copy = ThreadEvent()
    copy.CopyFrom(event)
    copy.ClearField("sequence")
    copy.ClearField("event_time")
    payload = getattr(copy, kind)
    for name in ("attempt", "duration"):
        if name in payload.DESCRIPTOR.fields_by_name:
            payload.ClearField(name)
    if kind == "thread_ended":  # the cost of an attempt that a crash took is unknown, and so is the sum
        copy.thread_ended.cost.ClearField("known")
    return copy


def _in_order(_: ThreadEvent) -> str:
    return ""


def _call_of(event: ThreadEvent) -> str:
    return event.tool_call_started.tool_call_id or event.tool_call_completed.tool_call_id
