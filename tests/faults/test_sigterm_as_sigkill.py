"""However a server is ended, and however often: the same threads come to the same results."""

import asyncio
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.normal_form import normal_form
from tests.faults.scripts import Script, script
from tests.faults.site import AGENT, PATIENCE_SECONDS, Site
from tests.faults.store_figures import event_count
from tests.waiting import eventually
from treadle import Client, Thread, ThreadEvent

THREADS = 12
TURNS = (("look", "save"), ("save",), ("save", "look"), ("look",), ("save", "save"))
DELAYS_MS = (40, 10, 90, 60, 20, 0)
"""Of the model's turns. Tools take some time, too: something is always in flight."""
EXIT_CODES = {signal.SIGTERM: 0, signal.SIGKILL: -9}


def body(number: int) -> Script:
    played = script(
        f"t{number}", TURNS, more={tool: {"delay_ms": 10 * (number % 3)} for tool in ("look", "save")}
    )
    for turn, delay in zip(played["turns"], DELAYS_MS, strict=True):
        turn["delay_ms"] = delay + 5 * number
    return played


async def run(folder: Path, prepared: Path, how: signal.Signals | None, ends: int) -> History:
    """The workload on a server that is ended so often, each time after as many events more."""
    async with Site(folder, prepared=prepared) as site:
        await site.start()
        async with site.client() as client:
            acknowledged = list(await asyncio.gather(*(create(client, number) for number in range(THREADS))))
            for place in range(ends):
                goal = event_count(site.db) + 7 + place % 5
                await eventually(partial(_has_events, site.db, goal), seconds=PATIENCE_SECONDS)
                assert how is not None
                site.server.signal(how)
                assert await site.ended() == EXIT_CODES[how]
                await site.start()
            for each in acknowledged:
                async for _ in client.watch(each.thread):
                    pass
            history = await History(acknowledged, ledger=site.ledger.all()).read(client)
    check(history)
    assert {thread.state for thread in history.threads.values()} == {Thread.COMPLETED}
    return history


def _has_events(db: Path, goal: int) -> bool:
    return event_count(db) >= goal


async def create(client: Client, number: int) -> Acknowledged:
    name = f"t{number}"
    made = await client.create_thread(AGENT, data=body(number), thread_id=name, request_id=name)
    return Acknowledged(name, made.name)


def results(history: History) -> dict[str, list[str]]:
    return {name: normal_form(log) for name, log in history.logs.items()}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ends", [8, pytest.param(40, marks=pytest.mark.soak)])
async def test_the_results_are_those_of_a_run_that_nothing_interrupted(
    tmp_path: Path, prepared: Path, ends: int
) -> None:
    whole, terminated, killed = await asyncio.gather(
        run(tmp_path / "whole", prepared, None, 0),
        run(tmp_path / "terminated", prepared, signal.SIGTERM, ends),
        run(tmp_path / "killed", prepared, signal.SIGKILL, ends),
    )

    assert results(terminated) == results(whole)
    assert results(killed) == results(whole)
    for interrupted in (terminated, killed):
        recovered = [name for name, log in interrupted.logs.items() if _recovered(log)]
        assert len(recovered) > THREADS / 2


def _recovered(log: list[ThreadEvent]) -> bool:
    return any(event.HasField("execution_recovered") for event in log)
