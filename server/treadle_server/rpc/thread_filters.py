"""What threads can be filtered on and ordered by, as the store takes it and as streams look at rows."""

from collections.abc import Callable, Mapping

from treadle.v1 import thread_pb2, thread_service_pb2
from treadle_server.core.errors import not_supported
from treadle_server.core.objects import reaches
from treadle_server.ports.catalogue.agents import Agents
from treadle_server.ports.catalogue.sessions import Sessions
from treadle_server.ports.catalogue.thread_queries import (
    Condition,
    Operator,
    ThreadColumn,
    ThreadOrder,
    ThreadQuery,
)
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.rpc.calls import Call
from treadle_server.rpc.filter_fields import (
    EQUALITY,
    Choice,
    Entries,
    FilterField,
    Integer,
    Members,
    Names,
    Time,
    Truth,
    parse_order_by,
)
from treadle_server.rpc.filters import Comparison, parse_filter
from treadle_server.rpc.names import PATTERNS, SHAPES
from treadle_server.rpc.paging import page_size, position_of
from treadle_server.services.tenant_stream import Wanted

_NOBODY = -1
"""A key that no row has."""


def _names(kind: str) -> Names:
    return Names(EQUALITY, PATTERNS[kind], SHAPES[kind])


_STREAMED: Mapping[str, FilterField] = {
    "agent": _names("treadle.dev/Agent"),
    "agent_version": Names(
        frozenset({Operator.EQUAL}),
        PATTERNS["treadle.dev/AgentVersion"],
        SHAPES["treadle.dev/AgentVersion"],
    ),
    "session": _names("treadle.dev/Session"),
    "tags": Members(),
    "labels": Entries(),
    "subject.type": FilterField(),
    "subject.id": FilterField(),
    "trigger.type": Choice(EQUALITY, dict(thread_pb2.Trigger.Type.items())),
    "trigger.triggered_by": FilterField(),
    "parent_object": FilterField(),
}
"""What a thread keeps or changes only by its caller: streams can be narrowed by it."""

_LISTED: Mapping[str, FilterField] = {
    "state": Choice(EQUALITY, dict(thread_pb2.Thread.State.items())),
    "stop_reason": Choice(EQUALITY, dict(thread_pb2.Thread.StopReason.items())),
    "success": Truth(EQUALITY),
    **_STREAMED,
    "parent_thread": Names(
        frozenset({Operator.EQUAL}), PATTERNS["treadle.dev/Thread"], SHAPES["treadle.dev/Thread"]
    ),
    "iteration_count": Integer(),
    "actions_taken": Integer(),
    "create_time": Time(),
    "start_time": Time(),
    "end_time": Time(),
    "update_time": Time(),
    "cost.cost_micros": Integer(),
    "usage.total_tokens": Integer(),
}
_COLUMNS: Mapping[str, ThreadColumn] = {
    "state": ThreadColumn.STATE,
    "stop_reason": ThreadColumn.STOP_REASON,
    "agent": ThreadColumn.AGENT,
    "session": ThreadColumn.SESSION,
    "tags": ThreadColumn.TAG,
    "labels": ThreadColumn.LABEL,
    "subject.type": ThreadColumn.SUBJECT_TYPE,
    "subject.id": ThreadColumn.SUBJECT_ID,
    "trigger.type": ThreadColumn.TRIGGER_TYPE,
    "trigger.triggered_by": ThreadColumn.TRIGGERED_BY,
    "parent_object": ThreadColumn.PARENT_OBJECT,
    "parent_thread": ThreadColumn.PARENT_THREAD,
    "iteration_count": ThreadColumn.ITERATION_COUNT,
    "actions_taken": ThreadColumn.TOOL_CALL_COUNT,
    "create_time": ThreadColumn.CREATE_TIME,
    "start_time": ThreadColumn.START_TIME,
    "end_time": ThreadColumn.END_TIME,
    "update_time": ThreadColumn.STATE_TIME,
    "cost.cost_micros": ThreadColumn.COST_MICROS,
    "usage.total_tokens": ThreadColumn.TOTAL_TOKENS,
}
_ORDERS: Mapping[str, ThreadOrder] = {
    "create_time": ThreadOrder.CREATE_TIME,
    "start_time": ThreadOrder.START_TIME,
    "end_time": ThreadOrder.END_TIME,
    "update_time": ThreadOrder.STATE_TIME,
    "iteration_count": ThreadOrder.ITERATION_COUNT,
    "actions_taken": ThreadOrder.TOOL_CALL_COUNT,
    "cost.cost_micros": ThreadOrder.COST_MICROS,
    "usage.total_tokens": ThreadOrder.TOTAL_TOKENS,
}
_NOT_ORDERED = frozenset({"state", "stop_reason", "agent", "session"})

_ROW: Mapping[ThreadColumn, Callable[[ThreadRow], int | str]] = {
    ThreadColumn.AGENT: lambda row: row.agent,
    ThreadColumn.SESSION: lambda row: row.session,
    ThreadColumn.SUBJECT_TYPE: lambda row: row.subject_type,
    ThreadColumn.SUBJECT_ID: lambda row: row.subject_id,
    ThreadColumn.TRIGGER_TYPE: lambda row: row.trigger_type,
    ThreadColumn.TRIGGERED_BY: lambda row: row.triggered_by,
    ThreadColumn.VERSION: lambda row: row.version,
    ThreadColumn.PARENT_OBJECT: lambda row: row.parent_object,
}


