"""Copies of a store that is in use: one moment, whole, durable, and never there by half."""

import asyncio
import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.contract.units import NOW, bodies, create, records
from tests.stores.kit import HandClock, Opened, Opens, execute
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.backup import Copy
from treadle_server.ports.log import Fenced, Replayed, RequestRow, Unit
from treadle_server.stores.sqlite.backup import RESERVE_BYTES, SETTLED_SECONDS, SqliteCopies
from treadle_server.stores.sqlite.changes import Changes
from treadle_server.stores.sqlite.database import APPLICATION_ID

SECONDS = 10.0
PLENTY = 1 << 50
LARGE_MIB = 20
"""More than two steps of a copy."""


def copies_of(
    opened: Opened, path: Path, *, free_bytes: Callable[[Path], int] = lambda _: PLENTY, **limits: int
) -> SqliteCopies:
    changes = Changes(opened.store.committer, HandClock())
    folder = path.parent / "copies"
    return SqliteCopies(path, folder, changes, opened.store.readers, free_bytes=free_bytes, **limits)


def request_row(request_id: str = "r1", resource: str = "backups/one") -> RequestRow:
    return RequestRow(request_id, "me", "CreateBackup", b"digest", resource, 0, b"answer", NOW + 10**12)


async def copy(copies: SqliteCopies, copy_id: str = "one", request: RequestRow | None = None) -> Copy:
    made = await copies.make(copy_id)
    await copies.publish(made, 1, request)
    return made


def left(path: Path) -> list[str]:
    """What is in the folder of the copies."""
    folder = path.parent / "copies"
    return sorted(os.listdir(folder)) if folder.exists() else []


async def fill(opened: Opened, mebibytes: int = LARGE_MIB) -> None:
    for number in range(mebibytes):
        await create(opened.store.log, *[f"{number:04}" * 2048] * 128)


@dataclass(slots=True)
class Held:
    """Holds a copy at one of its looks at the disk, which it takes before its first page and at each step."""

    at_look: int = 1
    free_bytes: int = PLENTY
    reached: threading.Event = field(default_factory=threading.Event)
    opening: threading.Event = field(default_factory=threading.Event)
    looks: int = 0

    def __call__(self, _: Path) -> int:
        self.looks += 1
        if self.looks != self.at_look:
            return PLENTY
        self.reached.set()
        assert self.opening.wait(SECONDS)
        return self.free_bytes

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[None]:
        assert await asyncio.to_thread(self.reached.wait, SECONDS)
        yield
        self.opening.set()


