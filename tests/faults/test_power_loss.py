"""Power that fails at any point of a server's work: nothing acknowledged is lost on a disk that syncs."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.scripts import script
from tests.faults.shim.claims import Claims
from tests.faults.shim.place import AGENT, Place, make_agent, paths
from tests.faults.shim.power_loss import Loss, Model, losses
from tests.faults.shim.rebuilt import problems_of, write_files
from tests.faults.shim.rules import Action, FaultyDisk, File, Operation, Rule
from tests.faults.shim.trace import Record, read_trace
from treadle import Client, Thread

TURNS = (("look", "save"), ("send",), ("save", "look"))
THREADS = 12
"""Of one life of the server; every third is cancelled."""
SEED = 1


@dataclass(slots=True)
class Work:
    """A trace of a server's work, and what its clients were told."""

    records: list[Record]
    claims: Claims


@dataclass(slots=True)
class Findings:
    """What was found at points of a trace."""

    losses: Counter[Model] = field(default_factory=Counter)
    wrong: dict[Model, list[str]] = field(default_factory=lambda: {model: [] for model in Model})

    def add(self, loss: Loss, problems: list[str]) -> None:
        self.losses[loss.model] += 1
        if problems:
            self.wrong[loss.model].append(f"at {loss.place}: {'; '.join(problems[:3])}")

    def __str__(self) -> str:
        lines = []
        for model in Model:
            wrong = self.wrong[model]
            lines.append(f"{model.value}: {len(wrong)} of {self.losses[model]} lose something")
            lines += [f"    {line}" for line in wrong[:3]]
        return "\n".join(lines)


End = Callable[[Place], Awaitable[object]]


async def killed(place: Place) -> None:
    await place.kill()


async def stopped(place: Place) -> None:
    assert await place.stop() == 0


async def work(folder: Path, shims: Path, ends: tuple[End, ...], lies: bool = False, **settings: str) -> Work:
    """A server's lives on one new file, each with threads of its own."""
    database, marks = paths(folder / "place")
    with FaultyDisk(folder, shims, database, marks=marks) as disk:
        claims = Claims(disk)
        async with Place(folder / "place", {**disk.environment, **settings}) as place:
            if lies:
                disk.set(Rule(Action.LIE, (Operation.SYNC,), (File.MAIN, File.LOG), count=0))
            for number, end in enumerate(ends):
                await place.start()
                await _live(place, claims, number)
                await end(place)
        records = list(read_trace(disk.trace_path))
        claims.calls(records)
    return Work(records, claims)


async def _live(place: Place, claims: Claims, life: int) -> None:
    """Everything has ended when it returns, except the last threads, which no watcher waits for."""
    async with place.client() as client:
        if life == 0:
            claims.agent((await make_agent(client)).name)
        names = [f"life{life}-{number}" for number in range(THREADS)]
        await asyncio.gather(*(_follow(client, claims, name, number) for number, name in enumerate(names)))
        await asyncio.gather(*(_create(client, claims, f"{name}-open") for name in names[:4]))


async def _create(client: Client, claims: Claims, name: str, gate: str = "") -> None:
    request_id = f"request-{name}"
    body = script(name, TURNS, delay_ms=3, more={"send": {"gate": gate}} if gate else None)
    made = await client.create_thread(AGENT, data=body, thread_id=name, request_id=request_id)
    claims.thread(made, request_id)


async def _follow(client: Client, claims: Claims, name: str, number: int) -> None:
    to_cancel = number % 3 == 0
    await _create(client, claims, name, "closed" if to_cancel else "")
    async for event in client.watch(name):
        claims.event(event)
        if to_cancel and event.tool_call_requested.tool == "send":
            claims.thread(await client.cancel_thread(name))


async def examine(work: Work, folder: Path, *, points: int) -> Findings:
    """Loses power behind so many records, under each model, and opens what is left."""
    numbers = random.Random(SEED).sample(range(len(work.records)), min(points, len(work.records)))
    findings, database = Findings(), folder / "treadle.db"
    for loss in losses(work.records, numbers, files={}, seed=SEED):
        write_files(database, loss.files)
        findings.add(loss, await problems_of(database, work.claims.told(loss.place)))
    return findings


LIVES: tuple[End, ...] = (killed, stopped, killed)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("points", [60, pytest.param(1000, marks=pytest.mark.soak)])
async def test_nothing_acknowledged_is_lost_when_power_fails_at_any_point(
    tmp_path: Path, shims: Path, points: int
) -> None:
    done = await work(tmp_path / "work", shims, LIVES)
    assert len(done.claims) > 3 * THREADS * 20

    findings = await examine(done, tmp_path / "rebuilt", points=points)

    print(findings)
    assert set(findings.losses.values()) == {points}
    assert not any(findings.wrong.values()), str(findings)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("points", [15, pytest.param(250, marks=pytest.mark.soak)])
async def test_the_replay_sees_what_a_relaxed_server_loses(tmp_path: Path, shims: Path, points: int) -> None:
    done = await work(tmp_path / "work", shims, (killed,), TREADLE_DURABILITY="relaxed")

    findings = await examine(done, tmp_path / "rebuilt", points=points)

    print(findings)
    assert findings.wrong[Model.SYNCED], str(findings)
    assert not findings.wrong[Model.ALL], str(findings)
    refused = [line for lines in findings.wrong.values() for line in lines if "does not open" in line]
    assert not refused, "it promises an older state, and not a file that nobody opens"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("points", [15, pytest.param(250, marks=pytest.mark.soak)])
async def test_the_replay_sees_what_a_disk_that_lies_about_syncs_loses(
    tmp_path: Path, shims: Path, points: int
) -> None:
    done = await work(tmp_path / "work", shims, (killed,), lies=True)

    findings = await examine(done, tmp_path / "rebuilt", points=points)

    print(findings)
    assert findings.wrong[Model.SYNCED], str(findings)
    assert not findings.wrong[Model.ALL], str(findings)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("points", [2, pytest.param(40, marks=pytest.mark.soak)])
async def test_a_server_takes_up_what_a_power_loss_left_and_ends_every_thread(
    tmp_path: Path, shims: Path, points: int
) -> None:
    done = await work(tmp_path / "work", shims, (killed,))
    last = len(done.records)
    numbers = random.Random(SEED).sample(range(last // 2, last), points)

    for count, loss in enumerate(losses(done.records, numbers, files={}, seed=SEED)):
        folder = tmp_path / f"place-{count}"
        async with Place(folder, {}) as place:
            write_files(place.db, loss.files)
            place.open_gate("closed")
            await place.start()
            async with place.client() as client:
                for name in {thread for thread, _ in done.claims.told(loss.place).events}:
                    async for _ in client.watch(name):
                        pass
                    assert (await client.get_thread(name)).state in (Thread.COMPLETED, Thread.CANCELLED)
            assert await place.stop() == 0
