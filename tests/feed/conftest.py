"""The same loop, checks and houses as the engine's tests."""

from tests.engine.conftest import build, house, nothing_unnoticed, pytest_asyncio_loop_factories

__all__ = ["build", "house", "nothing_unnoticed", "pytest_asyncio_loop_factories"]
