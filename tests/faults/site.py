"""A server process with recording tools: its file, its ledger and its gates in one folder."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from tests.faults.ledger import Ledger
from tests.faults.tool_server import GROUP
from tests.server_process import ServerProcess
from treadle import Agent, Client, Retry

AGENT = "worker"
STRICT_AGENT = "strict"
"""Fails where the other one tells its model that an outcome is unknown."""
LOOK_SECONDS = 0.01
PATIENCE_SECONDS = 60.0
_RETRY = Retry(
    first_delay_seconds=0.02, delay_seconds_max=0.1, call_seconds_max=60.0, stream_seconds_max=60.0
)
_CHANNEL_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
)


class Site:
    """One place of work. Its server can be ended and started again; everything else stays."""

    def __init__(self, folder: Path, *, prepared: Path | None = None, **environment: str) -> None:
        """`prepared` is the file of a stopped server that has the agents already."""
        folder.mkdir(parents=True, exist_ok=True)
        self._gates = folder / "gates"
        self._gates.mkdir()
        self.db = folder / "treadle.db"
        self.ledger = Ledger(folder / "ledger")
        if prepared is not None:
            shutil.copyfile(prepared, self.db)
        self.server = ServerProcess(
            self.db,
            environment=environment,
            options=("--ledger", str(folder / "ledger"), "--gates", str(self._gates)),
            module="tests.faults.tool_server",
        )

    async def start(self, failpoints: str = "") -> None:
        await asyncio.to_thread(self.server.start, TREADLE_FAILPOINTS=failpoints)

    async def kill(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def ended(self) -> int:
        """Waits for the server to end by itself or by a failpoint; returns its exit code."""
        return await asyncio.to_thread(self.server.wait)

    async def restart(self) -> None:
        """Kills the server and starts it again."""
        await self.kill()
        await self.start()

    def open_gate(self, name: str) -> None:
        (self._gates / name).touch()

    def client(self, *, timeout: float = PATIENCE_SECONDS) -> Client:
        return Client(self.server.address, api_key="", retry=_RETRY, timeout=timeout)

    def channel(self) -> grpc.aio.Channel:
        """For calls whose answers are to be seen as they come, without what the client does about them."""
        return grpc.aio.insecure_channel(self.server.address, options=_CHANNEL_OPTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.server.close)


async def make_agents(client: Client) -> None:
    """Agents that play the script of a thread's input."""
    for name, policy in ((AGENT, Agent.TELL_MODEL), (STRICT_AGENT, Agent.FAIL)):
        await client.create_agent(
            name, model="scripted:", tool_groups=[GROUP, "toolGroups/builtin"], on_unknown_outcome=policy
        )


async def eventually(
    condition: Callable[[], Awaitable[bool]] | Callable[[], bool], seconds: float = PATIENCE_SECONDS
) -> None:
    """Returns once the condition holds; fails when it does not within the time."""
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if await holds if isinstance(holds, Awaitable) else holds:
            return
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {condition}"
        await asyncio.sleep(LOOK_SECONDS)
