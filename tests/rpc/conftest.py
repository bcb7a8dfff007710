"""Fixtures of the RPC tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rpc.rig import Rig, running


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A server without keys: every caller is the admin of tenant `default`."""
    async with running(tmp_path / "treadle.db") as found:
        yield found
