"""How a client's calls are spread over connections, and that a closed client makes none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.client.conftest import QUICK
from tests.client.server import Server, answers, hangs
from treadle import Client, SyncClient
from treadle.channels import STREAMS_PER_CHANNEL, Channels
from treadle.v1.server_info_pb2 import ServerInfo

STREAMS_MAX = STREAMS_PER_CHANNEL + 10
"""Calls that the server lets through on one connection."""
WAITING = STREAMS_MAX + 40


class Made:
    """Makes numbers, which stand for channels."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.count


def test_streams_beyond_the_first_channels_share_get_another_and_give_their_place_back() -> None:
    made = Made()
    channels = Channels(made)
    with ExitStack() as stack:
        taken = [stack.enter_context(channels.for_stream()) for _ in range(2 * STREAMS_PER_CHANNEL)]
        with channels.for_call() as first:
            assert first == 1

    assert taken == [1] * STREAMS_PER_CHANNEL + [2] * STREAMS_PER_CHANNEL
    with channels.for_stream() as again:
        assert again == 1
    assert made.count == 2


def test_streams_of_many_threads_are_counted_right() -> None:
    channels = Channels(Made())

    def come_and_go(_: int) -> None:
        for _ in range(200):
            with channels.for_stream():
                pass

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(come_and_go, range(8)))

    with ExitStack() as stack:
        taken = [stack.enter_context(channels.for_stream()) for _ in range(STREAMS_PER_CHANNEL + 1)]
    assert taken == [1] * STREAMS_PER_CHANNEL + [2]


def test_a_stream_may_end_while_a_channel_is_made() -> None:
    """As when the collector, which runs wherever something is allocated, finds an abandoned iterator."""
    abandoned: list[Iterator[int]] = []
    numbers = iter((1, 2))

    def make() -> int:
        if channels_made:
            abandoned.clear()
        channels_made.append(next(numbers))
        return channels_made[-1]

    def watch() -> Iterator[int]:
        with channels.for_stream() as channel:
            yield channel

    def fill() -> None:
        with ExitStack() as stack:
            taken.extend(stack.enter_context(channels.for_stream()) for _ in range(STREAMS_PER_CHANNEL + 1))

    channels_made: list[int] = []
    taken: list[int] = []
    channels = Channels(make)
    abandoned.append(watch())
    next(abandoned[0])
    filling = threading.Thread(target=fill, daemon=True)
    filling.start()
    filling.join(10)

    assert not filling.is_alive(), "it waits for itself"
    assert taken == [1] * (STREAMS_PER_CHANNEL - 1) + [2, 1]


def test_closed_channels_are_given_out_no_more() -> None:
    made = Made()
    channels = Channels(made)
    with channels.for_call():
        pass

    assert not channels.closed
    assert channels.close() == (1,)
    for take in (channels.for_call, channels.for_stream):
        with pytest.raises(RuntimeError, match="closed"), take():
            pass
    assert (channels.closed, made.count) == (True, 1)


async def test_calls_that_wait_leave_room_for_others() -> None:
    async with Server(connection_streams_max=STREAMS_MAX) as server:
        server.play(*[hangs()] * WAITING, answers(ServerInfo(version="1")))
        async with Client(server.address, api_key="", timeout=10) as client, asyncio.TaskGroup() as group:
            waiting = [group.create_task(client.execute("a", "x")) for _ in range(WAITING - 1)]
            waiting.append(group.create_task(client.create_backup()))
            await server.arrived(WAITING)

            assert (await client.get_server_info()).version == "1"
            for task in waiting:
                task.cancel()


async def test_calls_that_block_leave_room_for_others() -> None:
    async with Server(connection_streams_max=STREAMS_MAX) as server:
        server.play(*[hangs()] * WAITING, answers(ServerInfo(version="1")))
        with ThreadPoolExecutor(WAITING) as threads:
            with SyncClient(server.address, api_key="", timeout=10) as client:
                waiting = [threads.submit(client.execute, "a", "x") for _ in range(WAITING)]
                await server.arrived(WAITING)

                assert (await asyncio.to_thread(client.get_server_info)).version == "1"
            assert all(call.exception(10) for call in waiting)


async def test_a_closed_client_makes_no_calls() -> None:
    async with Server() as server:
        server.play(answers(ServerInfo()))
        for used in (False, True):
            client = Client(server.address, api_key="", retry=QUICK)
            if used:
                await client.get_server_info()
            await client.close()
            with pytest.raises(RuntimeError, match="closed"):
                await client.get_server_info()
            with pytest.raises(RuntimeError, match="closed"):
                [event async for event in client.watch("t")]

        assert len(server.asked) == 1


async def test_a_closed_blocking_client_makes_no_calls() -> None:
    async with Server() as server:
        server.play(answers(ServerInfo()))
        for used in (False, True):
            client = SyncClient(server.address, api_key="", retry=QUICK)
            if used:
                await asyncio.to_thread(client.get_server_info)
            client.close()
            with pytest.raises(RuntimeError, match="closed"):
                client.get_server_info()
            with pytest.raises(RuntimeError, match="closed"):
                list(client.watch("t"))

        assert len(server.asked) == 1
