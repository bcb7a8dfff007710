"""Servicer of ApprovalService."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from treadle.v1 import approval_pb2, approval_service_pb2
from treadle_server.core import signals as s
from treadle_server.core.kinds import Decision
from treadle_server.ports.catalogue.approvals import ApprovalQuery
from treadle_server.ports.catalogue.thread_queries import Operator
from treadle_server.rpc.calls import Call, StreamChunk
from treadle_server.rpc.cursors import cursor_of, place_of
from treadle_server.rpc.digests import asked
from treadle_server.rpc.event_streams import told
from treadle_server.rpc.filter_fields import EQUALITY, Choice
from treadle_server.rpc.filters import Comparison, parse_filter
from treadle_server.rpc.paging import page_size, position_of, token_of
from treadle_server.services.approvals import Approvals
from treadle_server.services.tenant_stream import Unreadable
from treadle_server.wire.approvals import approval

_pb = approval_service_pb2
_FIELDS: Mapping[str, Choice] = {
    "state": Choice(EQUALITY, dict(approval_pb2.Approval.State.items())),
    "kind": Choice(EQUALITY, dict(approval_pb2.Approval.Kind.items())),
}


class ApprovalServicer:
    """Reads, calls, answers."""

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals

    async def GetApproval(self, request: _pb.GetApprovalRequest, call: Call) -> approval_pb2.Approval:
        return approval(await self._approvals.get(call.identity, request.name))

    async def ListApprovals(self, request: _pb.ListApprovalsRequest, call: Call) -> _pb.ListApprovalsResponse:
        comparisons = parse_filter(request.filter, _FIELDS)
        query = ApprovalQuery(
            call.tenant,
            states=_wanted("state", comparisons),
            kinds=_wanted("kind", comparisons),
            object_patterns=call.identity.object_patterns,
            after=position_of(request, call),
            limit=page_size(request.page_size),
        )
        page = await self._approvals.page(call.identity, request.parent, query)
        return _pb.ListApprovalsResponse(
            approvals=[approval(row) for row in page.items],
            next_page_token=token_of(page.next, request, call),
        )

    async def WatchApprovals(
        self, request: _pb.WatchApprovalsRequest, call: Call
    ) -> AsyncGenerator[StreamChunk, None]:
        after = place_of(request.after_cursor, "", call)
        try:
            async with aclosing(self._approvals.follow(call.identity, after)) as batches:
                async for batch in batches:
                    cursor = "" if batch.place is None else cursor_of(batch.place, "", call)
                    found = [approval(row) for row in batch.rows]
                    yield StreamChunk(
                        _pb.WatchApprovalsResponse(approvals=found, cursor=cursor), cursor=cursor
                    )
        except Unreadable as damage:
            raise told(damage, cursor_of(damage.place, "", call)) from damage

    async def DecideApproval(self, request: _pb.DecideApprovalRequest, call: Call) -> approval_pb2.Approval:
        decision = s.Decide(
            0,
            "",
            Decision(request.decision),
            call.principal,
            request.arguments_digest,
            request.arguments_json,
            request.message,
            request.result_json,
        )
        decided = await self._approvals.decide(call.identity, request.name, decision, asked(request, call))
        return approval(decided)


def _wanted(field: str, comparisons: tuple[Comparison, ...]) -> frozenset[int] | None:
    """The values of a field that all its comparisons allow; None = all."""
    found: frozenset[int] | None = None
    every = frozenset(_FIELDS[field].values.values())
    for comparison in comparisons:
        if comparison.field != field:
            continue
        value = comparison.value
        named = frozenset(map(int, value if isinstance(value, tuple) else (value,)))  # type: ignore[arg-type]
        allowed = every - named if comparison.operator is Operator.NOT_EQUAL else named
        found = allowed if found is None else found & allowed
    return found
