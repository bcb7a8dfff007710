"""A real server process per test, and clients of it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess
from treadle import Client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "treadle.db") as process:
        yield process.start()


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    async with Client(server.address) as connected:
        yield connected
