"""Rows beside the threads: how each is verified, and what it names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from treadle_server.core.errors import Refused
from treadle_server.stores.refusals import record_corrupt
from treadle_server.stores.sqlite import (
    agents,
    approvals,
    checksums,
    keys,
    lineage,
    mail,
    memory_rows,
    sessions,
    starts,
    tenants,
)
from treadle_server.stores.sqlite.commits import COMMIT_INTACT, verified_horizon
from treadle_server.stores.sqlite.statements import request_of

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class RowCheck:
    """All rows of a table, and what verifies one: it raises Refused."""

    table: str
    sql: str
    verify: Callable[[Row], object]

    def problem(self, row: Row) -> str | None:
        try:
            self.verify(row)
        except Refused as damage:
            return f"{self.table}: {damage.message}"
        return None


def _checked(*names: str) -> Callable[[Row], object]:
    """Rows of values and then their checksum; the first `names` of the values say which row it is."""

    def verify(row: Row) -> None:
        *values, checksum = row
        said = ", ".join(f"{name} {value!r}" for name, value in zip(names, values, strict=False))
        checksums.verify(checksum, said, *values)

    return verify


def _commit(row: Row) -> None:
    position, intact = row
    if not intact:
        raise record_corrupt(f"position {position}")


ALL = (
    RowCheck("tenants", f"SELECT {tenants.COLUMNS} FROM tenants", tenants.tenant_of),
    RowCheck("api_keys", f"SELECT {keys.COLUMNS} FROM api_keys", keys.key_of),
    RowCheck("agents", f"SELECT {agents.COLUMNS} FROM agents", agents.verify_agent),
    RowCheck(
        "agent_versions",
        "SELECT agent, version, body, create_time, checksum FROM agent_versions",
        _checked("agent", "version"),
    ),
    RowCheck("sessions", f"SELECT {sessions.COLUMNS} FROM sessions s", sessions.session_of),
    RowCheck(
        "thread_objects",
        "SELECT thread, tenant, parent_object, checksum FROM thread_objects",
        _checked("thread"),
    ),
    RowCheck("approvals", f"SELECT {approvals.COLUMNS} FROM approvals", approvals.verify),
    RowCheck("specs", "SELECT digest, body, checksum FROM specs", _checked("digest")),
    RowCheck(
        "notes", "SELECT tenant, scope, key, text, checksum FROM notes", _checked("tenant", "scope", "key")
    ),
    RowCheck("memories", f"SELECT {memory_rows.COLUMNS} FROM memories", memory_rows.memory_of),
    RowCheck("memory_totals", f"SELECT {memory_rows.TOTAL_COLUMNS} FROM memory_totals", memory_rows.total_of),
    RowCheck(
        "request_ids",
        "SELECT tenant, request_id, principal, method, digest, resource, from_sequence, response,"
        " expire_time, checksum FROM request_ids",
        lambda row: request_of(row[0], row[1], row[2:], 0),
    ),
    RowCheck("commits", f"SELECT position, {COMMIT_INTACT} FROM commits c", _commit),
    RowCheck(
        "horizons",
        "SELECT tenant, position, checksum FROM horizons",
        lambda row: verified_horizon(*row),
    ),
    RowCheck("starts", starts.ALL, starts.verify_start),
    RowCheck("mail", mail.ALL, mail.verify),
    RowCheck("lineage", lineage.ALL, lineage.verify),
    RowCheck("trials", "SELECT phase, threads, drained_epoch, checksum FROM trials", _checked("phase")),
)

BROKEN_NAMES = (
    (
        "SELECT r.request_id, r.resource FROM request_ids r WHERE r.resource LIKE 'threads/%' AND NOT EXISTS"
        " (SELECT 1 FROM threads t WHERE t.tenant = r.tenant AND t.id = substr(r.resource, 9))",
        "request_ids: {0} names {1}, which is not there",
    ),
    (
        "SELECT r.request_id, r.resource FROM request_ids r WHERE r.resource LIKE 'agents/%' AND NOT EXISTS"
        " (SELECT 1 FROM agents a WHERE a.tenant = r.tenant AND"
        " a.id = substr(r.resource, 8, instr(substr(r.resource, 8) || '/', '/') - 1))",
        "request_ids: {0} names {1}, which is not there",
    ),
    (
        "SELECT id FROM sessions WHERE active_mirror IS NOT ~active_thread",
        "sessions/{0}: the two copies of its active thread differ",
    ),
    (
        "SELECT s.id, s.active_thread FROM sessions s LEFT JOIN threads t ON t.thread = s.active_thread"
        " WHERE s.active_thread IS NOT NULL"
        " AND (t.thread IS NULL OR t.session IS NOT s.session OR t.state >= 6)",
        "sessions/{0}: its active thread {1} is not an unfinished one of it",
    ),
    (
        "SELECT a.id, a.version FROM agents a WHERE a.purged = 0 AND NOT EXISTS"
        " (SELECT 1 FROM agent_versions v WHERE v.agent = a.agent AND v.version = a.version)",
        "agents/{0}: its version {1} is missing",
    ),
    (
        "SELECT o.thread FROM thread_objects o WHERE NOT EXISTS"
        " (SELECT 1 FROM threads t WHERE t.thread = o.thread AND t.tenant = o.tenant)",
        "thread_objects: {0} is of no thread",
    ),
    (
        "SELECT l.thread FROM lineage l LEFT JOIN threads t ON t.thread = l.thread AND t.tenant = l.tenant"
        " WHERE t.thread IS NULL",
        "lineage: {0} is of no thread",
    ),
    (
        "SELECT m.position FROM mail m LEFT JOIN threads t ON t.thread = m.to_thread AND t.tenant = m.tenant"
        " WHERE t.thread IS NULL",
        "mail: {0} is for no thread",
    ),
    (
        "SELECT a.id, a.thread FROM approvals a WHERE NOT EXISTS"
        " (SELECT 1 FROM threads t WHERE t.thread = a.thread AND t.tenant = a.tenant)",
        "approvals: {0} of {1} is of no thread",
    ),
    (
        "SELECT a.id, t.id FROM approvals a JOIN threads t ON t.thread = a.thread"
        " WHERE a.state = 1 AND t.state >= 6",
        "approvals: threads/{1}/approvals/{0} waits, and its thread has ended",
    ),
    (
        "SELECT d.thread FROM thread_details d WHERE NOT EXISTS"
        " (SELECT 1 FROM threads t WHERE t.thread = d.thread)",
        "thread_details: {0} is of no thread",
    ),
    (
        "SELECT coalesce(nullif(n.namespace, ''), '-') FROM (SELECT tenant, namespace FROM memory_totals"
        " UNION SELECT tenant, namespace FROM memories UNION SELECT tenant, '' FROM memories) n"
        " LEFT JOIN memory_totals t USING (tenant, namespace) WHERE (t.item_count, t.text_bytes) IS NOT"
        " (SELECT count(*), coalesce(sum(length(CAST(m.text AS BLOB))), 0) FROM memories m"
        " WHERE m.tenant = n.tenant AND n.namespace IN ('', m.namespace))",
        "memory_totals: that of memories/{0} is not what there is",
    ),
)
"""Queries for rows that name what is not there, and how to say so."""
