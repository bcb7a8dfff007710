"""Opening a file: one server at a time, the schema, the epoch, what holds from its creation on."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.units import bodies, create, records
from tests.stores.kit import HandClock, Opened, Opens, execute
from treadle_server.ports.log import Fenced, Unit
from treadle_server.stores.sqlite.database import (
    APPLICATION_ID,
    CORE_VERSION,
    Durability,
    migrate,
    open_database,
)
from treadle_server.stores.sqlite.lock import FileLocked, FileUnusable


async def test_what_was_acknowledged_is_there_after_reopening(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    key = await create(opened.store.log, "a", "b")
    await opened.store.close()

    again = await opens(path)
    assert await bodies(again.store.log, key) == ["a", "b"]
    await again.store.log.submit(Unit(key, 2, records("c"))).wait()
    assert await bodies(again.store.log, key) == ["a", "b", "c"]
    assert again.store.epoch == opened.store.epoch + 1
    await again.store.close()


async def test_a_second_server_is_refused_and_told_who_has_the_file(
    opens: Opens, opened: Opened, path: Path
) -> None:
    with pytest.raises(FileLocked, match=str(os.getpid())) as refused:
        await opens(path)

    assert refused.value.pid == os.getpid()
    await create(opened.store.log, "still served")


def test_the_lock_of_a_killed_server_is_free(path: Path) -> None:
    script = (
        "import sys, time; from treadle_server.stores.sqlite.database import open_database;"
        "open_database(sys.argv[1]); print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(FileLocked) as refused:
            open_database(path)
        other.send_signal(signal.SIGKILL)
        other.wait(10)

    assert refused.value.pid == other.pid
    open_database(path).close()


async def test_a_take_over_fences_the_server_before_it(opens: Opens, path: Path) -> None:
    old = await opens(path)
    key = await create(old.store.log, "created")

    new = await opens(path, take_over=True)
    await new.store.log.submit(Unit(key, 1, records("by the new"))).wait()
    with pytest.raises(Fenced):
        await old.store.log.submit(Unit(key, 2, records("by the old"))).wait()
    with pytest.raises(Fenced):
        await old.store.log.submit(Unit(key, 2, records("again by the old"))).wait()

    assert [type(error) for error in old.fatal] == [Fenced]
    assert new.fatal == []
    assert await bodies(new.store.log, key) == ["created", "by the new"]
    await old.store.close()
    await new.store.log.submit(Unit(key, 2, records("after the old is gone"))).wait()
    await new.store.close()


async def test_after_a_take_over_the_lock_is_that_of_the_new_server(opens: Opens, path: Path) -> None:
    old = await opens(path)
    new = await opens(path, take_over=True)
    await old.store.close()

    with pytest.raises(FileLocked):
        await opens(path)

    await new.store.close()
    third = await opens(path)
    await third.store.close()


def test_a_file_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    execute(path, "CREATE TABLE theirs (x)")
    before = path.read_bytes()

    with pytest.raises(FileUnusable, match="another program"):
        open_database(path)

    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"certainly no database" * 100)

    with pytest.raises(FileUnusable, match="not a database"):
        open_database(path)


def test_a_file_in_a_folder_that_is_not_there_is_refused(path: Path) -> None:
    with pytest.raises(FileUnusable, match="No such file"):
        open_database(path.parent / "nowhere" / "t.db")


@pytest.mark.parametrize("column", ["schema", "core"])
def test_a_file_of_a_newer_release_is_refused(path: Path, column: str) -> None:
    open_database(path).close()
    execute(path, f"UPDATE meta SET {column} = 1000")

    with pytest.raises(FileUnusable, match="newer release"):
        open_database(path)

    assert execute(path, f"SELECT {column} FROM meta") == [(1000,)]


def test_a_refused_file_is_not_kept_locked(path: Path) -> None:
    open_database(path).close()
    execute(path, "UPDATE meta SET core = 1000")
    with pytest.raises(FileUnusable):
        open_database(path)
    execute(path, f"UPDATE meta SET core = {CORE_VERSION}")

    open_database(path).close()


def test_a_new_file_has_what_cannot_be_changed_later(path: Path) -> None:
    open_database(path).close()

    pragmas = ("page_size", "auto_vacuum", "application_id", "journal_mode")
    values = [execute(path, f"PRAGMA {pragma}")[0][0] for pragma in pragmas]
    assert values == [8192, 2, APPLICATION_ID, "wal"]
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("durability", "synchronous"), [(Durability.FULL, 2), (Durability.RELAXED, 1)])
def test_every_commit_is_synced_unless_relaxed_is_asked_for(
    path: Path, durability: Durability, synchronous: int
) -> None:
    database = open_database(path, durability=durability)
    found = database.connection.execute("PRAGMA synchronous").fetchone()
    database.close()

    assert found == (synchronous,)


async def test_full_durability_is_the_default(opened: Opened) -> None:
    assert opened.store.durability is Durability.FULL


def _write_migrations(folder: Path, *scripts: str) -> Path:
    folder.mkdir()
    for number, script in enumerate(scripts, 1):
        (folder / f"{number:04}_step.sql").write_text(script)
    return folder


_META = (
    "CREATE TABLE meta (one, schema, core, epoch, next_thread);"
    f"INSERT INTO meta VALUES (1, 0, {CORE_VERSION}, 0, 1);"
)


def test_migrations_are_applied_once_and_in_order(path: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, path, _write_migrations(tmp_path / "old", _META, "CREATE TABLE t (x)"))

    newer = _write_migrations(tmp_path / "new", _META, "CREATE TABLE t (x)", "INSERT INTO t VALUES (3)")
    migrate(connection, path, newer)
    migrate(connection, path, newer)

    assert connection.execute("SELECT x FROM t").fetchall() == [(3,)]
    assert connection.execute("SELECT schema FROM meta").fetchone() == (3,)
    connection.close()


def test_a_migration_that_fails_leaves_the_one_before(path: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    folder = _write_migrations(tmp_path / "m", _META, "CREATE TABLE t (x); INSERT INTO nowhere VALUES (1)")

    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(connection, path, folder)

    assert connection.execute("SELECT schema FROM meta").fetchone() == (1,)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("meta",)]
    assert not connection.in_transaction
    connection.close()


async def test_thread_keys_are_never_given_twice_though_the_row_is_gone(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    keys = [await create(opened.store.log, "created") for _ in range(3)]
    await opened.store.close()
    execute(path, "DELETE FROM threads WHERE thread >= ?", keys[1].thread)

    again = await opens(path)
    fresh = await create(again.store.log, "created")
    await again.store.close()

    assert fresh.thread > keys[-1].thread


async def test_readers_cannot_write(opened: Opened) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await opened.store.readers.rows("UPDATE meta SET epoch = 99")

    assert await opened.store.readers.rows("SELECT epoch FROM meta") == [(1,)]


async def test_cancelled_reads_leave_the_readers_as_they_were(opened: Opened, path: Path) -> None:
    log = opened.store.log
    key = await create(log, *["earlier"] * 499, "500th")
    for _ in range(20):
        reads = [asyncio.ensure_future(log.read(key, 0, 500)) for _ in range(4)]
        await asyncio.sleep(0)
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    await log.submit(Unit(key, 500, records("after"))).wait()

    assert await bodies(log, key, after=499) == ["500th", "after"]
    ((busy, _, _),) = execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert busy == 0  # no reader stands in an old state of the file


async def test_reads_are_counted(opened: Opened, clock: HandClock) -> None:
    key = await create(opened.store.log, "a")
    before = opened.store.readers.reads

    await opened.store.log.read(key, 0, 10)
    await opened.store.log.last_sequence(key)

    assert opened.store.readers.reads == before + 2
