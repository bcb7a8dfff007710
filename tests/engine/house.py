"""Everything that drives threads, of real parts, on one database file."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from tests.engine.handloop import LoopClock, turns, within
from tests.engine.held import HeldLog
from tests.engine.workbench import Workbench
from treadle_server.core import signals as s
from treadle_server.core.events import Event, SpecReference
from treadle_server.core.kinds import TERMINAL, ThreadState
from treadle_server.core.spec import Limits, Spec, ToolSpec
from treadle_server.core.values import Content
from treadle_server.engine.admission import Admission, Bounds
from treadle_server.engine.asks import Asks
from treadle_server.engine.checks import Checks
from treadle_server.engine.embedded import EmbeddedEngine
from treadle_server.engine.journal import Journal
from treadle_server.engine.quarantine import PACE, Pace, Quarantine
from treadle_server.engine.recovery import recover
from treadle_server.engine.setbacks import Setbacks
from treadle_server.engine.specs import CachedSpecs
from treadle_server.engine.steps import Steps
from treadle_server.engine.sweeper import Sweeper
from treadle_server.engine.timers import Timers
from treadle_server.engine.waiters import Waiters
from treadle_server.feed.feed import HotFeed
from treadle_server.models.providers import FACTORIES, Providers
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.ports.engine import Start
from treadle_server.ports.log import NewSession, NewThread, RequestRow, ThreadKey
from treadle_server.ports.model import Model
from treadle_server.ports.tools import Toolbox
from treadle_server.stores.sqlite.store import SqliteStore
from treadle_server.tools.groups import ToolGroups
from treadle_server.tools.predicates import ArgumentPredicates
from treadle_server.tools.schemas import JsonSchemas
from treadle_server.wire.codec import ProtoCodec, kind_name

AGENT = 1
Turn = dict[str, Any]
P = TypeVar("P")


def say(text: str) -> Turn:
    return {"text": text}


def use(*names: str, **arguments: Any) -> Turn:
    """A turn that calls these tools."""
    return {"calls": [{"name": name, "arguments": arguments} for name in names]}


def scripted(*turns: Turn) -> str:
    return "scripted:" + json.dumps({"turns": list(turns)})


@dataclass(slots=True)
class House:
    """One server's hold on the file, without RPCs."""

    path: Path
    store: SqliteStore
    log: HeldLog
    clock: LoopClock
    codec: ProtoCodec
    feed: HotFeed
    journal: Journal
    specs: CachedSpecs
    engine: EmbeddedEngine
    sweeper: Sweeper
    models: Providers
    bench: Workbench
    toolbox: Toolbox
    fatal: list[Exception] = field(default_factory=list)
    closed: bool = False

    # Threads

    def spec(self, model: str, tools: Sequence[ToolSpec] | None = None, **fields: Any) -> Spec:
        given = self.toolbox.builtins() if tools is None else tuple(tools)
        return Spec("agents/a/versions/1", model, tools=given, **fields)

    def plan(
        self,
        *turns: Turn,
        model: str = "",
        tenant: int = 1,
        agent: int = AGENT,
        session: int = 0,
        thread_id: str = "",
        request: RequestRow | None = None,
        text: str = "hello",
        limits: Limits | None = None,
        **spec: Any,
    ) -> Start:
        """A thread to start, whose model plays these turns."""
        key = ThreadKey(tenant, self.log.allocate_thread())
        made = self.spec(model or scripted(*turns), limits=limits or Limits(), **spec)
        body, now = self.codec.encode_spec(made), self.clock.now()
        digest = sha256(body)
        reference = SpecReference(made.agent_version, f"sha256:{digest.hexdigest()}", made.model[:255])
        name = f"sessions/s{session}" if session else ""
        row = NewThread(
            thread_id or f"thread-{key.thread}", agent, 1, session, digest.digest(), body, create_time=now
        )
        return Start(key, made, s.Create(now, reference, Content(text), session=name), row, request)

    async def start(self, *turns: Turn, **options: Any) -> ThreadKey:
        start = self.plan(*turns, **options)
        await within(self.engine.start(start))
        return start.key

    async def session(self, name: str = "s1", tenant: int = 1) -> int:
        row = await self.store.sessions.create_if_absent(tenant, NewSession(name, name, AGENT, "", 1))
        return row.key

    async def run(self, *turns: Turn, **options: Any) -> ThreadKey:
        """Starts a thread and waits for its end."""
        key = await self.start(*turns, **options)
        await self.ended(key)
        return key

    async def cancel(self, key: ThreadKey, grace_seconds: float = 5.0) -> None:
        ask = s.Cancel(self.clock.now(), reason="enough", grace_micros=int(grace_seconds * 1e6))
        await within(self.engine.ask(key, ask))

    # What is committed

    async def events(self, key: ThreadKey) -> list[Event]:
        return [self.codec.decode(stored) for stored in await self.store.log.read(key, 0, 10_000)]

    async def kinds(self, key: ThreadKey) -> list[str]:
        return [kind_name(stored.record.kind) for stored in await self.store.log.read(key, 0, 10_000)]

    async def payloads(self, key: ThreadKey, kind: type[P]) -> list[P]:
        """What the events of a kind say, in order."""
        return [event.payload for event in await self.events(key) if isinstance(event.payload, kind)]

    async def row(self, key: ThreadKey) -> ThreadRow:
        row = await self.store.threads.get_by_key(key)
        assert row is not None
        return row

    async def reached(self, key: ThreadKey, *states: ThreadState) -> ThreadRow:
        """Waits until one of the states is committed."""
        row = await self.row(key)
        while ThreadState(row.state) not in states:
            before = row.sequence
            await _moved(self, key, before)
            row = await self.row(key)
        return row

    async def ended(self, key: ThreadKey) -> ThreadRow:
        return await within(self.reached(key, *TERMINAL))

    async def committed(self, key: ThreadKey, kind: str, count: int = 1) -> list[Event]:
        """Waits until the log has so many events of a kind; returns the whole log."""
        while (kinds := await self.kinds(key)).count(kind) < count:
            await _moved(self, key, len(kinds))
        return await self.events(key)

    async def check_ended(self, key: ThreadKey) -> list[Event]:
        """The log of an ended thread: numbered without holes, ended once and last."""
        events, kinds = await self.events(key), await self.kinds(key)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert kinds.count("thread_ended") == 1
        assert kinds[-1] == "thread_ended"
        return events

    # Life

    async def recover(self) -> int:
        count = await within(recover(self.engine, self.store.threads, self.specs))
        self.engine.begun()
        return count

    async def crash(self) -> None:
        """As a kill: nothing more reaches the file, and nobody is asked to finish anything."""
        self.log.hold()
        self.engine.draining = True  # its timers are gone with it
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await turns()
        await self._close_store()

    async def stop(self, seconds: float = 5.0) -> None:
        """As SIGTERM."""
        self.feed.drain()
        await self.sweeper.stop()
        await within(self.engine.drain(seconds))
        await self._close_store()

    async def close(self) -> None:
        """Whatever a test left."""
        if not self.closed:
            self.log.release()
            await self.stop(0)

    async def _close_store(self) -> None:
        self.closed = True
        await self.sweeper.stop()
        await self.feed.close()
        await self.models.close()
        await self.store.close()


