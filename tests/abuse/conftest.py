"""A server process under abuse, and what must hold of it before and after each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abuse.guard import Guard
from tests.server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("abuse") / "treadle.db") as process:
        yield process.start()


@pytest.fixture
def guard(server: ServerProcess) -> Iterator[Guard]:
    """The server, which after the test must serve as before and hold no more than before."""
    with Guard(server) as made:
        yield made


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "treadle.db"
