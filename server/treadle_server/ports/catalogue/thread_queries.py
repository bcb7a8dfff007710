"""What lists of threads are filtered by and sorted by."""

from dataclasses import dataclass
from enum import StrEnum

from treadle_server.ports.catalogue.pages import Position


class ThreadColumn(StrEnum):
    """What threads can be filtered on."""

    STATE = "state"
    STOP_REASON = "stop_reason"
    AGENT = "agent"
    """By key, as SESSION."""
    VERSION = "version"
    SESSION = "session"
    SUBJECT_TYPE = "subject_type"
    SUBJECT_ID = "subject_id"
    TRIGGER_TYPE = "trigger_type"
    CREATE_TIME = "create_time"
    START_TIME = "start_time"
    STATE_TIME = "state_time"
    END_TIME = "end_time"
    ITERATION_COUNT = "iteration_count"
    TOOL_CALL_COUNT = "tool_call_count"
    TOTAL_TOKENS = "total_tokens"
    COST_MICROS = "cost_micros"
    TAG = "tag"
    """HAS only; the value is the tag."""
    LABEL = "label"
    """HAS only; the value is (label, value), or the label alone for any value."""
    TRIGGERED_BY = "triggered_by"
    PARENT_OBJECT = "parent_object"
    PARENT_THREAD = "parent_thread"
    """By id. EQUAL and IN only."""


class Operator(StrEnum):
    """How a column compares with a value. A column without a value matches nothing but NOT_EQUAL."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    IN = "in"
    """The value is a tuple of up to 100."""
    HAS = ":"


@dataclass(frozen=True, slots=True)
class Condition:
    """One term of a filter."""

    column: ThreadColumn
    operator: Operator
    value: int | str | tuple[int | str, ...]


class ThreadOrder(StrEnum):
    """What threads can be sorted by. Rows without a value sort as 0."""

    CREATE_TIME = "create_time"
    START_TIME = "start_time"
    STATE_TIME = "state_time"
    END_TIME = "end_time"
    ITERATION_COUNT = "iteration_count"
    TOOL_CALL_COUNT = "tool_call_count"
    TOTAL_TOKENS = "total_tokens"
    COST_MICROS = "cost_micros"


@dataclass(frozen=True, slots=True)
class ThreadQuery:
    """Threads of a tenant for which all conditions hold, newest first unless it says otherwise."""

    tenant: int
    conditions: tuple[Condition, ...] = ()
    order_by: ThreadOrder = ThreadOrder.CREATE_TIME
    descending: bool = True
    after: Position | None = None
    limit: int = 50
    object_patterns: tuple[str, ...] = ()
    """Only threads whose parent object fits one of them, `type/id` or `type/*`; empty = all."""
