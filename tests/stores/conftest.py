"""A store in a file of its own, closed after the test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stores.kit import HandClock, Opened, open_store


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.db"


@pytest.fixture
async def opened(path: Path, clock: HandClock) -> AsyncIterator[Opened]:
    """The store and what it reported as fatal."""
    opened = await open_store(path, clock=clock)
    yield opened
    await opened.store.close()
