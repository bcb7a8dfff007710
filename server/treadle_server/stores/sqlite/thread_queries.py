"""A filter of threads as SQL: values are bound, names come from closed sets, an index carries the order."""

from dataclasses import dataclass, field
from typing import Any

from treadle_server.ports.catalogue.thread_queries import (
    Condition,
    Operator,
    ThreadColumn,
    ThreadOrder,
    ThreadQuery,
)
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.thread_objects import about, reached

ALTERNATIVES_MAX = 100

_TEXT = {
    ThreadColumn.SUBJECT_TYPE,
    ThreadColumn.SUBJECT_ID,
    ThreadColumn.TRIGGERED_BY,
    ThreadColumn.PARENT_OBJECT,
    ThreadColumn.PARENT_THREAD,
}
_HAS_ONLY = {ThreadColumn.TAG, ThreadColumn.LABEL}
_IDENTITY_DAMAGED = f"t.identity_sum IS NOT ({checksums.sum_sql(checksums.IDENTITY, 't.')})"
_PROGRESS_DAMAGED = f"t.progress_sum IS NOT ({checksums.sum_sql(checksums.PROGRESS, 't.')})"
_DETAILS_DAMAGED = f"""NOT coalesce((
  SELECT {checksums.DETAILS_INTACT}(d.checksum, d.spec_digest, CAST(d.triggered_by AS BLOB),
    CAST(d.tags AS BLOB), CAST(d.labels AS BLOB), d.client_metadata)
  FROM thread_details d WHERE d.thread = t.thread), 0)"""
_CALLED_BY = """t.thread IN (
  SELECT l.thread FROM threads p CROSS JOIN lineage l ON l.parent = p.thread
  WHERE p.tenant = ? AND p.id IN ({marks}))"""
# A damaged value must not take a thread out of a list. Where an index holds the value too, the check at the
# start finds what they disagree on; these columns are in none.
_DAMAGED = {
    ThreadColumn.VERSION: _IDENTITY_DAMAGED,
    ThreadColumn.TRIGGER_TYPE: _IDENTITY_DAMAGED,
    ThreadColumn.STOP_REASON: _PROGRESS_DAMAGED,
    ThreadColumn.START_TIME: _PROGRESS_DAMAGED,
    ThreadColumn.END_TIME: _PROGRESS_DAMAGED,
    ThreadColumn.ITERATION_COUNT: _PROGRESS_DAMAGED,
    ThreadColumn.TOOL_CALL_COUNT: _PROGRESS_DAMAGED,
    ThreadColumn.TOTAL_TOKENS: _PROGRESS_DAMAGED,
    ThreadColumn.COST_MICROS: _PROGRESS_DAMAGED,
    ThreadColumn.TRIGGERED_BY: _DETAILS_DAMAGED,
}


@dataclass(slots=True)
class _Sql:
    """Terms and their values, in step."""

    source: str
    source_terms: list[str] = field(default_factory=list)
    terms: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    create_time: str = "t.create_time"
    thread: str = "t.thread"


def keys_of_page(query: ThreadQuery) -> tuple[str, list[Any]]:
    """A query for (value of the order, thread) of one page and one row more. Raises ValueError."""
    conditions = list(query.conditions)
    sql = _begin(query, conditions)
    for condition in conditions:
        _add(sql, query.tenant, condition)
    if query.object_patterns:
        term, values = reached(query.tenant, query.object_patterns)
        sql.terms.append(term)
        sql.values += values
    value = _ordered_value(sql, query.order_by)
    if query.after is not None:
        sql.terms.append(f"({value}, {sql.thread}) {'<' if query.descending else '>'} (?, ?)")
        sql.values += query.after
    way = "DESC" if query.descending else "ASC"
    text = (
        f"SELECT {value} AS value, {sql.thread} AS thread FROM {sql.source} WHERE {' AND '.join(sql.terms)} "
        f"ORDER BY {value} {way}, {sql.thread} {way} LIMIT ?"
    )
    return text, [*sql.values, query.limit + 1]


def fits(query: ThreadQuery, row: ThreadRow) -> bool:
    """The tags and labels of the filter are those of the row, which is verified and their tables are not."""
    return row.damaged or all(_has(condition, row) for condition in query.conditions)


def _has(condition: Condition, row: ThreadRow) -> bool:
    value = condition.value
    if condition.column is ThreadColumn.TAG:
        return value in row.tags
    if condition.column is not ThreadColumn.LABEL:
        return True
    label, *wanted = value if isinstance(value, tuple) else (value,)
    return row.labels.get(str(label)) in wanted if wanted else label in row.labels


def _begin(query: ThreadQuery, conditions: list[Condition]) -> _Sql:
    """Lets the rows of a tag or label lead: SQLite cannot know how few they are. A session's are fewer."""
    by_time = query.order_by is ThreadOrder.CREATE_TIME
    in_session = any(condition.column is ThreadColumn.SESSION for condition in conditions)
    for condition in [] if in_session or not by_time else conditions:
        if condition.column is ThreadColumn.TAG or _is_label_with_value(condition):
            conditions.remove(condition)
            return _begin_with(query.tenant, condition)
    return _Sql("threads t", terms=["t.tenant = ?", "t.delete_time IS NULL"], values=[query.tenant])


