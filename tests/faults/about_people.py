"""Invariants of what people give: decisions, inputs, answers."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.faults.about_logs import ENDED
from tests.faults.evidence import History
from tests.faults.ledger import DONE
from treadle import Approval, Thread, ThreadEvent

GATED_TOOL = "pay"


@dataclass(slots=True)
class LoggedApproval:
    """One approval as its thread's log has it."""

    call_id: str
    note: str
    """Of the arguments that it is about."""
    decided: list[tuple[int, "Approval.State.ValueType", str]] = field(default_factory=list)
    """Where, how, and the note of the arguments that a person gave instead."""
    started: list[int] = field(default_factory=list)
    """Where attempts at its call begin."""

    @property
    def approved_note(self) -> str:
        """What may happen; empty while nothing may."""
        for _, state, edited in self.decided:
            if state == Approval.APPROVED:
                return edited or self.note
        return ""


def nothing_gated_happens_without_its_approval(history: History) -> Iterator[str]:
    """Neither in the world nor in the log, and not with other arguments than those approved."""
    allowed = set()
    for name, approvals in _approvals(history).items():
        for approval_id, approval in approvals.items():
            allowed.add(approval.approved_note)
            since = min(
                (place for place, state, _ in approval.decided if state == Approval.APPROVED), default=0
            )
            early = [place for place in approval.started if not since or place < since]
            if early:
                yield f"the call of {approval_id} of {name} begins at {early}, approved at {since}"
    for line in history.ledger:
        if line.tool == GATED_TOOL and line.step == DONE and line.note not in allowed:
            yield f"{line.note} happened, and nobody approved it"


def approvals_are_decided_once(history: History) -> Iterator[str]:
    """At most; and one is left undecided only while its thread lives."""
    for name, approvals in _approvals(history).items():
        over = history.threads[name].state in ENDED if name in history.threads else False
        for approval_id, approval in approvals.items():
            if len(approval.decided) > 1 or (over and not approval.decided):
                yield f"{approval_id} of {name} was decided {len(approval.decided)} times"


def acknowledged_decisions_are_in_the_log(history: History) -> Iterator[str]:
    approvals = _approvals(history)
    for acknowledged in history.decided:
        approval = approvals.get(acknowledged.thread, {}).get(acknowledged.approval_id)
        found = [] if approval is None else [each[1:] for each in approval.decided]
        if found != [(acknowledged.state, acknowledged.edited)]:
            wanted = Approval.State.Name(acknowledged.state)
            yield f"{acknowledged.approval_id} of {acknowledged.thread} was {wanted}, and is {found}"


def acknowledged_inputs_are_taken_once(history: History) -> Iterator[str]:
    """By one iteration, or by none because the thread ended first."""
    for acknowledged in history.steered:
        log = history.logs.get(acknowledged.thread, [])
        places = [
            event.sequence
            for event in log
            if event.HasField("input_received") and event.input_received.content.text == acknowledged.text
        ]
        taken = Counter(place for event in log for place in event.iteration_started.consumed_inputs)
        times = [taken[place] for place in places]
        ended = acknowledged.thread in history.threads and history.threads[acknowledged.thread].state in ENDED
        later = any(
            event.HasField("iteration_started") for event in log if event.sequence > max(places, default=0)
        )
        if times != [1] and not (times == [0] and ended and not later and not _finished(history, log)):
            yield f"{acknowledged.text!r} is in the log {len(times)} times, and was taken {sum(times)} times"


def _finished(history: History, log: list[ThreadEvent]) -> bool:
    """By itself: then nothing may be left that it was told."""
    return bool(log) and log[-1].thread_ended.stop_reason == Thread.FINISHED


def acknowledged_answers_are_the_results(history: History) -> Iterator[str]:
    """An answer to a question, or a result of a client's tool, is what its call came to."""
    for given in history.answered:
        results = [
            event.tool_call_completed.observation
            for event in history.logs.get(given.thread, [])
            if event.tool_call_completed.tool_call_id == given.call_id
        ]
        if len(results) != 1 or given.text not in results[0]:
            yield f"{given.call_id} of {given.thread} was given {given.text!r} and came to {results}"


def _approvals(history: History) -> dict[str, dict[str, LoggedApproval]]:
    """By thread and id."""
    return {name: _approvals_of(log) for name, log in history.logs.items()}


def _approvals_of(log: list[ThreadEvent]) -> dict[str, LoggedApproval]:
    approvals: dict[str, LoggedApproval] = {}
    for event in log:
        match event.WhichOneof("payload"):
            case "approval_requested" if event.approval_requested.kind == Approval.TOOL_CALL:
                asked = event.approval_requested
                approvals[asked.approval_id] = LoggedApproval(
                    asked.tool_call_id, note_of(asked.arguments_json)
                )
            case "approval_decided" if event.approval_decided.approval_id in approvals:
                decided = event.approval_decided
                approvals[decided.approval_id].decided.append(
                    (event.sequence, decided.state, note_of(decided.edited_arguments_json))
                )
            case "tool_call_started":
                for approval in approvals.values():
                    if approval.call_id == event.tool_call_started.tool_call_id:
                        approval.started.append(event.sequence)
    return approvals


def note_of(arguments_json: str) -> str:
    """Empty for what is not a call of the world's tools."""
    arguments = json.loads(arguments_json or "null")
    return str(arguments.get("note", "")) if isinstance(arguments, dict) else ""
