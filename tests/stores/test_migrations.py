"""A file of an earlier schema is brought up with its rows intact, also when that is interrupted."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.units import NOW, bodies
from tests.stores.kit import Opens, execute
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.thread_queries import ThreadQuery
from treadle_server.ports.log import Record, ThreadKey
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.database import APPLICATION_ID, migrate, open_database
from treadle_server.stores.sqlite.store import SqliteStore
from treadle_server.stores.sqlite.structure import MIGRATIONS, NEWEST_SCHEMA

Read = Callable[[SqliteStore], Awaitable[object]]
before = checksums.of_row_before
KEY = ThreadKey(1, 7)
_ROWS: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("INSERT INTO tenants (tenant, id, create_time) VALUES (1, 'default', ?)", (NOW,)),
    (
        "INSERT INTO threads (thread, tenant, id, agent, version, session, state, stop_reason, sequence,"
        " epoch, create_time, state_time, iteration_count, tool_call_count, total_tokens, cost_micros,"
        " subject_type, trigger_type) VALUES (7, 1, 't', 1, 1, 3, 2, 0, 2, 1, ?, ?, 1, 2, 3, 4, 'order', 4)",
        (NOW, NOW),
    ),
    (
        "INSERT INTO thread_details (thread, spec_digest, triggered_by, tags, labels, client_metadata,"
        " checksum) VALUES (7, ?, 'some\u00f6ne', '[\"blue\"]', '{}', ?, ?)",
        (b"digest", b"m", before(b"digest", "some\u00f6ne", '["blue"]', "{}", b"m")),
    ),
    ("INSERT INTO thread_tags VALUES (1, 'blue', ?, 7)", (NOW,)),
    ("INSERT INTO specs VALUES (1, ?, ?, ?)", (b"digest", b"spec", before(b"spec"))),
    (
        "INSERT INTO sessions (session, tenant, id, session_key, agent, parent_object, active_thread,"
        " create_time) VALUES (3, 1, 's', 'mine', 1, '', 7, ?)",
        (NOW,),
    ),
    (
        "INSERT INTO agents (agent, tenant, id, version, revision, body, create_time, update_time, checksum)"
        " VALUES (1, 1, 'a', 1, 1, ?, ?, ?, ?)",
        (b"body", NOW, NOW, before("a", 1, b"body")),
    ),
    ("INSERT INTO agent_versions VALUES (1, 1, ?, ?, ?)", (b"version", NOW, before(1, b"version"))),
    ("INSERT INTO notes VALUES (1, 'scope', 'k', 'text', ?)", (before("scope", "k", "text"),)),
    ("INSERT INTO commits (tenant, thread, session, root, first, last) VALUES (1, 7, 3, 7, 1, 2)", ()),
    ("INSERT INTO request_ids VALUES (1, 'r', 'me', 'm', ?, 'threads/t', 1, NULL, ?)", (b"d", NOW * 2)),
    (
        "INSERT INTO api_keys (tenant, id, principal, admin, prefix, secret_hash, display_name, create_time,"
        " update_time, checksum) VALUES (1, 'k', 'me', 0, 'pre', ?, 'K', ?, ?, ?)",
        (b"h", NOW, NOW, before(1, "k", "me", 0, "pre", b"h", "K", 1, NOW, NOW, None)),
    ),
)


def _events() -> Iterator[tuple[str, tuple[object, ...]]]:
    for sequence, text in enumerate((b"first", b"second"), 1):
        checksum = checksums.of_record(sequence, Record(3, text))
        yield "INSERT INTO events VALUES (1, 7, ?, 3, ?, NULL, ?)", (sequence, text, checksum)


@pytest.fixture
def first_schema(tmp_path: Path) -> Path:
    """A file as the first release left it."""
    folder, path = tmp_path / "first", tmp_path / "t.db"
    folder.mkdir()
    shutil.copy(MIGRATIONS / "0001_begin.sql", folder)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("page_size = 8192", "auto_vacuum = 2", f"application_id = {APPLICATION_ID}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("PRAGMA journal_mode = WAL")
        migrate(connection, path, folder)
        for sql, values in (*_ROWS, *_events()):
            connection.execute(sql, values)
    assert execute(path, "SELECT schema FROM meta") == [(1,)]
    return path


async def _require_all(store: SqliteStore) -> None:
    row = await store.threads.get(1, "t")
    assert row is not None
    assert (row.key, row.sequence, row.tags, row.triggered_by) == (KEY, 2, ("blue",), "some\u00f6ne")
    assert (row.agent_id, row.session_id, row.cost_micros) == ("a", "s", 4)
    assert [one.damaged for one in (await store.threads.list(ThreadQuery(1))).items] == [False]
    assert await bodies(store.log, KEY) == ["first", "second"]
    assert await store.threads.spec(1, b"digest") == b"spec"
    assert await store.notes.get(1, "scope", "k") == "text"
    commits = await store.commits.read(1, after=0, limit=9)
    assert [(commit.key, commit.damaged) for commit in commits.items] == [(KEY, False)]
    found = [
        await store.agents.get(1, "a"),
        await store.agents.get_version(1, 1),
        await store.sessions.find(1, "mine"),
        await store.api_keys.find_by_prefix("pre"),
        await store.requests.find(1, "r", now=NOW),
        await store.tenants.find("default"),
    ]
    assert None not in found


async def test_a_file_of_the_first_schema_keeps_all_its_rows(opens: Opens, first_schema: Path) -> None:
    opened = await opens(first_schema)

    await _require_all(opened.store)
    await opened.store.close()

    assert execute(first_schema, "SELECT schema FROM meta") == [(NEWEST_SCHEMA,)]


@pytest.mark.parametrize(
    ("damage", "read"),
    [
        ("UPDATE notes SET text = 'x'", lambda store: store.notes.get(1, "scope", "k")),
        ("UPDATE agents SET body = x'00'", lambda store: store.agents.get(1, "a")),
        ("UPDATE api_keys SET admin = 1", lambda store: store.api_keys.find_by_prefix("pre")),
        ("UPDATE thread_details SET triggered_by = 'x'", lambda store: store.threads.get(1, "t")),
        ("UPDATE specs SET body = x'00'", lambda store: store.threads.spec(1, b"digest")),
        ("UPDATE agent_versions SET body = x'00'", lambda store: store.agents.get_version(1, 1)),
    ],
)
async def test_what_was_damaged_before_a_migration_is_damaged_after_it(
    opens: Opens, first_schema: Path, damage: str, read: Read
) -> None:
    execute(first_schema, damage)

    opened = await opens(first_schema)
    with pytest.raises(Refused) as refused:
        await read(opened.store)
    await opened.store.close()

    assert refused.value.reason is Reason.RECORD_CORRUPT


def _open_and_die(path: Path, failpoints: str) -> int:
    script = (
        "import sys; from treadle_server.stores.sqlite import database; database.open_database(sys.argv[1])"
    )
    command = [sys.executable, "-c", script, str(path)]
    variables = {**os.environ, "TREADLE_FAILPOINTS": failpoints}
    return subprocess.run(command, env=variables, timeout=30, check=False).returncode


@pytest.mark.parametrize("number", range(2, NEWEST_SCHEMA + 1))
@pytest.mark.parametrize("place", ["before", "after"])
async def test_a_migration_that_was_killed_is_completed_by_the_next_start(
    opens: Opens, first_schema: Path, number: int, place: str
) -> None:
    code = await asyncio.to_thread(_open_and_die, first_schema, f"migration.{place}@{number}=kill")
    left = execute(first_schema, "SELECT schema FROM meta")

    opened = await opens(first_schema)
    await _require_all(opened.store)
    await opened.store.close()

    assert code == -9
    assert left == [(number - 1 if place == "before" else number,)]
    assert execute(first_schema, "SELECT schema FROM meta") == [(NEWEST_SCHEMA,)]


def test_the_sums_of_the_migration_are_those_of_the_program(first_schema: Path) -> None:
    open_database(first_schema).close()

    for table, column, weights in (
        ("threads", "identity_sum", checksums.IDENTITY),
        ("threads", "progress_sum", checksums.PROGRESS),
        ("commits", "checksum", checksums.COMMIT),
        ("meta", "check_sum", checksums.META),
    ):
        ((stored, *values),) = execute(first_schema, f"SELECT {column}, {', '.join(weights)} FROM {table}")
        assert stored == checksums.sum_of(weights, values), table  # type: ignore[arg-type]
