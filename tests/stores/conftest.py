"""A store in a file of its own, closed after the test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stores.kit import HandClock, Opened, Opens, open_store


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.db"


@pytest.fixture
async def opens(clock: HandClock) -> AsyncIterator[Opens]:
    """Opens a store whenever it is called, and closes all of them at the end."""
    all_opened: list[Opened] = []

    async def open_one(path: Path, *, take_over: bool = False) -> Opened:
        all_opened.append(await open_store(path, clock=clock, take_over=take_over))
        return all_opened[-1]

    yield open_one
    for opened in all_opened:
        await opened.store.close()


@pytest.fixture
async def opened(opens: Opens, path: Path) -> Opened:
    """The store and what it reported as fatal."""
    return await opens(path)
