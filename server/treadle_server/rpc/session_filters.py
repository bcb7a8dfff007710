"""What sessions can be filtered on."""

from collections.abc import Callable, Mapping

from treadle_server.ports.catalogue.sessions import SessionRow
from treadle_server.ports.catalogue.thread_queries import Operator
from treadle_server.rpc.filter_fields import EQUALITY, Entries, FilterField, Names, Scalar, Time
from treadle_server.rpc.filters import Comparison, parse_filter
from treadle_server.rpc.names import PATTERNS, SHAPES
from treadle_server.services.sessions import Wanted

_AGENT = "treadle.dev/Agent"
FIELDS: Mapping[str, FilterField] = {
    "agent": Names(EQUALITY, PATTERNS[_AGENT], SHAPES[_AGENT]),
    "session_key": FilterField(),
    "parent_object": FilterField(),
    "labels": Entries(),
    "create_time": Time(),
    "update_time": Time(),
}
_READ: Mapping[str, Callable[[SessionRow], str | int]] = {
    "agent": lambda row: f"agents/{row.agent_id}",
    "session_key": lambda row: row.session_key,
    "parent_object": lambda row: row.parent_object,
    "create_time": lambda row: row.create_time,
    "update_time": lambda row: row.update_time,
}
_COMPARE: Mapping[Operator, Callable[[str | int, Scalar], bool]] = {
    Operator.EQUAL: lambda value, wanted: value == wanted,
    Operator.NOT_EQUAL: lambda value, wanted: value != wanted,
    Operator.LESS: lambda value, wanted: value < wanted,  # type: ignore[operator]
    Operator.LESS_OR_EQUAL: lambda value, wanted: value <= wanted,  # type: ignore[operator]
    Operator.GREATER: lambda value, wanted: value > wanted,  # type: ignore[operator]
    Operator.GREATER_OR_EQUAL: lambda value, wanted: value >= wanted,  # type: ignore[operator]
}


def session_filter(text: str) -> Wanted:
    """Raises Refused(FIELD_INVALID) for a filter that is not one."""
    comparisons = parse_filter(text, FIELDS)
    return lambda row: all(_holds(comparison, row) for comparison in comparisons)


def _holds(comparison: Comparison, row: SessionRow) -> bool:
    wanted = comparison.value
    if comparison.field == "labels":
        found = row.labels.get(comparison.key)
        return found is not None if wanted is None else found == wanted
    value = _READ[comparison.field](row)
    if isinstance(wanted, tuple):
        return value in wanted
    assert wanted is not None
    return _COMPARE[comparison.operator](value, wanted)
