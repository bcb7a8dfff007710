"""A server process whose disk or clock is in a test's hands: its file, its marks and its gates."""

import asyncio
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.shim.server import GROUP, MARKS_VARIABLE
from tests.server_process import ServerProcess
from treadle import Agent, Client, Retry

AGENT = "worker"
PATIENCE_SECONDS = 60.0
RETRY = Retry(first_delay_seconds=0.02, delay_seconds_max=0.1, call_seconds_max=60.0, stream_seconds_max=60.0)
_ENDED = re.compile(r"the server ended with (-?\d+)")
NO_RETRY = Retry(call_seconds_max=0, stream_seconds_max=0)


class Place:
    """One place of work. Its server can be ended and started again; everything else stays."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, prepared: Path | None = None) -> None:
        """`prepared` is the file of a stopped server that has the agent already."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.db, self.marks_path = paths(folder)
        if prepared is not None:
            shutil.copyfile(prepared, self.db)
        self.server = ServerProcess(
            self.db,
            environment={MARKS_VARIABLE: str(self.marks_path), **environment},
            module="tests.faults.shim.server",
        )

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def try_start(self) -> tuple[int | None, str]:
        """The exit code of a server that does not come to serve, with all that it said."""
        begin = self.server.log_path.stat().st_size if self.server.log_path.exists() else 0
        try:
            await self.start()
        except AssertionError as error:  # how `start` says it
            text = str(error)
        else:
            return None, ""
        match = _ENDED.search(text)
        assert match is not None, text
        with self.server.log_path.open() as log:
            log.seek(begin)
            return int(match.group(1)), log.read()

    async def kill(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def ended(self) -> int:
        """Waits for the server to end by itself; returns its exit code."""
        return await asyncio.to_thread(self.server.wait)

    async def stop(self) -> int:
        return await asyncio.to_thread(self.server.terminate)

    def open_gate(self, name: str) -> None:
        (self._folder / name).touch()

    def marks(self) -> list[dict[str, str]]:
        """What tools did, in order."""
        if not self.marks_path.exists():
            return []
        return [json.loads(line) for line in self.marks_path.read_text().splitlines()]

    def client(self, *, retry: Retry = RETRY) -> Client:
        return Client(self.server.address, api_key="", retry=retry, timeout=PATIENCE_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.server.close)


def paths(folder: Path) -> tuple[Path, Path]:
    """Database and marks of the place in a folder."""
    return folder / "treadle.db", folder / "marks"


async def make_agent(client: Client) -> Agent:
    return await client.create_agent(
        AGENT,
        model="scripted:",
        tool_groups=[GROUP, "toolGroups/builtin"],
        on_unknown_outcome=Agent.TELL_MODEL,
    )


async def prepare(folder: Path) -> Path:
    """A file with the agent, of a server that was stopped."""
    async with Place(folder, {}) as place:
        await place.start()
        async with place.client() as client:
            await make_agent(client)
        assert await place.stop() == 0
        return place.db
