"""A unit of the log as statements: what it requires of the store, and what it writes."""

import json
from collections.abc import Sequence
from typing import Any

from treadle_server.ports.log import Conflict, NewThread, Projection, RequestRow, Unit
from treadle_server.stores.refusals import id_taken
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.statements import RefuseReplay, Statement, Write, WriteMany, remember

_ENTER_SESSION = """
UPDATE sessions SET active_thread = ?1
WHERE session = ?2 AND tenant = ?3 AND (active_thread IS NULL OR active_thread = ?1)"""
_FREE_SESSION = """
UPDATE sessions SET active_thread = NULL
WHERE session = (SELECT session FROM threads WHERE thread = ?1) AND active_thread = ?1"""
_INSERT_THREAD = """
INSERT INTO threads
  (thread, tenant, id, agent, version, session, sequence, epoch, create_time,
   subject_type, subject_id, trigger_type,
   state, stop_reason, state_time, wake_at, start_time, end_time,
   iteration_count, tool_call_count, total_tokens, cost_micros)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, id) DO NOTHING"""
_INSERT_SPEC = "INSERT OR IGNORE INTO specs (tenant, digest, body, checksum) VALUES (?, ?, ?, ?)"
_INSERT_DETAILS = """
INSERT INTO thread_details (thread, spec_digest, triggered_by, tags, labels, client_metadata, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?)"""
INSERT_TAG = "INSERT OR IGNORE INTO thread_tags (tenant, tag, create_time, thread) VALUES (?, ?, ?, ?)"
INSERT_LABEL = "INSERT INTO thread_labels (tenant, label, value, create_time, thread) VALUES (?, ?, ?, ?, ?)"
_ADVANCE = "UPDATE threads SET sequence = ?, epoch = ? WHERE thread = ? AND tenant = ? AND sequence = ?"
_ADVANCE_COUNTS = """
UPDATE threads SET sequence = ?, epoch = ?,
  iteration_count = ?, tool_call_count = ?, total_tokens = ?, cost_micros = ?
WHERE thread = ? AND tenant = ? AND sequence = ?"""
# Apart, because SQLite rewrites the index entries of every column that is assigned, changed or not.
_CHANGE_STATE = """
UPDATE threads SET (state, stop_reason, state_time, wake_at, start_time, end_time) = (?2, ?3, ?4, ?5, ?6, ?7)
WHERE thread = ?1
  AND (state, stop_reason, state_time, wake_at, start_time, end_time) IS NOT (?2, ?3, ?4, ?5, ?6, ?7)"""
_SUMMARISE = "UPDATE thread_details SET summary = ?, summary_checksum = ? WHERE thread = ?"
_INSERT_EVENT = """
INSERT INTO events (tenant, thread, sequence, kind, body, private, checksum) VALUES (?, ?, ?, ?, ?, ?, ?)"""
_INSERT_COMMIT = """
INSERT INTO commits (tenant, thread, session, root, first, last)
SELECT tenant, thread, coalesce(session, 0), thread, ?, ? FROM threads WHERE thread = ?"""


