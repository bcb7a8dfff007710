"""Readers that hold a snapshot for long: how far the log beside the file grows, and that it shrinks after."""

import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.units import create
from tests.stores.disk import open_with, refusal
from tests.stores.kit import Opened
from tests.waiting import eventually
from treadle_server.core.errors import Reason
from treadle_server.ports.log import Log, Record, ThreadKey, Unit
from treadle_server.stores.sqlite.checkpoints import BOUNDS, Checkpoints, LogBounds
from treadle_server.stores.sqlite.database import PAGE_SIZE

FRAME = PAGE_SIZE + 24
SMALL = LogBounds(checkpoint=60, overgrown=240, most=960)
BODY = b"x" * 50_000
HELD_UP_SECONDS = 1.0
"""Far less than the five seconds for which a writer would wait for a lock."""

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
before = connection.execute("SELECT max(sequence) FROM events").fetchone()
print("held", flush=True)
sys.stdin.readline()
assert connection.execute("SELECT max(sequence) FROM events").fetchone() == before
"""


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[Opened]:
    opened = await open_with(path, log_bounds=SMALL)
    yield opened
    await opened.store.close()
    assert opened.fatal == []


_KEEP_FROM_CHECKPOINTS = """
import fcntl, os, sys
fcntl.lockf(os.open(sys.argv[1] + "-shm", os.O_RDWR), fcntl.LOCK_EX, 1, 121)
print("held", flush=True)
sys.stdin.readline()
"""


@asynccontextmanager
async def other_process(program: str, path: Path) -> AsyncIterator[None]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(path), stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    yield
    await process.communicate(b"\n")
    assert process.returncode == 0


def wal_pages(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size // FRAME


async def write_until(log: Log, key: ThreadKey, done: Callable[[int], bool]) -> tuple[int, float]:
    """Appends one record after another; returns the last sequence, and how long the slowest took.

    The last record may wait for the log to be writable.
    """
    sequence, slowest = await log.last_sequence(key), 0.0
    while not done(sequence):
        assert sequence < 2000, "the log has no bound"
        started, ticket = time.monotonic(), log.submit(Unit(key, sequence, [Record(3, BODY)]))
        await eventually(lambda ticket=ticket: ticket.done or refusal(log) is not None)  # type: ignore[misc]
        slowest = max(slowest, time.monotonic() - started)
        sequence += 1
    return sequence, slowest


async def test_a_snapshot_of_another_process_lets_the_log_grow_to_its_bound_and_no_further(
    opened: Opened, path: Path
) -> None:
    log = opened.store.log
    key = await create(log, "created")

    async with other_process(_HOLD, path):
        sequence, slowest = await write_until(log, key, lambda _: refusal(log) is not None)
        refused = refusal(log)
        waits = log.submit(Unit(key, sequence, [Record(3, BODY)]))
        urgent = log.submit(Unit(key, sequence + 1, [Record(3, b"end")], urgent=True))
        await urgent.wait()  # what ends a thread needs little and is written all the same
        pages = wal_pages(path)
    await waits.wait()
    await eventually(lambda: refusal(log) is None)

    assert refused is not None
    assert refused.reason is Reason.STORE_UNAVAILABLE
    assert SMALL.most < pages <= SMALL.most + 3 * SMALL.checkpoint
    assert slowest < HELD_UP_SECONDS
    assert await log.last_sequence(key) == sequence + 2
    await eventually(lambda: wal_pages(path) <= 2 * SMALL.checkpoint)


async def test_a_process_that_keeps_checkpoints_from_running_lets_the_log_grow_no_further(
    opened: Opened, path: Path
) -> None:
    log = opened.store.log
    key = await create(log, "created")

    async with other_process(_KEEP_FROM_CHECKPOINTS, path):
        await write_until(log, key, lambda _: refusal(log) is not None)
        pages = wal_pages(path)
    await eventually(lambda: refusal(log) is None)

    assert SMALL.most / 3 < pages <= SMALL.most + 3 * SMALL.checkpoint
    await eventually(lambda: wal_pages(path) <= 2 * SMALL.checkpoint)


async def test_a_log_that_grew_is_cut_as_soon_as_its_reader_is_gone(opened: Opened, path: Path) -> None:
    log = opened.store.log
    key = await create(log, "created")

    async with other_process(_HOLD, path):
        _, slowest = await write_until(log, key, lambda _: wal_pages(path) > 2 * SMALL.overgrown)
        grown = wal_pages(path)

    assert slowest < HELD_UP_SECONDS
    assert grown > 2 * SMALL.overgrown
    await eventually(lambda: wal_pages(path) <= 2 * SMALL.checkpoint)  # though nothing is written any more
    assert refusal(log) is None


_LONG_QUERY = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
SELECT count(*) FROM n, (SELECT max(sequence) FROM events)"""


def read_without_pause(path: Path, over: threading.Event) -> int:
    """One snapshot after another, each held for a moment, also on a busy machine; returns how many."""
    connection, count = sqlite3.connect(path, isolation_level=None), 0
    while not over.is_set():
        connection.execute(_LONG_QUERY).fetchall()
        count += 1
    connection.close()
    return count


async def test_readers_that_come_and_go_do_not_let_the_log_grow(opened: Opened, path: Path) -> None:
    log, over = opened.store.log, threading.Event()
    key = await create(log, "created")
    readers = [asyncio.create_task(asyncio.to_thread(read_without_pause, path, over)) for _ in range(3)]

    sequence, _ = await write_until(log, key, lambda sequence: sequence >= 200 or refusal(log) is not None)
    pages = wal_pages(path)
    over.set()
    counts = await asyncio.gather(*readers)

    assert sequence == 200
    assert min(counts) > 10
    assert pages < SMALL.most


def test_a_checkpoint_waits_for_a_reader_no_longer_than_a_tenth_of_a_second(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    writer, reader = (sqlite3.connect(path, isolation_level=None, timeout=5.0) for _ in range(2))
    writer.execute("PRAGMA journal_mode = WAL").fetchone()
    writer.execute("CREATE TABLE t (x)")
    checkpoints = Checkpoints(writer, LogBounds(checkpoint=1, overgrown=0, most=100))
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM t").fetchall()
    writer.execute("INSERT INTO t VALUES (1)")

    started = time.monotonic()
    checkpoints.finish()
    waited = time.monotonic() - started

    assert waited < HELD_UP_SECONDS
    assert writer.execute("PRAGMA busy_timeout").fetchone() == (5000,)
    reader.close()
    writer.close()


def test_the_bound_of_the_log_is_one_gibibyte() -> None:
    assert BOUNDS.most * PAGE_SIZE == 1 << 30
