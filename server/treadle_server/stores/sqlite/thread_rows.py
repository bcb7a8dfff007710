"""Rows of threads as they are read: nothing of a row is believed before its checksums are."""

import json
from dataclasses import replace

from treadle_server.core.errors import Refused
from treadle_server.core.kinds import StopReason, ThreadState
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.ports.log import ThreadKey
from treadle_server.stores.refusals import record_corrupt
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.readers import Row
from treadle_server.stores.sqlite.thread_objects import object_intact

ROW = f"""
SELECT t.tenant, t.thread, t.id, t.agent, coalesce(a.id, ''), t.version,
  coalesce(t.session, 0), coalesce(s.id, ''),
  t.state, t.stop_reason, t.sequence, t.epoch, t.revision,
  t.create_time, t.start_time, t.state_time, t.end_time, t.wake_at,
  t.iteration_count, t.tool_call_count, t.total_tokens, t.cost_micros,
  t.subject_type, coalesce(t.subject_id, ''), t.trigger_type,
  d.triggered_by, d.spec_digest, d.tags, d.labels, d.client_metadata, d.summary,
  d.checksum, d.summary_checksum,
  t.identity_sum IS ({checksums.sum_sql(checksums.IDENTITY, "t.")}),
  t.progress_sum IS ({checksums.sum_sql(checksums.PROGRESS, "t.")}),
  t.checksum, t.subject_id, t.delete_time, t.purged, t.expired, o.parent_object, o.checksum
FROM {{threads}}
LEFT JOIN thread_details d ON d.thread = t.thread
LEFT JOIN agents a ON a.agent = t.agent
LEFT JOIN sessions s ON s.session = t.session
LEFT JOIN thread_objects o ON o.thread = t.thread
"""
"""`thread_of` reads what it selects."""
_TEXTS = frozenset({2, 4, 7, 22, 23})
_UNBELIEVED = (14, 16, 18, 19, 20, 21)
"""Numbers of PROGRESS that lists are ordered by and no index holds."""


def thread_of(row: Row) -> ThreadRow | None:
    """None for a deleted thread. Raises Refused(RECORD_CORRUPT) for one that is not as it was written."""
    thread, thread_id = row[1], row[2]
    identity_intact, progress_intact, checksum, subject_id, delete_time, purged, expired = row[33:40]
    if not identity_intact:
        raise _damage(thread_id)
    if delete_time is not None:
        return None
    text_intact = checksums.of_row(thread, thread_id, row[22], subject_id) == checksum
    text_intact = text_intact and object_intact(thread, row[0], *row[40:42])
    if not (progress_intact and text_intact and _details_intact(row)) or purged or expired:
        raise _damage(thread_id)
    return replace(_thread(row), parent_object=row[40]) if row[40] else _thread(row)


def known_of(row: Row) -> ThreadRow | None:
    """As `thread_of`, but of a damaged thread what is still known: that it is there."""
    try:
        return thread_of(row)
    except Refused:
        return _remains(row)


def _details_intact(row: Row) -> bool:
    triggered_by, spec_digest, tags, labels, metadata, summary, checksum, summary_checksum = row[25:33]
    if checksum is None or (summary is None) != (summary_checksum is None):
        return False
    intact = checksums.of_row(spec_digest, triggered_by, tags, labels, metadata) == checksum
    return intact and (summary is None or checksums.of_row(summary) == summary_checksum)


def _thread(row: Row) -> ThreadRow:
    (tenant, thread, thread_id, *columns), details = row[:25], row[25:31]
    triggered_by, spec_digest, tags, labels, metadata, summary = details
    columns += [triggered_by, spec_digest, tuple(json.loads(tags)), json.loads(labels), metadata, summary]
    return ThreadRow(ThreadKey(tenant, thread), thread_id, *columns)


def _remains(row: Row) -> ThreadRow:
    """FAILED for DATA_LOSS. Its place in an order is as the query had it: 0 for a number not believed."""
    progress_intact = row[34]
    columns = [
        _readable(value) if place in _TEXTS else _number(value) for place, value in enumerate(row[:25])
    ]
    if not progress_intact:
        for place in _UNBELIEVED:
            columns[place] = 0
    return replace(
        _thread((*columns, "", b"", "[]", "{}", b"", None)),
        state=ThreadState.FAILED,
        stop_reason=StopReason.DATA_LOSS,
        wake_at=None,
        damaged=True,
    )


def _number(value: object) -> int:
    """A damaged header can make anything of a column."""
    return value if isinstance(value, int) else 0


def _readable(text: object) -> str:
    return str(text).encode("utf-8", "replace").decode("utf-8", "replace")


def _damage(thread_id: object) -> Refused:
    name = _readable(thread_id)
    return record_corrupt(f"thread {name}", thread=name)
