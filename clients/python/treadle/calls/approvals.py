"""Calls of ApprovalService."""

from __future__ import annotations

from typing import Any

from treadle.calls import names
from treadle.calls.call import Pages, Stream, Unary, request_id_or_new
from treadle.calls.values import json_of
from treadle.followers import ApprovalFollower
from treadle.v1 import approval_service_pb2 as rpc
from treadle.v1.approval_pb2 import Approval


def get_approval(approval: str) -> Unary[Approval]:
    """Answers an approval, `threads/{thread}/approvals/{approval}`, also long after it was settled."""
    return Unary(rpc.GetApprovalRequest(name=approval), Approval)


def list_approvals(thread: str = "-", *, filter: str = "", page_size: int = 0) -> Pages[Approval]:
    """Lists the approvals of a thread, or of all, newest first: `filter="state = PENDING"` is the inbox."""
    request = rpc.ListApprovalsRequest(parent=names.thread(thread), filter=filter, page_size=page_size)
    return Pages(request, rpc.ListApprovalsResponse, lambda page: page.approvals)


def watch_approvals(
    *, after_cursor: str = "", timeout: float | None = None
) -> Stream[rpc.WatchApprovalsResponse]:
    """Gives approvals in batches as they come and change, first all that are pending, across disconnects.

    Each is as it is now, and may come more than once. The `cursor` of a batch, where it has one, is where
    another watch goes on after it.
    """
    request = rpc.WatchApprovalsRequest(after_cursor=after_cursor)
    return Stream(rpc.WatchApprovalsResponse, lambda: ApprovalFollower(request), timeout)


def decide_approval(
    approval: str,
    decision: Approval.Decision.ValueType,
    *,
    arguments_digest: str = "",
    arguments: Any = None,
    result: Any = None,
    message: str = "",
    request_id: str = "",
) -> Unary[Approval]:
    """Gives one person's answer. To approve, `arguments_digest` says which arguments the person has seen.

    `arguments` are those to run with instead; `result` is what a call gave whose outcome is unknown. Both are
    anything that JSON can hold.
    """
    request = rpc.DecideApprovalRequest(
        name=approval,
        decision=decision,
        arguments_digest=arguments_digest,
        arguments_json="" if arguments is None else json_of(arguments),
        result_json="" if result is None else json_of(result),
        message=message,
        request_id=request_id_or_new(request_id),
    )
    return Unary(request, Approval)
