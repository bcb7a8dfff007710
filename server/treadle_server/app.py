"""The composition root of a server: names concrete classes, and says what a server's life is."""

import asyncio
import gc
import sys
from collections.abc import Callable
from contextlib import suppress

import structlog

from treadle_server.address import AddressUnusable, check_free
from treadle_server.clock import SteadyClock
from treadle_server.config import Config
from treadle_server.core.errors import Refused
from treadle_server.engine.admission import Bounds
from treadle_server.engine.checks import Checks
from treadle_server.engine.embedded import EmbeddedEngine
from treadle_server.engine.history import History
from treadle_server.engine.journal import Journal
from treadle_server.engine.quarantine import PACE, Pace
from treadle_server.engine.recovery import recover
from treadle_server.engine.specs import CachedSpecs
from treadle_server.engine.steps import Steps
from treadle_server.engine.sweeper import Sweeper
from treadle_server.feed.feed import HotFeed
from treadle_server.feed.tenants import CommitFeed
from treadle_server.leaving import EXIT_UNUSABLE, leave_if_failed, on_fatal, on_signals, unless_stopped
from treadle_server.models.providers import Providers
from treadle_server.overdue import OVERDUE_SECONDS, Overdue
from treadle_server.ports.catalogue.memories import Room
from treadle_server.ports.tools import Notes, Toolbox
from treadle_server.rpc.admin import AdminServicer
from treadle_server.rpc.admission import Admission, Backlog, LaneLimits
from treadle_server.rpc.agents import AgentServicer
from treadle_server.rpc.approvals import ApprovalServicer
from treadle_server.rpc.doorway import Doorway
from treadle_server.rpc.identity import Identities
from treadle_server.rpc.limits import (
    CLIENT_METADATA_BYTES_MAX,
    INPUT_BYTES_MAX,
    PAGE_SIZE_MAX,
    REQUEST_BYTES_MAX,
)
from treadle_server.rpc.log_lines import quieten
from treadle_server.rpc.memories import MemoryMessages, MemoryServicer
from treadle_server.rpc.resources import AgentMessages, BackupMessages, KeyMessages, TenantMessages
from treadle_server.rpc.server import GrpcServer
from treadle_server.rpc.sessions import SessionMessages, SessionServicer
from treadle_server.rpc.stalls import Stalls
from treadle_server.rpc.thread_filters import ThreadFilters
from treadle_server.rpc.threads import ThreadServicer
from treadle_server.rpc.tools import ToolServicer
from treadle_server.services.agent_checks import AgentChecks
from treadle_server.services.agent_lists import AgentLists
from treadle_server.services.agent_threads import AgentThreads
from treadle_server.services.agents import Agents
from treadle_server.services.approvals import Approvals
from treadle_server.services.backups import Backups
from treadle_server.services.child_threads import ChildThreads
from treadle_server.services.controls import Controls
from treadle_server.services.keys import Keys
from treadle_server.services.memories import Memories, ThreadMemories
from treadle_server.services.requests import Replays
from treadle_server.services.server_info import (
    FULL,
    RELAXED,
    ModelProvider,
    ServerInfo,
    ServerLimits,
    ServerStatistics,
    store_state,
)
from treadle_server.services.sessions import Sessions
from treadle_server.services.tenant_stream import TenantStream
from treadle_server.services.tenants import Tenants
from treadle_server.services.thread_forks import ThreadForks
from treadle_server.services.thread_prefixes import ThreadPrefixes
from treadle_server.services.thread_reads import ThreadReads
from treadle_server.services.thread_starts import ThreadStarts
from treadle_server.services.threads import Threads
from treadle_server.services.tools import Tools
from treadle_server.services.tree_stream import TreeStream
from treadle_server.stores.sqlite.database import Durability
from treadle_server.stores.sqlite.lock import FileUnusable
from treadle_server.stores.sqlite.store import SqliteStore
from treadle_server.tools.groups import ToolGroups
from treadle_server.tools.memory_tools import MemoryTools
from treadle_server.tools.predicates import ArgumentPredicates
from treadle_server.tools.schemas import JsonSchemas
from treadle_server.version import __version__
from treadle_server.wire.approvals import repeats
from treadle_server.wire.codec import ProtoCodec
from treadle_server.workers.retention import Retention

