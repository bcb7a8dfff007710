"""A unit of the log as statements: what it requires of the store, and what it writes."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from treadle_server.ports.log import Conflict, NewThread, Projection, RequestRow, Unit
from treadle_server.stores.refusals import id_taken
from treadle_server.stores.sqlite import approvals, checksums, lineage, mail
from treadle_server.stores.sqlite.checksums import COMMIT, PROGRESS
from treadle_server.stores.sqlite.inbox import Urgency
from treadle_server.stores.sqlite.session_entries import JoinSession
from treadle_server.stores.sqlite.sharing import ShareEvents
from treadle_server.stores.sqlite.starts import INSERT_START
from treadle_server.stores.sqlite.statements import RefuseReplay, Statement, Write, WriteMany, remember
from treadle_server.stores.sqlite.thread_objects import insert_object

_ENTER_SESSION = """
UPDATE sessions SET active_thread = ?1, active_mirror = ~?1
WHERE session = ?2 AND tenant = ?3 AND active_mirror IS ~active_thread
  AND (active_thread IS NULL OR active_thread = ?1)"""
# Derived from rows that have checksums, when the two copies disagree.
_MEND_SESSION = """
UPDATE sessions SET (active_thread, active_mirror) = (SELECT min(thread), ~min(thread) FROM threads
  WHERE tenant = ?3 AND session = ?2 AND delete_time IS NULL AND state < 6 AND start_time IS NOT NULL
    AND thread <> ?1)
WHERE session = ?2 AND tenant = ?3 AND active_mirror IS NOT ~active_thread"""
FREE_SESSION = """
UPDATE sessions SET active_thread = NULL, active_mirror = NULL
WHERE session = (SELECT session FROM threads WHERE thread = ?1)
  AND (active_thread = ?1 OR active_mirror = ~?1)"""
_INSERT_THREAD = """
INSERT INTO threads
  (thread, tenant, id, agent, version, session, sequence, epoch, create_time,
   subject_type, subject_id, trigger_type,
   state, stop_reason, state_time, wake_at, start_time, end_time,
   iteration_count, tool_call_count, total_tokens, cost_micros, progress_sum, identity_sum, checksum)
SELECT ?, ?2, ?3, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
WHERE NOT EXISTS (SELECT 1 FROM taken_ids WHERE tenant = ?2 AND id = ?3)
ON CONFLICT (tenant, id) DO NOTHING"""
_INSERT_SPEC = "INSERT OR IGNORE INTO specs (tenant, digest, body, checksum) VALUES (?, ?, ?, ?)"
_INSERT_DETAILS = """
INSERT INTO thread_details (thread, spec_digest, triggered_by, tags, labels, client_metadata, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?)"""
INSERT_TAG = "INSERT OR IGNORE INTO thread_tags (tenant, tag, create_time, thread) VALUES (?, ?, ?, ?)"
INSERT_LABEL = "INSERT INTO thread_labels (tenant, label, value, create_time, thread) VALUES (?, ?, ?, ?, ?)"
_ADVANCE = f"""
UPDATE threads SET sequence = ?1, epoch = ?2, progress_sum = progress_sum
  + {PROGRESS["sequence"]} * (?1 - sequence) + {PROGRESS["epoch"]} * (?2 - epoch)
WHERE thread = ?3 AND tenant = ?4 AND sequence = ?5"""
_ADVANCE_COUNTS = """
UPDATE threads SET sequence = ?, epoch = ?,
  iteration_count = ?, tool_call_count = ?, total_tokens = ?, cost_micros = ?, progress_sum = ?
WHERE thread = ? AND tenant = ? AND sequence = ?"""
# Apart, because SQLite rewrites the index entries of every column that is assigned, changed or not.
_CHANGE_STATE = """
UPDATE threads SET (state, stop_reason, state_time, wake_at, start_time, end_time) = (?2, ?3, ?4, ?5, ?6, ?7)
WHERE thread = ?1
  AND (state, stop_reason, state_time, wake_at, start_time, end_time) IS NOT (?2, ?3, ?4, ?5, ?6, ?7)"""
# After the unit's own commit, which is the last one of a thread that has ended.
_SUMMARISE = """
UPDATE thread_details
SET summary = ?, summary_checksum = ?, end_position = (SELECT max(position) FROM commits)
WHERE thread = ?"""
_INSERT_EVENT = """
INSERT INTO events (tenant, thread, sequence, kind, body, private, checksum) VALUES (?, ?, ?, ?, ?, ?, ?)"""
_INSERT_COMMIT = f"""
INSERT INTO commits (tenant, thread, session, root, first, last, checksum)
SELECT t.tenant, t.thread, coalesce(t.session, 0), coalesce(l.root, t.thread), ?1, ?2,
  {COMMIT["tenant"]} * t.tenant + {COMMIT["thread"]} * t.thread
  + {COMMIT["root"]} * coalesce(l.root, t.thread)
  + {COMMIT["session"]} * coalesce(t.session, 0) + {COMMIT["first"]} * ?1 + {COMMIT["last"]} * ?2
