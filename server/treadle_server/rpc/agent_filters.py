"""What agents can be filtered on and ordered by."""

from collections.abc import Callable, Mapping

from treadle.v1 import agent_service_pb2
from treadle_server.core.agent import Agent
from treadle_server.ports.catalogue.thread_queries import Operator
from treadle_server.rpc.filter_fields import (
    EQUALITY,
    Entries,
    FilterField,
    Scalar,
    Time,
    Truth,
    parse_order_by,
)
from treadle_server.rpc.filters import Comparison, parse_filter
from treadle_server.rpc.paging import Place, page_size
from treadle_server.services.agent_lists import AgentQuery, Value

FIELDS: Mapping[str, FilterField] = {
    "display_name": FilterField(),
    "model": FilterField(),
    "disabled": Truth(EQUALITY),
    "labels": Entries(),
    "create_time": Time(),
    "update_time": Time(),
}
_READ: Mapping[str, Callable[[Agent], Value]] = {
    "display_name": lambda agent: agent.definition.display_name,
    "model": lambda agent: agent.definition.model,
    "disabled": lambda agent: agent.definition.disabled,
    "create_time": lambda agent: agent.create_time_micros,
    "update_time": lambda agent: agent.update_time_micros,
}
_ORDERS = frozenset({"create_time", "update_time", "display_name"})

_COMPARE: Mapping[Operator, Callable[[Value, Scalar], bool]] = {
    Operator.EQUAL: lambda value, wanted: value == wanted,
    Operator.NOT_EQUAL: lambda value, wanted: value != wanted,
    Operator.LESS: lambda value, wanted: value < wanted,  # type: ignore[operator]
    Operator.LESS_OR_EQUAL: lambda value, wanted: value <= wanted,  # type: ignore[operator]
    Operator.GREATER: lambda value, wanted: value > wanted,  # type: ignore[operator]
    Operator.GREATER_OR_EQUAL: lambda value, wanted: value >= wanted,  # type: ignore[operator]
}


def agent_query(request: agent_service_pb2.ListAgentsRequest, after: Place | None) -> AgentQuery:
    """Raises Refused(FIELD_INVALID) for a filter or an order that is not one."""
    comparisons = parse_filter(request.filter, FIELDS)
    order, descending = parse_order_by(request.order_by, _ORDERS, "create_time")
    return AgentQuery(
        limit=page_size(request.page_size),
        after=after,
        show_deleted=request.show_deleted,
        fits=_fits(comparisons) if comparisons else None,
        value=None if order == "create_time" else _READ[order],
        descending=descending,
    )


def _fits(comparisons: tuple[Comparison, ...]) -> Callable[[Agent], bool]:
    return lambda agent: all(_holds(comparison, agent) for comparison in comparisons)


def _holds(comparison: Comparison, agent: Agent) -> bool:
    wanted = comparison.value
    if comparison.field == "labels":
        found = agent.definition.labels.get(comparison.key)
        return found is not None if wanted is None else found == wanted
    value = _READ[comparison.field](agent)
    if isinstance(wanted, tuple):
        return value in wanted
    assert wanted is not None
    return _COMPARE[comparison.operator](value, wanted)
