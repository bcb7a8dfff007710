"""SIGTERM in the middle of many threads: nothing is lost, nothing ends, the next server goes on."""

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.scripts import script
from tests.faults.site import AGENT, Site
from tests.faults.watching import Seen, watch, watching
from tests.waiting import eventually
from treadle import Action, Client, Thread, Unavailable
from treadle.errors import error_of

THREADS = 200
SOAK_THREADS = 1000
SENDERS_EVERY = 4
"""So many threads have one that is in a call that must not be repeated."""
WATCHERS = 20
EXECUTORS = 10
DRAIN_SECONDS = 2.0
STOP_SECONDS = 2.0 + 6.0
"""What closing may take beyond it, and what a busy machine may add."""


def _site(folder: Path, prepared: Path, drain_seconds: float) -> Site:
    settings = {"DRAIN_SECONDS": drain_seconds, "TENANT_RUNNING_THREADS_MAX": SOAK_THREADS}
    return Site(folder, prepared=prepared, **{f"TREADLE_{name}": str(it) for name, it in settings.items()})


@pytest.mark.timeout(600)
@pytest.mark.parametrize("threads", [THREADS, pytest.param(SOAK_THREADS, marks=pytest.mark.soak)])
async def test_sigterm_with_many_threads_in_flight_loses_and_ends_nothing(
    tmp_path: Path, prepared: Path, threads: int
) -> None:
    async with _site(tmp_path / "site", prepared, 60) as site:
        await site.start()
        async with site.client() as client, site.channel() as channel:
            acknowledged = list(await asyncio.gather(*(_create(client, number) for number in range(threads))))
            executors = [asyncio.create_task(_execute(client, number)) for number in range(EXECUTORS)]
            await eventually(lambda: len(site.ledger.lines()) == threads)
            seen = [Seen(f"watcher {number}", acknowledged[number * 10].thread) for number in range(WATCHERS)]
            endings = [asyncio.create_task(_ending(channel, each)) for each in seen]
            await eventually(lambda: all(each.last for each in seen))

            site.server.signal(signal.SIGTERM)
            for ending in asyncio.as_completed(endings):
                _check_draining(await ending)
            site.open_gate("send")

            assert await site.ended() == 0
            await site.start()
            states = Counter([thread.state async for thread in client.list_threads(page_size=1000)])
            assert states == {Thread.RUNNING: threads}
            await eventually(lambda: len(site.ledger.lines()) == 2 * threads)
            site.open_gate("save")

            await asyncio.gather(*(watch(each, watching(channel, each.thread)) for each in seen))
            for each in acknowledged:
                async for _ in client.watch(each.thread):
                    pass
            names = await asyncio.gather(*executors)
            assert names == [each.thread for each in acknowledged[:EXECUTORS]]
            history = await History(acknowledged, seen, ledger=site.ledger.all()).read(client)

    check(history)
    assert {thread.state for thread in history.threads.values()} == {Thread.COMPLETED}
    calls, senders = Counter((line.tool, line.attempt) for line in history.effects), threads // SENDERS_EVERY
    assert calls == {("send", 1): senders, ("save", 1): threads, ("save", 2): threads - senders}
    statuses = {
        event.tool_call_completed.status
        for log in history.logs.values()
        for event in log
        if event.HasField("tool_call_completed")
    }
    assert statuses == {Action.SUCCEEDED}


@pytest.mark.timeout(240)
async def test_calls_that_do_not_end_are_waited_for_no_longer_than_the_drain_time(
    tmp_path: Path, prepared: Path
) -> None:
    async with _site(tmp_path / "site", prepared, DRAIN_SECONDS) as site:
        await site.start()
        async with site.client() as client:
            acknowledged = list(await asyncio.gather(*(_create(client, number) for number in range(THREADS))))
            await eventually(lambda: len(site.ledger.lines()) == THREADS)
            began = time.monotonic()
            site.server.signal(signal.SIGTERM)

            assert await site.ended() == 0

            assert DRAIN_SECONDS <= time.monotonic() - began < DRAIN_SECONDS + STOP_SECONDS
            site.open_gate("send")
            site.open_gate("save")
            await site.start()
            for each in acknowledged:
                async for _ in client.watch(each.thread):
                    pass
            history = await History(acknowledged, ledger=site.ledger.all()).read(client)

    check(history)
    assert {thread.state for thread in history.threads.values()} == {Thread.COMPLETED}
    calls, senders = Counter((line.tool, line.attempt) for line in history.effects), THREADS // SENDERS_EVERY
    assert calls == {("send", 1): senders, ("save", 1): THREADS, ("save", 2): THREADS - senders}
    unknown = [action for thread in history.threads.values() for action in _unknown(thread)]
    assert len(unknown) == senders


def _unknown(thread: Thread) -> list[Action]:
    actions = [action for iteration in thread.iterations for action in iteration.actions]
    return [action for action in actions if action.status == Action.UNKNOWN]


def _fields(number: int) -> dict[str, object]:
    turns = [["send"], ["save"]] if number % SENDERS_EVERY == 0 else [["save"]]
    body = script(f"t{number}", turns, more={tool: {"gate": tool} for tool in ("send", "save")})
    return {"data": body, "request_id": f"request-{number}", "thread_id": f"t{number}"}


async def _create(client: Client, number: int) -> Acknowledged:
    made = await client.create_thread(AGENT, **_fields(number))  # type: ignore[arg-type]
    return Acknowledged(f"request-{number}", made.name)


async def _execute(client: Client, number: int) -> str:
    """Waits for the end of a thread that was made before, over the restart."""
    return (await client.execute(AGENT, **_fields(number))).name  # type: ignore[arg-type]


async def _ending(channel: grpc.aio.Channel, seen: Seen) -> grpc.aio.AioRpcError:
    """What a stream ends with, whose thread does not end."""
    call = watching(channel, seen.thread)(0)
    seen.connections += 1
    try:
        async for response in call:
            seen.events += [event for event in response.events if event.sequence]
    except grpc.aio.AioRpcError as failure:
        return failure
    raise AssertionError(f"the stream of {seen.thread} ended with OK")


def _check_draining(failure: grpc.aio.AioRpcError) -> None:
    error = error_of(failure)
    assert isinstance(error, Unavailable)
    assert error.reason == "DRAINING"
    assert error.retry_after is not None
    assert error.retry_after > 0