FROM threads t LEFT JOIN lineage l ON l.thread = t.thread WHERE t.thread = ?3"""
# After the unit's own commit, which is the first one of a new thread.
_BEGIN = "UPDATE thread_details SET begin_position = (SELECT max(position) FROM commits) WHERE thread = ?"


@dataclass(slots=True)
class EnterSession:
    """Makes a thread the active one of its session. Raises Conflict while another is."""

    thread: int
    session: int
    tenant: int
    refuses: ClassVar[bool] = True
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> None:
        values = (self.thread, self.session, self.tenant)
        if cursor.execute(_ENTER_SESSION, values).rowcount:
            return
        mended = cursor.execute(_MEND_SESSION, values).rowcount
        if not mended or not cursor.execute(_ENTER_SESSION, values).rowcount:
            raise Conflict


class Append:
    """A unit of the log on its way to the committer."""

    __slots__ = ("byte_count", "epoch", "now", "unit")

    def __init__(self, unit: Unit, *, epoch: int, now: int) -> None:
        self.unit = unit
        self.epoch = epoch
        self.now = now
        self.byte_count = unit.shared.byte_count if unit.shared is not None else 0

    @property
    def request(self) -> RequestRow | None:
        return self.unit.request

    @property
    def urgency(self) -> Urgency:
        if self.unit.new_thread is not None or not self.unit.records:  # it says nothing that has happened
            return Urgency.REFUSABLE
        return Urgency.URGENT if self.unit.urgent else Urgency.PATIENT

    @property
    def thread(self) -> int:
        return self.unit.key.thread

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
            steps.append(EnterSession(unit.key.thread, unit.enters_session, unit.key.tenant))
        steps += [mail.take(unit.key, position) for position in unit.takes]
        if unit.records:
            steps += self._records()
        steps += approvals.follow(unit.key, unit.approvals)
        if unit.new_thread is not None:
            steps.append(Write(_BEGIN, (unit.key.thread,)))
        if unit.projection is not None:
            steps += self._follow(unit.projection)
        steps += [mail.post(unit.key.tenant, posted) for posted in unit.mail]
        if unit.request is not None:
            steps.append(remember(unit.key.tenant, unit.request))
        return steps

    def _new_thread(self, new: NewThread) -> list[Statement]:
        unit = self.unit
        projection = unit.projection
        assert projection is not None, "a new thread begins with a state"
        shared = unit.shared
        assert unit.expected == (shared.through if shared else 0), "a new thread begins with its first record"
        tenant, thread = unit.key.tenant, unit.key.thread
        identity = (tenant, new.agent, new.version, new.session or None, new.create_time, new.trigger_type)
        subject_id = new.subject_id or None
        row = (
            *(thread, tenant, new.id, new.agent, new.version, new.session or None, unit.last, self.epoch),
            *(new.create_time, new.subject_type, subject_id, new.trigger_type),
            *_state_of(projection),
            *_counts_of(projection),
            _sum_of(unit.last, self.epoch, projection),
            checksums.sum_of(checksums.IDENTITY, (*identity, 1, None)),
            checksums.of_row(thread, new.id, new.subject_type, subject_id),
        )
        details = details_of(new.tags, new.labels, new.client_metadata, new.spec_digest, new.triggered_by)
        return [
            *([JoinSession(tenant, new)] if new.session else []),
            Write(_INSERT_THREAD, row, lambda: id_taken("Thread", f"threads/{new.id}")),
            *([lineage.join(unit.key, new.parent)] if new.parent else []),
            *([insert_object(unit.key, new.parent_object)] if new.parent_object else []),
            *([ShareEvents(thread, shared)] if shared else []),
            Write(
                _INSERT_SPEC, (tenant, new.spec_digest, new.spec, checksums.of_row(new.spec_digest, new.spec))
            ),
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
        projection = unit.projection
        progress_sum = _sum_of(unit.last, self.epoch, projection)
        values = (unit.last, self.epoch, *_counts_of(projection), progress_sum, *guard)
        state = (unit.key.thread, *_state_of(unit.projection))
        return [Write(_ADVANCE_COUNTS, values, Conflict), Write(_CHANGE_STATE, state)]

    def _follow(self, projection: Projection) -> list[Statement]:
        steps: list[Statement] = []
        thread = self.unit.key.thread
        if projection.summary is not None:
            checksum = checksums.of_row(projection.summary)
            steps.append(Write(_SUMMARISE, (projection.summary, checksum, thread)))
        if self.unit.start_counts_micros and projection.start_time is not None:
            values = (projection.start_time, self.unit.start_counts_micros, thread)
            steps.append(Write(INSERT_START, values))
        if projection.frees_session:
            steps.append(Write(FREE_SESSION, (thread,)))
        return steps

    def _records(self) -> list[Statement]:
        unit = self.unit
        tenant, thread = unit.key.tenant, unit.key.thread
        rows: list[Sequence[Any]] = []
        for sequence, record in enumerate(unit.records, unit.expected + 1):
            checksum = checksums.of_record(sequence, record)
            rows.append((tenant, thread, sequence, record.kind, record.body, record.private, checksum))
            self.byte_count += len(record.body) + len(record.private or b"")
        self.byte_count += sum(len(change.body) for change in unit.approvals)
        return [
            WriteMany(_INSERT_EVENT, rows),
            Write(_INSERT_COMMIT, (1 if unit.shared else unit.expected + 1, unit.last, thread)),
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


def _sum_of(sequence: int, epoch: int, projection: Projection) -> int:
    """`checksums.sum_of` of PROGRESS, written out because every append asks for it."""
    wake_at, start_time, end_time = projection.wake_at, projection.start_time, projection.end_time
    return (
        3 * sequence
        + 5 * epoch
        + 7 * projection.iteration_count
        + 9 * projection.tool_call_count
        + 11 * projection.total_tokens
        + 13 * projection.cost_micros
        + 15 * projection.state
        + 17 * projection.stop_reason
        + 19 * projection.state_time
        + 21 * (-1 if wake_at is None else wake_at)
        + 23 * (-1 if start_time is None else start_time)
        + 25 * (-1 if end_time is None else end_time)
    )