async def _moved(house: House, key: ThreadKey, sequence: int) -> None:
    """Waits until more is committed: each look is a read of the store."""
    while await house.store.log.last_sequence(key) <= sequence:
        await turns(1)


async def open_house(
    path: Path,
    *,
    bench: Workbench | None = None,
    builtin: bool = False,
    models: Mapping[str, Callable[[], Model]] | None = None,
    bounds: Bounds | None = None,
    heartbeat_seconds: float = 15.0,
    tail_events_max: int = 512,
    look_seconds: float = 30.0,
    pace: Pace = PACE,
    codec: ProtoCodec | None = None,
) -> House:
    """Tools are those of the bench, or the server's own; models are the server's own and those given."""
    clock, codec, fatal = LoopClock(), codec or ProtoCodec(), list[Exception]()
    store = await SqliteStore.open(path, on_fatal=fatal.append, clock=clock)
    log = HeldLog(store.log)
    feed = HotFeed(log, codec, heartbeat_seconds=heartbeat_seconds, tail_events_max=tail_events_max)
    specs = CachedSpecs(store.threads, codec)
    journal = Journal(log, codec, specs)
    providers = Providers({**FACTORIES, **(models or {})})
    bench = bench or Workbench()
    toolbox: Toolbox = ToolGroups(store.notes, clock.now) if builtin else bench
    schemas = JsonSchemas()
    steps = Steps(providers, toolbox, schemas, feed, clock, ArgumentPredicates())
    engine = EmbeddedEngine(
        *(log, journal, steps, clock),
        threads=store.threads,
        trials=store.trials,
        starts=store.starts,
        mailbox=store.mail,
        epoch=store.epoch,
        bounds=bounds or Bounds(),
        check=Checks(schemas, toolbox),
        pace=pace,
    )
    sweeper = Sweeper(engine, store.threads, store.housekeeping, clock, look_seconds=look_seconds)
    parts = (store, log, clock, codec, feed, journal, specs, engine, sweeper, providers, bench, toolbox)
    return House(path, *parts, fatal)


def left_over(thing: object) -> dict[str, object]:
    """The collections of an object, and of the parts that are its own, that are not empty."""
    left: dict[str, object] = {}
    for name, value in vars(thing).items():
        if isinstance(value, Admission | Asks | Journal | Quarantine | Setbacks | Timers | Waiters):
            left.update({f"{name}.{inner}": rest for inner, rest in left_over(value).items()})
            continue
        tasks = isinstance(value, set) and any(isinstance(item, asyncio.Task) for item in value)
        if tasks or (isinstance(value, dict | deque) and value):
            left[name] = value
    return left
