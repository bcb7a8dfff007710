"""A server process and the world around it: the file, the ledger and the gates in one folder."""

import asyncio
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from tests.faults.tool_server import GROUP, WORLD_VARIABLE
from tests.faults.world_process import WorldProcess
from tests.server_process import ServerProcess
from treadle import Agent, ApprovalPolicy, ApprovalRule, Client, Retry

AGENT = "worker"
STRICT_AGENT = "strict"
"""Fails where the other one tells its model that an outcome is unknown."""
GOOGLE_AGENT = "google"
"""Calls the world's model over HTTP."""
GATED_AGENT = "gated"
"""People approve its calls of `pay`."""
BOSS_AGENT, CHILD_AGENT = "boss", "child"
"""The one calls the other, which plays the script that it is called with."""
QUESTION, CLIENT_TOOL = "ask_user", "measure"
"""What agents ask people, and what threads may bring as a tool of their own."""
PATIENCE_SECONDS = 60.0
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
        self.db = folder / "treadle.db"
        self.world = WorldProcess(folder)
        self.ledger = self.world.ledger
        if prepared is not None:
            shutil.copyfile(prepared, self.db)
        self.server = ServerProcess(
            self.db,
            environment=environment,
            module="tests.faults.tool_server",
        )
        # Bound and not listening: nobody else is given the port while the server is down.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self.server.address = f"127.0.0.1:{self._port.getsockname()[1]}"

    async def start(self, failpoints: str = "") -> None:
        if not self.world.tools:
            await asyncio.to_thread(self.world.start)
        outside = {
            WORLD_VARIABLE: self.world.tools,
            "GOOGLE_GEMINI_BASE_URL": self.world.model_uri,
            "GEMINI_API_KEY": "of-the-world",
        }
        await asyncio.to_thread(self.server.start, TREADLE_FAILPOINTS=failpoints, **outside)

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
        self.world.open_gate(name)

    def client(self, *, timeout: float = PATIENCE_SECONDS) -> Client:
        """Asks again and again for so long; `timeout` below a minute holds for each call alone."""
        patience = max(timeout, PATIENCE_SECONDS)
        retry = Retry(
            first_delay_seconds=0.02,
            delay_seconds_max=0.1,
            call_seconds_max=patience,
            stream_seconds_max=patience,
        )
        return Client(self.server.address, api_key="", retry=retry, timeout=timeout)

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
        await asyncio.to_thread(self.world.close)
        self._port.close()


async def make_agents(client: Client) -> None:
    """Agents that play the script of a thread's input."""
    agents: dict[str, dict[str, Any]] = {
        AGENT: {},
        STRICT_AGENT: {"on_unknown_outcome": Agent.FAIL},
        GOOGLE_AGENT: {"model": "google:gemini-2.5-flash"},
        GATED_AGENT: {
            "approval_policy": ApprovalPolicy(rules=[ApprovalRule(tool_pattern="pay", approvers_needed=1)])
        },
        CHILD_AGENT: {"input_schema_json": '{"type":"object"}'},
        BOSS_AGENT: {"subagents": [f"agents/{CHILD_AGENT}"]},
    }
    for name, fields in agents.items():
        common: dict[str, Any] = {
            "model": "scripted:",
            "tool_groups": [GROUP, "toolGroups/builtin"],
            "on_unknown_outcome": Agent.TELL_MODEL,
        }
        await client.create_agent(name, **(common | fields))
