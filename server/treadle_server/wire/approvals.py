"""Approvals as the events of a thread make them, piece by piece, and as they are served."""

from collections.abc import Callable
from typing import Any

from treadle.v1 import approval_pb2, event_pb2
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.kinds import ApprovalKind, ApprovalState, Decision
from treadle_server.ports.catalogue.approvals import ApprovalRow
from treadle_server.ports.log import ApprovalChange
from treadle_server.wire.threads import put_time


def change_by(event: e.Event) -> ApprovalChange | None:
    """What an event makes of an approval's row: pieces of a message that follow each other are one."""
    make = _MAKERS.get(type(event.payload))
    return None if make is None else make(event, event.payload)


def _requested(event: e.Event, asked: e.ApprovalRequested) -> ApprovalChange:
    message = approval_pb2.Approval(
        tool=asked.tool,
        tool_call_id=asked.tool_call_id,
        arguments_json=asked.arguments_json,
        arguments_digest=asked.arguments_digest,
        rule=asked.rule,
        approvers_needed=asked.approvers_needed,
    )
    message.effect = int(asked.effect)  # type: ignore[assignment]
    if asked.expire_time_micros:
        put_time(message.expire_time, asked.expire_time_micros)
    return ApprovalChange(
        asked.approval_id,
        message.SerializeToString(),
        ApprovalState.PENDING,
        asked.kind or ApprovalKind.TOOL_CALL,
        event.time_micros,
    )


def _voted(event: e.Event, vote: e.ApprovalVoteRecorded) -> ApprovalChange:
    message = approval_pb2.Approval()
    cast = message.decisions.add(principal=vote.principal, message=vote.message)
    cast.decision = int(vote.decision)  # type: ignore[assignment]
    put_time(cast.decide_time, event.time_micros)
    return ApprovalChange(vote.approval_id, message.SerializeToString(), 0)


def _decided(event: e.Event, decided: e.ApprovalDecided) -> ApprovalChange:
    message = approval_pb2.Approval(
        edited_arguments_json=decided.edited_arguments_json, result_json=decided.result_json
    )
    return ApprovalChange(decided.approval_id, message.SerializeToString(), decided.state)


_MAKERS: dict[type[Any], Callable[[e.Event, Any], ApprovalChange]] = {
    e.ApprovalRequested: _requested,
    e.ApprovalVoteRecorded: _voted,
    e.ApprovalDecided: _decided,
}


def approval(row: ApprovalRow) -> approval_pb2.Approval:
    """An approval as it is served."""
    message = approval_pb2.Approval.FromString(row.body)
    message.thread = f"threads/{row.thread_id}"
    message.name = f"{message.thread}/approvals/{row.id}"
    message.kind, message.state = row.kind, row.state  # type: ignore[assignment]
    put_time(message.create_time, row.create_time)
    return message


def approval_of(body: bytes) -> str:
    """Id of the approval that a stored event is about; empty when it is about none."""
    event = event_pb2.ThreadEvent.FromString(body)
    part = getattr(event, event.WhichOneof("payload") or "", None)
    return getattr(part, "approval_id", "")


def repeats(row: ApprovalRow, decision: s.Decide) -> bool:
    """Whether the approval was settled by the same decision, about the same arguments."""
    if decision.decision is Decision.REJECT:
        return row.state == ApprovalState.REJECTED
    message = approval_pb2.Approval.FromString(row.body)
    ran_with = message.edited_arguments_json or message.arguments_json
    wanted = decision.edited_arguments_json or message.arguments_json
    return (
        row.state == ApprovalState.APPROVED
        and decision.arguments_digest == message.arguments_digest
        and (wanted, decision.result_json) == (ran_with, message.result_json)
    )
