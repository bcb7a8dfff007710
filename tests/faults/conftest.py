"""Fixtures: a database file with agents, made once and copied for every server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.shim.build import compile_libraries
from tests.faults.site import Site, make_agents


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(_prepare(tmp_path_factory.mktemp("prepared") / "site"))


async def _prepare(folder: Path) -> Path:
    async with Site(folder) as site:
        await site.start()
        async with site.client() as client:
            await make_agents(client)
        assert await asyncio.to_thread(site.server.terminate) == 0
        return site.db


@pytest_asyncio.fixture
async def site(tmp_path: Path, prepared: Path) -> AsyncIterator[Site]:
    """A place whose server has the agents and is not started yet."""
    async with Site(tmp_path / "site", prepared=prepared) as made:
        yield made


@pytest.fixture(scope="session")
def shims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the libraries that stand between a server and its disk or its clock."""
    return compile_libraries(tmp_path_factory.mktemp("shims"))
