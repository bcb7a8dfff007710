"""Fixtures: a server to play with, and both clients under one handle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.client.server import Server
from treadle import Client, Retry, SyncClient

QUICK = Retry(first_delay_seconds=0.005, delay_seconds_max=0.05, call_seconds_max=5, stream_seconds_max=5)


class Handle:
    """Either client, called from a coroutine: `answer` makes a call, `items` drains an iterator."""

    def __init__(self, client: Client | SyncClient) -> None:
        self._client = client

    async def answer(self, method: str, *args: Any, **kwargs: Any) -> Any:
        call = getattr(self._client, method)
        if isinstance(self._client, SyncClient):
            return await asyncio.to_thread(call, *args, **kwargs)
        return await call(*args, **kwargs)

    async def items(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        given = getattr(self._client, method)(*args, **kwargs)
        if isinstance(self._client, SyncClient):
            return await asyncio.to_thread(list, given)
        return [item async for item in given]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as running:
        yield running


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.address, api_key="", retry=QUICK) as made:
        yield made


@pytest_asyncio.fixture(params=["asyncio", "blocking"])
async def handle(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Handle]:
    if request.param == "asyncio":
        async with Client(server.address, api_key="key", tenant="acme", retry=QUICK) as made:
            yield Handle(made)
    else:
        with SyncClient(server.address, api_key="key", tenant="acme", retry=QUICK) as blocking:
            yield Handle(blocking)