class Append:
    """A unit of the log on its way to the committer."""

    __slots__ = ("byte_count", "epoch", "now", "unit")

    def __init__(self, unit: Unit, *, epoch: int, now: int) -> None:
        self.unit = unit
        self.epoch = epoch
        self.now = now
        self.byte_count = 0

    @property
    def request(self) -> RequestRow | None:
        return self.unit.request

    @property
    def span(self) -> tuple[int, int]:
        return self.unit.expected + 1, self.unit.last

    def statements(self) -> list[Statement]:
        """Guards come first where they can: a unit refused before its first write needs no savepoint."""
        unit = self.unit
        steps: list[Statement] = []
        if unit.request is not None:
            steps.append(RefuseReplay(unit.key.tenant, unit.request, self.now))
        steps += self._new_thread(unit.new_thread) if unit.new_thread is not None else self._advance()
        if unit.enters_session:
            guard = (unit.key.thread, unit.enters_session, unit.key.tenant)
            steps.append(Write(_ENTER_SESSION, guard, Conflict))
        if unit.projection is not None:
            steps += self._follow(unit.projection)
        if unit.records:
            steps += self._records()
        if unit.request is not None:
            steps.append(remember(unit.key.tenant, unit.request))
        return steps

    def _new_thread(self, new: NewThread) -> list[Statement]:
        unit = self.unit
        projection = unit.projection
        assert projection is not None, "a new thread begins with a state"
        assert unit.expected == 0, "a new thread begins with its first record"
        tenant, thread = unit.key.tenant, unit.key.thread
        row = (
            *(thread, tenant, new.id, new.agent, new.version, new.session or None, unit.last, self.epoch),
            *(new.create_time, new.subject_type, new.subject_id or None, new.trigger_type),
            *_state_of(projection),
            *_counts_of(projection),
        )
        details = details_of(new.tags, new.labels, new.client_metadata, new.spec_digest, new.triggered_by)
        return [
            Write(_INSERT_THREAD, row, lambda: id_taken("Thread", f"threads/{new.id}")),
            Write(_INSERT_SPEC, (tenant, new.spec_digest, new.spec, checksums.of_row(new.spec))),
            Write(_INSERT_DETAILS, (thread, *details)),
            WriteMany(INSERT_TAG, [(tenant, tag, new.create_time, thread) for tag in new.tags]),
            WriteMany(
                INSERT_LABEL,
                [(tenant, label, value, new.create_time, thread) for label, value in new.labels.items()],
            ),
        ]

    def _advance(self) -> list[Statement]:
        unit = self.unit
        guard = (unit.key.thread, unit.key.tenant, unit.expected)
        if unit.projection is None:
            return [Write(_ADVANCE, (unit.last, self.epoch, *guard), Conflict)]
        values = (unit.last, self.epoch, *_counts_of(unit.projection), *guard)
        state = (unit.key.thread, *_state_of(unit.projection))
        return [Write(_ADVANCE_COUNTS, values, Conflict), Write(_CHANGE_STATE, state)]

    def _follow(self, projection: Projection) -> list[Statement]:
        steps: list[Statement] = []
        thread = self.unit.key.thread
        if projection.summary is not None:
            checksum = checksums.of_row(projection.summary)
            steps.append(Write(_SUMMARISE, (projection.summary, checksum, thread)))
        if projection.frees_session:
            steps.append(Write(_FREE_SESSION, (thread,)))
        return steps

    def _records(self) -> list[Statement]:
        unit = self.unit
        tenant, thread = unit.key.tenant, unit.key.thread
        rows: list[Sequence[Any]] = []
        for sequence, record in enumerate(unit.records, unit.expected + 1):
            checksum = checksums.of_record(sequence, record)
            rows.append((tenant, thread, sequence, record.kind, record.body, record.private, checksum))
            self.byte_count += len(record.body) + len(record.private or b"")
        return [
            WriteMany(_INSERT_EVENT, rows),
            Write(_INSERT_COMMIT, (unit.expected + 1, unit.last, thread)),
        ]


def details_of(
    tags: Sequence[str], labels: dict[str, str], client_metadata: bytes, spec_digest: bytes, triggered_by: str
) -> tuple[bytes, str, str, str, bytes, int]:
    """Columns of `thread_details` from spec_digest to checksum."""
    values = (
        *(spec_digest, triggered_by),
        json.dumps(list(tags), ensure_ascii=False),
        json.dumps(labels, ensure_ascii=False),
        client_metadata,
    )
    return (*values, checksums.of_row(*values))


def _state_of(projection: Projection) -> tuple[int | None, ...]:
    return (
        *(projection.state, projection.stop_reason, projection.state_time),
        *(projection.wake_at, projection.start_time, projection.end_time),
    )


def _counts_of(projection: Projection) -> tuple[int, ...]:
    return (
        *(projection.iteration_count, projection.tool_call_count),
        *(projection.total_tokens, projection.cost_micros),
    )