def _begin_with(tenant: int, condition: Condition) -> _Sql:
    _check(condition)
    table, columns, values = _side_row(condition)
    return _Sql(
        f"{table} x CROSS JOIN threads t ON t.thread = x.thread",
        terms=["x.tenant = ?", *(f"x.{column} = ?" for column in columns), "t.delete_time IS NULL"],
        values=[tenant, *values],
        create_time="x.create_time",
        thread="x.thread",
    )


def _add(sql: _Sql, tenant: int, condition: Condition) -> None:
    _check(condition)
    column, value = condition.column, condition.value
    if condition.operator is Operator.HAS:
        _add_has(sql, tenant, condition)
        return
    if column is ThreadColumn.PARENT_THREAD:
        parents = value if isinstance(value, tuple) else (value,)
        sql.terms.append(_CALLED_BY.format(marks=", ".join("?" * len(parents))))
        sql.values += [tenant, *parents]
        return
    if column is ThreadColumn.PARENT_OBJECT and condition.operator is not Operator.NOT_EQUAL:
        term, values = about(tenant, [str(one) for one in (value if isinstance(value, tuple) else (value,))])
        sql.terms.append(term)
        sql.values += values
        return
    if isinstance(value, tuple):
        term = f"{_name(column)} IN ({', '.join('?' * len(value))})"
        sql.values += value
    else:
        operator = "IS NOT" if condition.operator is Operator.NOT_EQUAL else condition.operator.value
        term = f"{_name(column)} {operator} ?"
        sql.values.append(value)
    damaged = _DAMAGED.get(column)
    sql.terms.append(f"({term} OR {damaged})" if damaged else term)


def _add_has(sql: _Sql, tenant: int, condition: Condition) -> None:
    table, columns, values = _side_row(condition)
    names = " AND ".join(f"y.{column} = ?" for column in columns)
    if len(columns) == len(values) and (table == "thread_tags" or len(values) == 2):
        place = "y.create_time = t.create_time AND y.thread = t.thread"
        sql.terms.append(f"EXISTS (SELECT 1 FROM {table} y WHERE y.tenant = ? AND {names} AND {place})")
    else:
        sql.terms.append(f"t.thread IN (SELECT y.thread FROM {table} y WHERE y.tenant = ? AND {names})")
    sql.values += [tenant, *values]


def _side_row(condition: Condition) -> tuple[str, tuple[str, ...], tuple[int | str, ...]]:
    """Table, columns and values that a tag or label stands for."""
    value = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    if condition.column is ThreadColumn.TAG:
        return "thread_tags", ("tag",), value
    return "thread_labels", ("label", "value")[: len(value)], value


def _is_label_with_value(condition: Condition) -> bool:
    return (
        condition.column is ThreadColumn.LABEL
        and isinstance(condition.value, tuple)
        and len(condition.value) == 2
    )


def _name(column: ThreadColumn) -> str:
    if column is ThreadColumn.TRIGGERED_BY:
        return "(SELECT d.triggered_by FROM thread_details d WHERE d.thread = t.thread)"
    if column is ThreadColumn.PARENT_OBJECT:
        return "(SELECT o.parent_object FROM thread_objects o WHERE o.thread = t.thread)"
    return f"t.{column.value}"


def _ordered_value(sql: _Sql, order: ThreadOrder) -> str:
    if order is ThreadOrder.CREATE_TIME:
        return sql.create_time
    if order is ThreadOrder.STATE_TIME:
        return "t.state_time"
    return f"CASE WHEN {_PROGRESS_DAMAGED} THEN 0 ELSE coalesce(t.{order.value}, 0) END"


def _check(condition: Condition) -> None:
    """A filter that SQLite would compare by its own rules across types is a mistake."""
    column, operator, value = condition.column, condition.operator, condition.value
    alternatives = value if isinstance(value, tuple) else (value,)
    wanted: type = str if column in _TEXT or column in _HAS_ONLY else int
    has = operator is Operator.HAS
    if column is ThreadColumn.PARENT_THREAD and operator not in (Operator.EQUAL, Operator.IN):
        raise ValueError(f"{column.value} is compared by = alone, not by {operator.value!r}")
    fits = (
        has == (column in _HAS_ONLY)
        and (isinstance(value, tuple) == (operator is Operator.IN) or has)
        and 0 < len(alternatives) <= (2 if has else ALTERNATIVES_MAX)
        and not (column is ThreadColumn.TAG and isinstance(value, tuple))
        and all(isinstance(one, wanted) for one in alternatives)
    )
    if not fits:
        raise ValueError(f"{column.value} cannot be compared by {operator.value!r} with {value!r}")
