"""Every test here has a loop whose time can be put forward, and leaves no exception that nobody took."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.engine.handloop import HandLoop
from tests.engine.house import House, open_house


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"hand": HandLoop}


@pytest.fixture(autouse=True)
async def nothing_unnoticed() -> AsyncIterator[None]:
    """Fails a test that left an exception in a task, or one in a callback."""
    noticed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noticed.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert noticed == []


OpenHouse = Callable[..., Awaitable[House]]


@pytest.fixture
async def build(tmp_path: Path, nothing_unnoticed: None) -> AsyncIterator[OpenHouse]:
    """Opens houses on one file, one after another; what is still open is closed."""
    houses: list[House] = []

    async def build(**options: Any) -> House:
        houses.append(await open_house(tmp_path / "t.db", **options))
        return houses[-1]

    yield build
    for house in houses:
        await house.close()


@pytest.fixture
async def house(build: OpenHouse) -> House:
    return await build()
