"""What a start looks for before it serves: the log beside the file, indexes, the row of meta."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.contract.units import NOW, create, creation, records
from tests.stores.kit import Opened, Opens, execute
from tests.stores.test_backup import copies_of
from treadle_server.ports.log import NewSession, ThreadKey, Unit
from treadle_server.stores.sqlite.checking import open_inspection
from treadle_server.stores.sqlite.database import Durability, open_database
from treadle_server.stores.sqlite.frames import Marker
from treadle_server.stores.sqlite.lock import FileLock, FileUnusable
from treadle_server.stores.sqlite.store import SqliteStore
from treadle_server.stores.sqlite.structure import check_structure

FRAME_BYTES = 8192 + 24


async def _killed(opened: Opened, path: Path, copy: Path, *, endings: tuple[str, ...]) -> Path:
    """What a kill leaves after a few commits."""
    key = await create(opened.store.log, "created")
    for sequence in range(1, 6):
        await opened.store.log.submit(Unit(key, sequence, records(f"event {sequence + 1}"))).wait()
    for ending in endings:
        shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
    return Path(f"{copy}-wal")


def _flip(log: Path, place: int) -> None:
    data = bytearray(log.read_bytes())
    data[place] ^= 0x10
    log.write_bytes(data)


@pytest.mark.parametrize(
    "place", [-100, -FRAME_BYTES * 4, 12, 40], ids=["last", "earlier", "header", "first"]
)
async def test_a_log_that_lost_acknowledged_commits_is_refused(
    opened: Opened, path: Path, place: int
) -> None:
    copy = path.with_name("left.db")
    log = await _killed(opened, path, copy, endings=("", "-wal", "-lock"))
    before = log.read_bytes()
    _flip(log, place)

    with pytest.raises(FileUnusable, match="acknowledged"):
        open_database(copy)
    _flip(log, place)
    open_database(copy).close()

    assert len(before) > 4 * FRAME_BYTES


@pytest.mark.parametrize("endings", [("-wal", "-lock"), ("-wal",)], ids=["with its lock", "without"])
async def test_a_backup_beside_the_log_of_another_file_is_refused_and_not_changed(
    opened: Opened, path: Path, endings: tuple[str, ...]
) -> None:
    copy = path.with_name("left.db")
    copies = copies_of(opened, path)
    made = await copies.make("one")
    await copies.publish(made, 1, None)
    log = await _killed(opened, path, copy, endings=endings)
    shutil.copyfile(made.path, copy)
    before, logged = copy.read_bytes(), log.read_bytes()

    with pytest.raises(FileUnusable, match=f"move {log} and .*-shm away"):
        open_database(copy)
    with pytest.raises(FileUnusable, match=f"move {log} and .*-shm away"):
        open_inspection(copy)
    assert (copy.read_bytes(), log.read_bytes()) == (before, logged)

    log.unlink()
    open_database(copy).close()


async def test_a_last_commit_that_nobody_vouches_for_may_be_torn(opened: Opened, path: Path) -> None:
    copy = path.with_name("left.db")
    log = await _killed(opened, path, copy, endings=("", "-wal"))
    _flip(log, -100)

    with capture_logs() as logs:
        open_database(copy).close()

    assert [(line["event"], line["count"]) for line in logs] == [("commits_dropped", 1)]


async def test_a_server_that_does_not_sync_every_commit_vouches_for_none(path: Path, tmp_path: Path) -> None:
    database = open_database(path, durability=Durability.RELAXED)
    for number in range(3):
        database.connection.execute("UPDATE meta SET core = core + 0 WHERE ?", (number >= 0,))
        database.marker.write()
    copy = tmp_path / "left.db"
    for ending in ("", "-wal", "-lock"):
        shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
    database.close()
    _flip(Path(f"{copy}-wal"), -FRAME_BYTES)

    with capture_logs() as logs:
        open_database(copy).close()

    assert [line["event"] for line in logs] == ["commits_dropped"]


def test_a_file_whose_relaxed_server_lost_power_opens(path: Path, tmp_path: Path) -> None:
    database = open_database(path, durability=Durability.RELAXED)
    note = Path(f"{path}-lock").read_bytes()  # later ones may be lost
    for _ in range(2):  # the first commit behind a checkpoint begins the log anew, with other salts
        database.connection.execute("UPDATE meta SET core = core + 0")
        database.connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    for _ in range(3):
        database.connection.execute("UPDATE meta SET core = core + 0")
    copy = tmp_path / "left.db"
    for ending in ("", "-wal"):
        shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
    database.close()
    Path(f"{copy}-lock").write_bytes(note)
    _flip(Path(f"{copy}-wal"), 40)

    with capture_logs() as logs:
        open_database(copy).close()

    assert [line["event"] for line in logs] == ["commits_dropped"]


def test_a_mark_that_cannot_be_made_costs_only_the_mark(path: Path) -> None:
    Path(f"{path}-shm").touch()  # shorter than any index
    lock = FileLock.acquire(path)
    marker = Marker(path, lock, every_commit_synced=True)

    marker.write()
    marker.close()
    marker.write()

    lock.release()
    assert FileLock.acquire(path).noted == b""


def test_statistics_that_an_operator_had_made_are_no_damage(path: Path) -> None:
    open_database(path).close()
    execute(path, "ANALYZE")
    assert execute(path, "SELECT count(*) FROM sqlite_master WHERE name LIKE 'sqlite_stat%'") != [(0,)]

    open_database(path).close()


def test_an_index_that_misses_a_row_is_refused_and_told(path: Path) -> None:
    open_database(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO tenants (id, create_time, update_time) VALUES ('a', 1, 1)")
        connection.executescript(
            "PRAGMA writable_schema = ON;"
            " UPDATE sqlite_master SET sql = replace(sql, 'purged = 0', 'purged = 1')"
            " WHERE name = 'agents_living'"
        )

    with pytest.raises(FileUnusable, match="says what is lost"):
        open_database(path)


def test_a_check_that_takes_too_long_is_given_up_and_told(path: Path) -> None:
    open_database(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "CREATE TABLE big (x);"
            " WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000)"
            " INSERT INTO big SELECT n FROM c"
        )
        with capture_logs() as logs:
            check_structure(connection, path, seconds=0)

    assert [line["event"] for line in logs] == ["structure_not_checked"]
    assert str(path) in logs[0]["advice"]


@pytest.mark.parametrize("change", ["epoch = epoch + 1", "next_thread = 9", "core = 0"])
def test_a_changed_row_of_meta_is_refused(path: Path, change: str) -> None:
    open_database(path).close()
    execute(path, f"UPDATE meta SET {change}")

    with pytest.raises(FileUnusable, match="its row of meta"):
        open_database(path)


async def test_a_damaged_active_thread_is_derived_again_by_who_enters(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    session, key = await _in_session(opened.store)
    await opened.store.close()
    execute(path, "UPDATE sessions SET active_thread = 77")

    again = await opens(path)
    other = ThreadKey(1, again.store.log.allocate_thread())
    await again.store.log.submit(creation(other, "a", session=session)).wait()
    row = await again.store.sessions.get_by_key(1, session)
    await again.store.close()

    assert row is not None
    assert row.active_thread == other.thread != key.thread


async def _in_session(store: SqliteStore) -> tuple[int, ThreadKey]:
    """A session whose active thread has not begun, so that nothing holds the session."""
    session = (await store.sessions.create_if_absent(1, NewSession("s", "", 1, "", NOW))).key
    key = ThreadKey(1, store.log.allocate_thread())
    await store.log.submit(creation(key, "a", session=session)).wait()
    return session, key
