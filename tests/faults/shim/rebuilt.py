"""Opens what a power loss left with the store itself, and says what of it is wrong or missing."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.shim.claims import Told
from tests.faults.shim.power_loss import Files
from tests.faults.shim.rules import File
from treadle import ThreadEvent
from treadle_server.clock import SteadyClock
from treadle_server.core.errors import Refused
from treadle_server.core.evolve import apply
from treadle_server.core.state import State
from treadle_server.engine.specs import CachedSpecs
from treadle_server.ports.log import ThreadKey
from treadle_server.stores.sqlite.lock import FileUnusable
from treadle_server.stores.sqlite.store import SqliteStore
from treadle_server.wire.codec import ProtoCodec

ENDINGS = {File.MAIN: "", File.LOG: "-wal", File.JOURNAL: "-journal", File.LOCK: "-lock"}
_EVENTS_MAX = 100_000
_CODEC = ProtoCodec()


@dataclass(slots=True)
class Left:
    """What the store says that it has."""

    wrong: list[str] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    threads: dict[str, list[ThreadEvent]] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)


def write_files(database: Path, files: Files) -> None:
    """Puts files into the place of whatever is there under their names."""
    database.parent.mkdir(exist_ok=True)
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()
    for file, data in files.items():
        database.with_name(database.name + ENDINGS[file]).write_bytes(data)


def read_files(database: Path) -> Files:
    """What is there under the names of a database."""
    paths = {file: database.with_name(database.name + ending) for file, ending in ENDINGS.items()}
    return {file: path.read_bytes() for file, path in paths.items() if path.exists()}


async def problems_of(database: Path, told: Told) -> list[str]:
    """Lines for what is wrong with a database file, and for what is missing of what was told."""
    left = await read(database)
    return left.wrong or list(_missing(left, told))


async def read(database: Path) -> Left:
    fatal: list[Exception] = []
    try:
        store = await SqliteStore.open(database, on_fatal=fatal.append, clock=SteadyClock())
    except FileUnusable as error:
        return Left([f"it does not open: {error}"])
    left = Left()
    try:
        await _read(store, left)
    except Refused as damage:
        left.wrong.append(f"it does not read: {damage.message}")
    finally:
        await store.close()
    left.wrong += [f"fatal: {error!r}" for error in fatal]
    return left


async def _read(store: SqliteStore, left: Left) -> None:
    rows = store.readers.rows
    left.agents = {f"agents/{name}" for (name,) in await rows("SELECT id FROM agents")}
    left.requests = dict(await rows("SELECT request_id, resource FROM request_ids"))
    counts = {row[0]: row[1:] for row in await rows(_COUNTS)}
    specs = CachedSpecs(store.threads, _CODEC)
    for tenant, thread, name, sequence, state in await rows(_THREADS):
        key, name = ThreadKey(tenant, thread), f"threads/{name}"
        if counts.pop(thread, (0, 0)) != (sequence, sequence):
            left.wrong.append(f"the log of {name} is not numbered up to {sequence}")
        records = await store.log.read(key, 0, _EVENTS_MAX)
        fold = State((await specs.of_thread(key))[0])
        for record in records:
            apply(fold, _CODEC.decode(record))
        if (fold.sequence, fold.status) != (sequence, state):
            left.wrong.append(f"the row of {name} is not the fold of its log")
        left.threads[name] = [_served(name, record) for record in records]
    if counts:
        left.wrong.append(f"events of threads that are not there: {counts}")


_THREADS = "SELECT tenant, thread, id, sequence, state FROM threads"
_COUNTS = "SELECT thread, count(*), max(sequence) FROM events GROUP BY tenant, thread"


def _served(name: str, stored: Any) -> ThreadEvent:
    event = ThreadEvent.FromString(stored.record.body)
    event.thread, event.sequence = name, stored.sequence
    return event


def _missing(left: Left, told: Told) -> Iterator[str]:
    for agent in sorted(told.agents - left.agents):
        yield f"{agent} is lost"
    for request_id, thread in told.threads.items():
        if left.requests.get(request_id) != thread:
            yield f"request {request_id} is forgotten, and was answered with {thread}"
    for (thread, sequence), event in told.events.items():
        log = left.threads.get(thread, [])
        if len(log) < sequence:
            yield f"{thread} ends at {len(log)}, and {sequence} was told"
        elif event is not None and log[sequence - 1] != event:
            yield f"event {sequence} of {thread} is not the one that was told"
    for thread, call_id in told.intents:
        starts = [event.tool_call_started.tool_call_id for event in left.threads.get(thread, [])]
        if call_id not in starts:
            yield f"{call_id} of {thread} was made, and its intent is lost"