class ThreadFilters:
    """Turns filters and orders into what the store and the streams take. Raises Refused for faulty ones."""

    def __init__(self, agents: Agents, sessions: Sessions) -> None:
        self._agents = agents
        self._sessions = sessions

    async def query(self, request: thread_service_pb2.ListThreadsRequest, call: Call) -> ThreadQuery:
        """The page of threads that is asked for."""
        order_by, descending = _order(request.order_by)
        return ThreadQuery(
            tenant=call.tenant,
            conditions=await self._conditions(request.filter, _LISTED, call.tenant),
            order_by=order_by,
            descending=descending,
            after=position_of(request, call),
            limit=page_size(request.page_size),
            object_patterns=call.identity.object_patterns,
        )

    async def wanted(self, filter_text: str, call: Call) -> Wanted:
        """Whether a thread is in a stream."""
        conditions = await self._conditions(filter_text, _STREAMED, call.tenant)
        patterns = call.identity.object_patterns
        return lambda row: (
            reaches(patterns, row.parent_object) and all(_holds(condition, row) for condition in conditions)
        )

    async def _conditions(
        self, text: str, fields: Mapping[str, FilterField], tenant: int
    ) -> tuple[Condition, ...]:
        found = []
        for comparison in parse_filter(text, fields):
            if comparison.field == "success":
                found += _success(comparison)
                continue
            if comparison.field == "agent_version":
                found += await self._version(comparison, tenant)
                continue
            if comparison.field in ("agent", "session"):
                comparison = await self._by_key(comparison, tenant)
            found.append(_condition(comparison))
        return tuple(found)

    async def _version(self, comparison: Comparison, tenant: int) -> list[Condition]:
        """A version is an agent and a number: alternatives would be pairs, which no condition has."""
        if isinstance(comparison.value, tuple):
            raise not_supported("filter", "OR between versions")
        agent, _, version = str(comparison.value).partition("/versions/")
        return [
            Condition(ThreadColumn.AGENT, Operator.EQUAL, await self._key("agent", agent, tenant)),
            Condition(ThreadColumn.VERSION, Operator.EQUAL, int(version)),
        ]

    async def _by_key(self, comparison: Comparison, tenant: int) -> Comparison:
        """Names as the store's keys; a name that nobody has fits no thread."""
        value = comparison.value
        names = value if isinstance(value, tuple) else (value,)
        keys = tuple([await self._key(comparison.field, str(name), tenant) for name in names])
        return Comparison(
            comparison.field, comparison.operator, keys if isinstance(value, tuple) else keys[0]
        )

    async def _key(self, field: str, name: str, tenant: int) -> int:
        resource_id = name.partition("/")[2]
        if field == "agent":
            agent = await self._agents.get(tenant, resource_id)
            return _NOBODY if agent is None else agent.key
        session = await self._sessions.get(tenant, resource_id)
        return _NOBODY if session is None else session.key


def _order(text: str) -> tuple[ThreadOrder, bool]:
    name, descending = parse_order_by(text, frozenset(_ORDERS) | _NOT_ORDERED, "create_time")
    if name in _NOT_ORDERED:
        raise not_supported("order_by", f"ordering by {name}")
    return _ORDERS[name], descending


def _success(comparison: Comparison) -> list[Condition]:
    """`success` is only another word for a state."""
    value = comparison.value
    wanted = set(value) if isinstance(value, tuple) else {value}
    if len(wanted) > 1:
        return []
    (succeeded,) = wanted
    same = bool(succeeded) is (comparison.operator is not Operator.NOT_EQUAL)
    operator = Operator.EQUAL if same else Operator.NOT_EQUAL
    return [Condition(ThreadColumn.STATE, operator, int(thread_pb2.Thread.COMPLETED))]


def _condition(comparison: Comparison) -> Condition:
    column = _COLUMNS[comparison.field]
    value = comparison.value
    if column is ThreadColumn.LABEL:
        label = comparison.key if value is None else (comparison.key, str(value))
        return Condition(column, Operator.HAS, label)
    if column is ThreadColumn.PARENT_THREAD and value is not None:
        names = value if isinstance(value, tuple) else (value,)
        ids = tuple(str(name).removeprefix("threads/") for name in names)
        return Condition(column, comparison.operator, ids if isinstance(value, tuple) else ids[0])
    if value is None:
        raise not_supported("filter", f"{comparison.field}:*")
    return Condition(column, comparison.operator, value)


def _holds(condition: Condition, row: ThreadRow) -> bool:
    value = condition.value
    match condition.column:
        case ThreadColumn.TAG:
            return value in row.tags
        case ThreadColumn.LABEL if isinstance(value, tuple):
            return row.labels.get(str(value[0])) == value[1]
        case ThreadColumn.LABEL:
            return value in row.labels
    found = _ROW[condition.column](row)
    if isinstance(value, tuple):
        return found in value
    return (found == value) is (condition.operator is Operator.EQUAL)