_LOG = structlog.get_logger(__name__)

MakeToolbox = Callable[[Notes, Callable[[], int]], Toolbox]
"""Makes the tools of a server from its notes and its clock."""


async def serve(config: Config, make_toolbox: MakeToolbox = ToolGroups, pace: Pace = PACE) -> int:
    """Serves until a signal or a fatal fault; returns the exit code. `pace` is that of trials of suspects."""
    stopping: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    overdue = Overdue(config.drain_seconds + OVERDUE_SECONDS)
    on_signals(stopping, overdue)
    quieten()
    try:
        server = await unless_stopped(Server.start(config, stopping, make_toolbox, pace), stopping)
    except (FileUnusable, AddressUnusable, Refused) as error:
        print(f"treadle serve: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    if server is not None:
        with suppress(OSError):  # whoever started it may not want to know
            print(f"listening on {server.address}", flush=True)
        leave_if_failed(await stopping)
        _LOG.info("stopping")
        await server.stop()
    overdue.stopped()
    return 0


class Server:
    """Everything of one server process. Made of parts that are started and stopped in order."""

    def __init__(
        self, config: Config, store: SqliteStore, clock: SteadyClock, make_toolbox: MakeToolbox, pace: Pace
    ) -> None:
        self._config = config
        self.store = store
        self._clock = clock
        self._codec = ProtoCodec()
        self._history = History(store.session_records, self._codec)
        self._models = Providers()
        self._schemas = JsonSchemas()
        self._predicates = ArgumentPredicates()
        memories = ThreadMemories(store.memories, store.threads, clock)
        self._toolbox = MemoryTools(make_toolbox(store.notes, clock.now), memories)
        beat = config.heartbeat_seconds
        self._feed = HotFeed(store.log, self._codec, heartbeat_seconds=beat)
        self._tenant_feed = CommitFeed(store.log, store.commits, heartbeat_seconds=beat)
        self._specs = CachedSpecs(store.threads, self._codec)
        self._engine = EmbeddedEngine(
            store.log,
            Journal(store.log, self._codec, self._specs),
            Steps(self._models, self._toolbox, self._schemas, self._feed, clock, self._predicates),
            clock,
            threads=store.threads,
            trials=store.trials,
            starts=store.starts,
            mailbox=store.mail,
            epoch=store.epoch,
            bounds=_bounds(config),
            check=Checks(self._schemas, self._toolbox),
            pace=pace,
            history=self._history,
        )
        self._sweeper = Sweeper(self._engine, store.threads, store.housekeeping, clock)
        self._replays = Replays(store.requests, clock)
        self._keys = Keys(store.api_keys, store.tenants, KeyMessages(), self._replays, clock)
        self.retention = Retention(
            store.housekeeping, clock, default_micros=_micros_of_days(config.thread_retention_days)
        )
        self._tenants = Tenants(store.tenants, TenantMessages(), self._replays, clock, self.retention.poke)
        self._backups = Backups(store.copies, BackupMessages(), self._replays, clock)
        self._start_time = clock.now()
        self.admission = _admission(config, Backlog(lambda: store.committer.backlog, config.backlog_max))
        self._grpc = GrpcServer(config.connection_streams_max)
        self.address = ""

    @classmethod
    async def start(
        cls,
        config: Config,
        stopping: "asyncio.Future[int]",
        make_toolbox: MakeToolbox = ToolGroups,
        pace: Pace = PACE,
    ) -> "Server":
        """Returns once it serves. `stopping` gets an exit code when the store fails.

        Raises FileUnusable or AddressUnusable, and then leaves nothing open.
        """
        clock = SteadyClock()
        await asyncio.to_thread(check_free, config.listen)  # names are looked up
        store = await SqliteStore.open(
            config.db,
            on_fatal=on_fatal(stopping),
            durability=Durability(config.durability),
            take_over=config.take_over,
            clock=clock,
            backup_dir=config.backup_dir,
            reserve_bytes=config.disk_reserve_mib << 20,
            memory_room=Room(
                config.namespace_memories_max,
                config.tenant_memories_max,
                config.tenant_memory_mib_max << 20,
            ),
        )
        if config.durability != "full":
            _LOG.warning("durability_relaxed", loses="the newest acknowledged changes at a power loss")
        server = cls(config, store, clock, make_toolbox, pace)
        try:
            await server._open()
        except BaseException as error:
            stopped = isinstance(error, asyncio.CancelledError)  # threads may be in calls already
            await server._engine.drain(config.drain_seconds if stopped else 0)
            await server._close()
            raise
        return server

    async def _open(self) -> None:
        config = self._config
        self._grpc.add(self._doorway(), self._servicers())
        self.address = self._grpc.bind(config.listen, config.tls_cert, config.tls_key)
        await recover(self._engine, self.store.threads, self._specs)
        await self._grpc.start()
        self._engine.begun()
        self._sweeper.start()
        self.retention.start()
        gc.freeze()

    def _doorway(self) -> Doorway:
        return Doorway(
            Identities(self._keys, keys_required=self._config.require_keys),
            self.admission,
            Stalls(self._config.subscriber_stall_seconds),
        )

    def _servicers(self) -> dict[str, object]:
        store, clock, replays = self.store, self._clock, self._replays
        agents = Agents(
            store.agents,
            AgentMessages(),
            AgentChecks(self._models, self._toolbox, self._schemas, self._predicates, self._toolbox),
            AgentThreads(store.threads, self._engine, clock),
            replays,
            clock,
        )
        return {
            "treadle.v1.AgentService": AgentServicer(agents, AgentLists(store.agents, AgentMessages())),
            "treadle.v1.ThreadService": self._thread_servicer(agents),
            "treadle.v1.SessionService": self._session_servicer(),
            "treadle.v1.ApprovalService": ApprovalServicer(self._approvals()),
            "treadle.v1.ToolService": ToolServicer(Tools(self._toolbox)),
            "treadle.v1.MemoryService": MemoryServicer(
                Memories(store.memories, MemoryMessages(), replays, clock)
            ),
            "treadle.v1.AdminService": AdminServicer(self._keys, self._tenants, self._backups, self._info),
        }

    def _thread_servicer(self, agents: Agents) -> ThreadServicer:
        store, clock, replays, engine = self.store, self._clock, self._replays, self._engine
        reads = self._thread_reads()
        starts = ThreadStarts(
            log=store.log,
            reads=reads,
            sessions=store.sessions,
            replays=replays,
            agents=agents,
            engine=engine,
            encode_spec=self._codec.encode_spec,
            schemas=self._schemas,
            clock=clock,
        )
        engine.call_agents_by(ChildThreads(starts, agents, store.threads, store.lineage))
        controls = Controls(reads=reads, replays=replays, engine=engine, clock=clock)
        threads = Threads(
            reads=reads,
            threads=store.threads,
            replays=replays,
            controls=controls,
            feed=self._feed,
            clock=clock,
        )
        forks = ThreadForks(
            starts=starts,
            reads=reads,
            prefixes=ThreadPrefixes(store.log, self._codec, self._specs),
            agents=agents,
            models=self._models,
            replays=replays,
            engine=engine,
            encode_spec=self._codec.encode_spec,
            clock=clock,
        )
        return ThreadServicer(
            starts=starts,
            reads=reads,
            threads=threads,
            controls=controls,
            forks=forks,
            tenants=self._tenant_stream(),
            trees=TreeStream(reads, self._tenant_stream(), store.lineage),
            filters=ThreadFilters(store.agents, store.sessions),
            codec=self._codec,
        )

    def _session_servicer(self) -> SessionServicer:
        reads, replays, engine = self._thread_reads(), self._replays, self._engine
        controls = Controls(reads=reads, replays=replays, engine=engine, clock=self._clock)
        threads = Threads(
            reads=reads,
            threads=self.store.threads,
            replays=replays,
            controls=controls,
            feed=self._feed,
            clock=self._clock,
        )
        sessions = Sessions(
            self.store.sessions, self._history, SessionMessages(), replays, threads.end, self._clock
        )
        return SessionServicer(sessions, self._tenant_stream(), self._codec)

    def _thread_reads(self) -> ThreadReads:
        store = self.store
        return ThreadReads(
            log=store.log,
            threads=store.threads,
            sessions=store.sessions,
            engine=self._engine,
            codec=self._codec,
            specs=self._specs,
        )

    def _tenant_stream(self) -> TenantStream:
        beat = self._config.heartbeat_seconds
        return TenantStream(self._tenant_feed, self.store.threads, self.store.log, heartbeat_seconds=beat)

    def _approvals(self) -> Approvals:
        return Approvals(
            approvals=self.store.approvals,
            reads=self._thread_reads(),
            log=self.store.log,
            codec=self._codec,
            repeats=repeats,
            stream=self._tenant_stream(),
            replays=self._replays,
            engine=self._engine,
            clock=self._clock,
        )

    def _info(self) -> ServerInfo:
        config = self._config
        return ServerInfo(
            version=__version__,
            epoch=self.store.epoch,
            start_time_micros=self._start_time,
            durability=FULL if config.durability == "full" else RELAXED,
            limits=ServerLimits(
                request_bytes_max=REQUEST_BYTES_MAX,
                input_bytes_max=INPUT_BYTES_MAX,
                client_metadata_bytes_max=CLIENT_METADATA_BYTES_MAX,
                page_size_max=PAGE_SIZE_MAX,
                running_threads_max=config.running_threads_max,
                streams_max=config.streams_max,
            ),
            model_providers=tuple(
                ModelProvider(name, available=not problem, problem=problem)
                for name, problem in self._models.problems().items()
            ),
            statistics=self._statistics(),
            store_state=store_state(self.store.log.blocked_by),
        )

    def _statistics(self) -> ServerStatistics:
        return ServerStatistics(
            commit_count=self.store.committer.commit_count,
            unit_count=self.store.committer.unit_count,
            read_count=self.store.readers.reads,
            running_thread_count=self._engine.running_count,
            waiting_thread_count=self._engine.waiting_count,
            stream_count=self.admission.streams.count,
        )

    async def stop(self) -> None:
        """Drains: no new work, streams end with a hint to retry, calls not to be repeated get their time."""
        await self._grpc.drain()
        self.admission.draining = True
        self._feed.drain()
        self._tenant_feed.drain()
        await self._sweeper.stop()
        await self.retention.stop()
        await asyncio.gather(self._engine.drain(self._config.drain_seconds), self._backups.stop())
        await self._close()

    async def _close(self) -> None:
        await self._grpc.stop()
        await self._feed.close()
        await self._models.close()
        await self.store.close()


def _bounds(config: Config) -> Bounds:
    return Bounds(
        config.running_threads_max, config.tenant_running_threads_max, config.tenant_pending_threads_max
    )


def _admission(config: Config, backlog: Backlog) -> Admission:
    calls = LaneLimits(config.unary_calls_max, config.tenant_unary_calls_max)
    streams = LaneLimits(
        config.streams_max,
        config.tenant_streams_max,
        config.stream_starts_per_second_max,
        config.tenant_stream_starts_per_second_max,
    )
    return Admission(calls, streams, backlog)


def _micros_of_days(days: float | None) -> int | None:
    return None if days is None else round(days * 86_400_000_000)
