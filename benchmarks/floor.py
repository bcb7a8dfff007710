"""The floor of a durable loop: events made, committed in groups with FULL, and streamed, nothing in between.

A call of the one streaming method is a run. Per run the server makes 10 events of 300 bytes; each is a row of
an SQLite file in WAL mode with synchronous=FULL, committed together with what other runs have waiting, and is
written to the stream before the next is made. `python -m benchmarks.floor` prints its figures.
"""

import argparse
import asyncio
import itertools
import queue
import signal
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from benchmarks.measure import (
    HEADERS,
    Result,
    cpu_seconds,
    drive,
    median_result,
    row,
    run_loop,
    serving,
    sync_ms,
    table,
)

EVENTS_PER_RUN = 10
EVENT_BYTES = 300

_SERVICE = "benchmarks.Floor"
_SCHEMA = """
CREATE TABLE events(
  run INTEGER NOT NULL, sequence INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (run, sequence)
) WITHOUT ROWID
"""

_Row = tuple[int, int, bytes]
_Waiting = tuple[_Row, asyncio.Future[None]]


class _Writer:
    """The only writer of a new SQLite file: a thread that commits all rows waiting for it at once."""

    def __init__(self, database: Path) -> None:
        self.commits = 0
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._connection = _create(database)
        self._thread = threading.Thread(target=self._work, name="writer")
        self._thread.start()

    def append(self, row: _Row) -> asyncio.Future[None]:
        """Gives a future that is done once the row is committed, or holds why it is not."""
        durable = self._loop.create_future()
        self._waiting.put((row, durable))
        return durable

    async def close(self) -> None:
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while batch := self._take():
            try:
                _commit(self._connection, [row for row, _ in batch])
            except sqlite3.Error as error:
                self._loop.call_soon_threadsafe(_settle, batch, error)
            else:
                self.commits += 1
                self._loop.call_soon_threadsafe(_settle, batch, None)
        self._connection.close()

    def _take(self) -> list[_Waiting]:
        """Waits for a row and takes all that are there; empty once the writer is closed."""
        batch: list[_Waiting] = []
        item = self._waiting.get()
        while item is not None:
            batch.append(item)
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return batch
        if batch:
            self._waiting.put(None)
        return batch


def _create(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(_SCHEMA)
    return connection


def _commit(connection: sqlite3.Connection, rows: list[_Row]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _settle(batch: list[_Waiting], error: sqlite3.Error | None) -> None:
    for _, durable in batch:
        if durable.done():  # its caller has gone
            continue
        if error is None:
            durable.set_result(None)
        else:
            durable.set_exception(error)


class _Floor:
    """The bare handlers; requests and responses are bytes and pass unparsed."""

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer
        self._runs = itertools.count(1)

    async def run(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        run = next(self._runs)
        for sequence in range(1, EVENTS_PER_RUN + 1):
            body = sequence.to_bytes(4, "big").ljust(EVENT_BYTES, b"e")
            await self._writer.append((run, sequence, body))
            await context.write(body)

    async def commits(self, _: bytes, __: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return b"%d" % self._writer.commits


async def _serve(database: Path) -> None:
    """Serves until SIGTERM; the first line of output is the port."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    writer = _Writer(database)
    floor = _Floor(writer)
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Run": grpc.unary_stream_rpc_method_handler(floor.run),
        "Commits": grpc.unary_unary_rpc_method_handler(floor.commits),
    }
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await ended.wait()
    await server.stop(1)
    await writer.close()


class FloorClient:
    """Calls a floor server and checks what it answers."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._run: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{_SERVICE}/Run")
        self._commits: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            f"/{_SERVICE}/Commits"
        )

    async def run(self) -> None:
        """One run, from the call to the end of its stream; a missing or misplaced event is an error."""
        expected = 0
        async for body in self._run(b""):
            expected += 1
            if len(body) != EVENT_BYTES or int.from_bytes(body[:4], "big") != expected:
                raise RuntimeError(f"event {expected} of a run is not the one that was due")
        if expected != EVENTS_PER_RUN:
            raise RuntimeError(f"a run ended after {expected} events")

    async def commits(self) -> int:
        """Transactions the server has committed since its start."""
        return int(await self._commits(b""))


@asynccontextmanager
async def _connected(target: str) -> AsyncIterator[FloorClient]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield FloorClient(channel)


async def run_floor(
    concurrency: int, runs: int, *, seconds: float = float("inf"), directory: Path | None = None
) -> Result:
    """Measures at most `runs` runs or `seconds` seconds, on a new server with a new file in `directory`."""
    with tempfile.TemporaryDirectory(prefix="floor-", dir=directory) as scratch:
        async with (
            serving("benchmarks.floor", "--serve", str(Path(scratch, "floor.db"))) as server,
            _connected(server.target) as client,
        ):
            await drive(client.run, concurrency=concurrency, runs=2 * concurrency)  # warm up
            commits, cpu = await client.commits(), cpu_seconds(server.pid)
            load = await drive(client.run, concurrency=concurrency, runs=runs, seconds=seconds)
            return Result(
                label="floor",
                concurrency=concurrency,
                load=load,
                cpu_seconds=cpu_seconds(server.pid) - cpu,
                commits=await client.commits() - commits,
            )


async def _measure(options: argparse.Namespace) -> None:
    rows: list[tuple[str, ...]] = []
    for concurrency in options.concurrency:
        rounds = [
            await run_floor(concurrency, options.runs, seconds=options.seconds, directory=options.directory)
            for _ in range(options.rounds)
        ]
        rows.append(row(median_result(rounds)))
    print(f"one page made durable in {sync_ms(options.directory or Path(tempfile.gettempdir())):.3f} ms\n")
    print(table(HEADERS, rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--runs", type=int, default=5000, help="at most so many runs at each concurrency")
    parser.add_argument("--seconds", type=float, default=5.0, help="and at most so many seconds")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is shown")
    parser.add_argument("--directory", type=Path, help="where the file is made; not a memory file system")
    parser.add_argument("--serve", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        run_loop(_serve(options.serve))
    else:
        run_loop(_measure(options))


if __name__ == "__main__":
    main()