async def test_a_copy_is_one_plain_file_for_its_owner_alone(opened: Opened, path: Path) -> None:
    await create(opened.store.log, "a", "b")

    made = await copy(copies_of(opened, path))

    data = made.path.read_bytes()
    assert (made.size_bytes, made.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert made.path.parent.stat().st_mode & 0o777 == 0o700
    assert left(path) == ["one.db"]
    assert data[18:20] == b"\x01\x01", "no write-ahead log belongs to it"
    pragmas = ("page_size", "auto_vacuum", "application_id")
    assert [execute(made.path, f"PRAGMA {name}")[0][0] for name in pragmas] == [8192, 2, APPLICATION_ID]
    assert execute(made.path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_copy_is_a_store_that_goes_on_from_its_moment(
    opens: Opens, opened: Opened, path: Path
) -> None:
    key = await create(opened.store.log, "a", "b")
    made = await copy(copies_of(opened, path))
    await opened.store.log.submit(Unit(key, 2, records("later"))).wait()

    restored = await opens(made.path)

    assert await bodies(restored.store.log, key) == ["a", "b"]
    await restored.store.log.submit(Unit(key, 2, records("otherwise"))).wait()
    assert await bodies(restored.store.log, key) == ["a", "b", "otherwise"]
    assert restored.store.epoch == opened.store.epoch + 1


async def test_a_copy_has_one_moment_though_writers_go_on(opened: Opened, path: Path) -> None:
    await fill(opened)
    held = Held(at_look=2)
    key = await create(opened.store.log, "early")

    making = asyncio.ensure_future(copy(copies_of(opened, path, free_bytes=held)))
    async with held.holding():
        await opened.store.log.submit(Unit(key, 1, records("late"))).wait()
        assert await bodies(opened.store.log, key) == ["early", "late"]
    made = await making

    found = execute(made.path, "SELECT body FROM events WHERE thread = ?", key.thread)
    assert found == [(b"early",)]


async def test_every_copy_under_writers_has_whole_units_and_all_that_was_acknowledged(
    opened: Opened, path: Path
) -> None:
    await fill(opened)
    acknowledged, stopping = 0, asyncio.Event()

    async def write() -> None:
        nonlocal acknowledged
        while not stopping.is_set():
            await create(opened.store.log, "first", "second", "third")
            acknowledged += 1

    writers = [asyncio.ensure_future(write()) for _ in range(8)]
    copies = copies_of(opened, path)
    for number in range(5):
        before = acknowledged
        made = await copy(copies, f"copy-{number}")
        rows = execute(
            made.path,
            "SELECT t.sequence, (SELECT count(*) FROM events e WHERE e.thread = t.thread) FROM threads t",
        )
        assert all(last == count for last, count in rows)
        assert len(rows) >= LARGE_MIB + before
        counted = execute(made.path, "SELECT count(*), max(position) FROM commits")
        assert counted == [(len(rows), len(rows))]
    stopping.set()
    await asyncio.gather(*writers)

    assert acknowledged > 5
    assert opened.fatal == []


async def test_a_name_that_is_taken_is_refused_and_its_file_left_alone(opened: Opened, path: Path) -> None:
    copies = copies_of(opened, path)
    made = await copies.make("one")
    made.path.write_bytes(b"another's")

    with pytest.raises(Refused) as at_publishing:
        await copies.publish(made, 1, request_row())
    with pytest.raises(Refused) as at_making:
        await copies.make("one")

    assert at_publishing.value.reason is at_making.value.reason is Reason.RESOURCE_EXISTS
    assert at_making.value.resource == ("treadle.dev/Backup", "backups/one")
    assert made.path.read_bytes() == b"another's"
    assert left(path) == ["one.db"]
    assert await opened.store.requests.find(1, "r1", now=NOW) is None


async def test_a_request_is_remembered_with_the_name_and_not_twice(opened: Opened, path: Path) -> None:
    copies = copies_of(opened, path)
    await copy(copies, "one", request_row())
    assert left(path) == ["one.db"]

    with pytest.raises(Replayed) as replayed:
        await copy(copies, "two", request_row())

    assert (replayed.value.resource, replayed.value.response) == ("backups/one", b"answer")
    assert left(path) == ["one.db"]


async def test_what_a_crash_left_unpublished_is_removed_by_the_next(opened: Opened, path: Path) -> None:
    copies = copies_of(opened, path)
    made = await copy(copies, "one")
    for name in (".gone.db.part", ".gone.db.part-journal"):
        (made.path.parent / name).write_bytes(b"half")
    (made.path.parent / "mine.txt").write_bytes(b"an operator's")

    await copy(copies, "next")

    assert left(path) == ["mine.txt", "next.db", "one.db"]


async def unsettled(opened: Opened, path: Path) -> Path:
    """A copy as a kill leaves it that comes before its request is remembered."""
    made = (await copy(copies_of(opened, path))).path
    os.link(made, made.with_name(".one.db.ready"))
    return made


async def test_a_start_settles_what_a_crash_left_between_a_name_and_its_request(
    opens: Opens, path: Path
) -> None:
    opened = await opens(path)
    kept = (await copy(opened.store.copies, "one", request_row())).path
    lost = (await copy(opened.store.copies, "lost")).path
    for made in (kept, lost):
        os.link(made, made.with_name(f".{made.name}.ready"))
    await opened.store.close()

    again = await opens(path)
    await again.store.housekeeping.forget_requests(NOW + 10**13)
    await copy(again.store.copies, "next")

    assert sorted(os.listdir(kept.parent)) == ["next.db", "one.db"]


@pytest.mark.parametrize("age", [SETTLED_SECONDS + 60, -3600], ids=["of a day ago", "of a time to come"])
async def test_a_copy_whose_request_may_have_been_forgotten_is_kept(
    opened: Opened, path: Path, age: float
) -> None:
    made = await unsettled(opened, path)
    at = time.time() - age
    os.utime(made, (at, at))

    await copies_of(opened, path).settle()

    assert left(path) == ["one.db"]


async def test_another_file_of_the_name_is_not_settled(opened: Opened, path: Path) -> None:
    made = await unsettled(opened, path)
    made.unlink()
    made.write_bytes(b"another's")

    await copies_of(opened, path).settle()

    assert left(path) == ["one.db"]


async def test_a_copy_of_which_it_is_not_known_whether_it_is_remembered_is_left_to_the_next_start(
    opens: Opens, path: Path
) -> None:
    opened = await opens(path)
    copies = copies_of(opened, path)
    made = await copies.make("one")
    execute(path, "UPDATE meta SET epoch = epoch + 1")  # another server has the file

    with pytest.raises(Fenced):
        await copies.publish(made, 1, request_row())

    assert left(path) == [".one.db.ready", "one.db"]


@pytest.mark.parametrize("at_look", [1, 2], ids=["before it begins", "while it is made"])
async def test_a_disk_without_room_refuses_and_the_store_goes_on(
    opened: Opened, path: Path, at_look: int
) -> None:
    await fill(opened)
    held = Held(at_look, free_bytes=RESERVE_BYTES - 1)
    copies = copies_of(opened, path, free_bytes=held)

    making = asyncio.ensure_future(copies.make("one"))
    async with held.holding():
        pass
    with pytest.raises(Refused) as refused:
        await making

    assert refused.value.reason is Reason.DISK_FULL
    assert left(path) == []
    await create(opened.store.log, "goes on")
    assert (await copy(copies)).path.exists()


async def test_a_copy_that_has_not_room_for_all_of_it_is_not_begun(opened: Opened, path: Path) -> None:
    await fill(opened)
    most = RESERVE_BYTES + LARGE_MIB * 1024 * 1024 // 2

    with pytest.raises(Refused) as refused:
        await copies_of(opened, path, free_bytes=lambda _: most).make("one")

    assert refused.value.reason is Reason.DISK_FULL


@pytest.mark.parametrize("at_look", [1, 2], ids=["before it begins", "while it is made"])
async def test_a_copy_that_is_stopped_leaves_nothing(opened: Opened, path: Path, at_look: int) -> None:
    await fill(opened)
    held = Held(at_look)
    copies = copies_of(opened, path, free_bytes=held)

    making = asyncio.ensure_future(copies.make("one"))
    async with held.holding():
        copies.stop()
    with pytest.raises(Refused) as refused:
        await making

    assert refused.value.reason is Reason.DRAINING
    assert left(path) == []


async def test_callers_come_before_a_copy_that_lets_the_log_grow(opened: Opened, path: Path) -> None:
    await create(opened.store.log, "a")

    with pytest.raises(Refused, match="callers write faster") as refused:
        await copies_of(opened, path, log_bytes_max=1).make("one")

    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert left(path) == []


async def test_a_folder_that_cannot_be_used_is_named(opened: Opened, path: Path) -> None:
    (path.parent / "copies").write_bytes(b"a file")

    with pytest.raises(Refused, match=f"{path.parent}/copies/one.db: ") as refused:
        await copies_of(opened, path).make("one")

    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    await create(opened.store.log, "goes on")
    assert opened.fatal == []


async def test_a_damaged_page_makes_no_copy(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    await fill(opened, 4)
    await opened.store.close()
    again = await opens(path)
    middle = path.stat().st_size // 8192 // 2 * 8192  # noqa: ASYNC240 - quick
    script = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(int(sys.argv[2])); f.write(b'\\xff' * 8192)"
    damage = [sys.executable, "-c", script, str(path), str(middle)]  # another process, for SQLite's locks
    await asyncio.to_thread(subprocess.run, damage, check=True, timeout=SECONDS)

    with pytest.raises(Refused) as refused:
        await copies_of(again, path).make("one")

    assert refused.value.reason is Reason.RECORD_CORRUPT
    assert left(path) == []


async def test_a_copy_leaves_no_reader_behind(opened: Opened, path: Path) -> None:
    await copy(copies_of(opened, path))
    await create(opened.store.log, "later")

    connection = sqlite3.connect(path, isolation_level=None)
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()

    assert busy == 0
