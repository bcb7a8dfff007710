"""Every storage operation of a server fails once, in every way; a full disk; a disk that is only slow."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.scripts import script
from tests.faults.shim.claims import Claims
from tests.faults.shim.place import AGENT, NO_RETRY, Place, make_agent, paths, prepare
from tests.faults.shim.power_loss import Disk, Files, Model
from tests.faults.shim.rebuilt import problems_of, read_files, write_files
from tests.faults.shim.rules import STORED, Action, FaultyDisk, File, Operation, Rule
from tests.faults.shim.scenario import Report, play, problems, read, unfinished
from tests.faults.shim.trace import read_trace
from tests.waiting import eventually
from treadle import Action as ToolAction
from treadle import Client, ResourceExhausted, Thread, ThreadEvent

EXIT_UNUSABLE, EXIT_IO_ERROR = 1, 74
SEED = 1
LEFT = ("left-1", "left-2", "left-3")
BRIEF = {"TREADLE_DRAIN_SECONDS": "1"}
AT_ONCE = 3
"""Servers that run side by side."""
SLOW_MILLISECONDS = 50
HARMLESS = frozenset({Action.NO_SPACE, Action.SHORT, Action.SLOW})
"""The server goes on: what found no room waits or is refused, and SQLite writes the rest of a short write."""
FAULTS = (
    (Operation.WRITE, Action.NO_SPACE),
    (Operation.WRITE, Action.IO_ERROR),
    (Operation.WRITE, Action.SHORT),
    (Operation.WRITE, Action.TORN),
    (Operation.SYNC, Action.IO_ERROR),
    (Operation.SYNC, Action.SLOW),
    (Operation.READ, Action.IO_ERROR),
    (Operation.TRUNCATE, Action.IO_ERROR),
    (Operation.OPEN, Action.IO_ERROR),
    (Operation.UNLINK, Action.IO_ERROR),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """The Nth operation of a kind fails."""

    operation: Operation
    action: Action
    number: int

    def __str__(self) -> str:
        return f"{self.operation.name} {self.number}: {self.action.name}"

    @property
    def rule(self) -> Rule:
        files = (*STORED, File.FOLDER) if self.operation is Operation.SYNC else STORED
        return Rule(self.action, (self.operation,), files, first=self.number, milliseconds=SLOW_MILLISECONDS)


@pytest.fixture(scope="session")
def with_agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(prepare(tmp_path_factory.mktemp("with-agent") / "place"))


@pytest.fixture(scope="session")
def left_by_a_kill(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Files with threads that had just begun; most of it is in the log."""
    return asyncio.run(leave_threads(tmp_path_factory.mktemp("left") / "place"))


async def leave_threads(folder: Path) -> Files:
    async with Place(folder, {}) as place:
        await place.start()
        async with place.client() as client:
            await make_agent(client)
            for name in LEFT:
                body = script(name, [["look"]])
                await client.create_thread(AGENT, data=body, thread_id=name, request_id=name)
        await place.kill()
        return read_files(place.db)


def chosen(counts: dict[Operation, int], each: int | None) -> list[Fault]:
    """Of every kind of fault so many, spread over the run; all when there is no number."""
    chance, faults = random.Random(SEED), []
    for operation, action in FAULTS:
        numbers = range(1, counts[operation] + 1)
        some = numbers if each is None else chance.sample(numbers, min(each, len(numbers)))
        faults += [Fault(operation, action, number) for number in some]
    return faults


async def at_once(work: Callable[[int, Fault], Awaitable[list[str]]], faults: list[Fault]) -> list[str]:
    """Runs the work for all faults, a few at a time; everything that was wrong with any."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, fault: Fault) -> list[str]:
        async with slots:
            try:
                return await work(number, fault)
            except Exception as error:  # the others are to be seen too
                return [f"{type(error).__name__}: {error}"]

    found = await asyncio.gather(*(one(number, fault) for number, fault in enumerate(faults)))
    return [f"{fault}: {line}" for fault, lines in zip(faults, found, strict=True) for line in lines]


async def run(
    folder: Path, shims: Path, prepared: Path, fault: Fault | None = None
) -> tuple[Report, dict[Operation, int]]:
    """Plays the scenario with a fault; also how many operations there were from its start to the end."""
    database, _ = paths(folder / "place")
    report = Report()
    with FaultyDisk(folder, shims, database) as disk:
        async with Place(folder / "place", disk.environment, prepared=prepared) as place:
            await place.start()
            before = counts(disk)
            if fault is not None:
                disk.set(fault.rule)
            await play(place, report)
            report.stop_code = await place.stop()
            report.hits = disk.hits()
            after = counts(disk)
            if report.damages:
                await place.start()
                async with place.client() as client:
                    await read(client, report)
    return report, {operation: after[operation] - before[operation] for operation in Operation}


def counts(disk: FaultyDisk) -> dict[Operation, int]:
    files = {Operation.SYNC: (*STORED, File.FOLDER)}
    return {operation: disk.count(operation, files.get(operation, STORED)) for operation in Operation}


def wrong(fault: Fault, report: Report) -> list[str]:
    """Everything that must not be, after one fault."""
    found = [*problems(report), *unfinished(report)]
    ends = [*report.exit_codes, report.stop_code] if report.stop_code else report.exit_codes
    allowed = [] if fault.action in HARMLESS else [[EXIT_IO_ERROR]]
    if ends not in ([], *allowed):
        found.append(f"the server ended with {ends}")
    if "Traceback" in report.server_log:
        found.append(f"a traceback in the server's log: {report.server_log[-3000:]}")
    return found


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("each", [1, pytest.param(None, marks=pytest.mark.soak)])
async def test_any_operation_that_fails_once_loses_nothing_and_no_call_at_most_once_is_repeated(
    tmp_path: Path, shims: Path, with_agent: Path, each: int | None
) -> None:
    whole, totals = await run(tmp_path / "whole", shims, with_agent)
    assert [*problems(whole), *unfinished(whole)] == []
    assert (whole.exit_codes, whole.stop_code) == ([], 0)
    outcomes: Counter[str] = Counter()

    async def one(number: int, fault: Fault) -> list[str]:
        report, _ = await run(tmp_path / str(number), shims, with_agent, fault)
        ends = f"{[*report.exit_codes, report.stop_code]}{' DATA_LOSS' if report.damages else ''}"
        ends = ends if report.hits else "not reached"
        outcomes[f"{fault.operation.name} {fault.action.name} -> {ends}"] += 1
        return wrong(fault, report)

    found = await at_once(one, chosen(totals, each))

    print({operation.name: total for operation, total in totals.items()})
    print("\n".join(f"{outcome}: {count}" for outcome, count in sorted(outcomes.items())))
    assert not found, "\n".join(found[:40])
    reached = sum(count for outcome, count in outcomes.items() if "not reached" not in outcome)
    assert reached > outcomes.total() * 0.7
    assert any(f"[{EXIT_IO_ERROR}" in outcome for outcome in outcomes)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("new", [True, False], ids=["new file", "file of a killed server"])
@pytest.mark.parametrize("each", [1, pytest.param(None, marks=pytest.mark.soak)])
async def test_a_server_that_cannot_start_for_its_disk_says_why_and_harms_nothing(
    tmp_path: Path, shims: Path, left_by_a_kill: Files, new: bool, each: int | None
) -> None:
    before: Files = {} if new else left_by_a_kill
    totals = await start_once(tmp_path / "whole", shims, before)
    outcomes: Counter[str] = Counter()

    async def one(number: int, fault: Fault) -> list[str]:
        outcome, lines = await start_failing(tmp_path / str(number), shims, before, fault)
        outcomes[f"{fault.operation.name} {fault.action.name} -> {outcome}"] += 1
        return lines

    found = await at_once(one, chosen(totals, each))

    print("\n".join(f"{outcome}: {count}" for outcome, count in sorted(outcomes.items())))
    assert not found, "\n".join(found[:40])
    assert any(f"-> {EXIT_UNUSABLE}" in outcome for outcome in outcomes)


@pytest.mark.parametrize("number", [5, 6])
async def test_a_server_whose_readers_cannot_open_the_file_says_so_and_ends(
    tmp_path: Path, shims: Path, with_agent: Path, number: int
) -> None:
    database, _ = paths(tmp_path / "place")
    with FaultyDisk(tmp_path, shims, database) as disk:
        async with Place(tmp_path / "place", disk.environment, prepared=with_agent) as place:
            disk.set(Rule(Action.IO_ERROR, (Operation.OPEN,), (File.MAIN,), first=number))

            code, said = await place.try_start()

            assert code == EXIT_UNUSABLE
            assert said == f"treadle serve: {database} cannot be read: unable to open database file\n"


async def start_once(folder: Path, shims: Path, files: Files) -> dict[Operation, int]:
    """How many operations a start takes."""
    database, _ = paths(folder / "place")
    with FaultyDisk(folder, shims, database) as disk:
        async with Place(folder / "place", disk.environment) as place:
            write_files(database, files)
            await place.start()
            return counts(disk)


async def start_failing(folder: Path, shims: Path, files: Files, fault: Fault) -> tuple[str, list[str]]:
    """Starts twice, first with the fault; what came of it, and what was wrong."""
    database, _ = paths(folder / "place")
    with FaultyDisk(folder, shims, database) as disk:
        async with Place(folder / "place", disk.environment) as place:
            write_files(database, files)
            disk.set(fault.rule)
            code, said = await place.try_start()
            disk.lift()
            found = []
            if code is None:
                await place.kill()
            elif code not in (EXIT_UNUSABLE, EXIT_IO_ERROR) or "Traceback" in said or not said:
                found.append(f"the start ended with {code}: {said[-2000:]}")
            await place.start()
            async with place.client() as client:
                found += [line async for line in not_as_before(client, files)]
            outcome = f"{code}" if code is not None else "served" if disk.hits() else "not reached"
    return outcome, found


async def not_as_before(client: Client, files: Files) -> AsyncIterator[str]:
    """What does not go on of what was in the files."""
    if not files:
        await make_agent(client)
        return
    for name in LEFT:
        events = [event async for event in client.watch(name)]
        if events[-1].thread_ended.state != Thread.COMPLETED:
            yield f"{name} did not complete"


async def test_a_full_disk_refuses_what_is_new_and_keeps_what_goes_on(
    tmp_path: Path, shims: Path, with_agent: Path
) -> None:
    database, _ = paths(tmp_path / "place")
    with FaultyDisk(tmp_path, shims, database) as disk:
        async with Place(tmp_path / "place", disk.environment, prepared=with_agent) as place:
            await place.start()
            async with place.client() as client, place.client(retry=NO_RETRY) as hasty:
                await begin(client, place, "sends", "send", gate="gate")
                await begin(client, place, "stops", "save", gate="closed")
                log = [event async for event in client.list_events("sends")]
                disk.fill()
                place.open_gate("gate")
                await eventually(lambda: "disk_full" in place.server.log_path.read_text())

                with pytest.raises(ResourceExhausted) as refused:
                    await hasty.create_thread(AGENT, "more", thread_id="refused")
                stopped = await client.cancel_thread("stops")
                still = [event async for event in client.list_events("sends")]
                watched = await first_of(client, "sends", len(log))
                waiting = asyncio.create_task(
                    client.create_thread(AGENT, data=script("late", []), thread_id="late")
                )
                disk.empty()

                assert refused.value.reason == "DISK_FULL"
                assert refused.value.retry_after is not None
                assert stopped.state == Thread.CANCELLED
                assert still == watched == log
                await waiting
                for name in ("sends", "late"):
                    assert (await ended(client, name)).state == Thread.COMPLETED
                completed = [
                    e.tool_call_completed.status
                    async for e in client.list_events("sends")
                    if e.HasField("tool_call_completed")
                ]
                assert completed == [ToolAction.SUCCEEDED]
            assert len(place.marks()) == 2
            assert await place.stop() == 0


async def test_a_server_stops_on_a_full_disk_and_the_next_one_goes_on(
    tmp_path: Path, shims: Path, with_agent: Path
) -> None:
    database, _ = paths(tmp_path / "place")
    with FaultyDisk(tmp_path, shims, database) as disk:
        async with Place(tmp_path / "place", {**disk.environment, **BRIEF}, prepared=with_agent) as place:
            await place.start()
            async with place.client() as client:
                await begin(client, place, "saves", "save", gate="gate")
            disk.fill()
            place.open_gate("gate")
            await eventually(lambda: "disk_full" in place.server.log_path.read_text())

            code = await place.stop()
            full_code, said = await place.try_start()
            disk.empty()
            if full_code is None:
                assert await place.stop() == 0
            await place.start()

            assert code == 0
            assert full_code in (None, EXIT_UNUSABLE), said
            assert full_code is None or "full" in said, said
            async with place.client() as client:
                assert (await ended(client, "saves")).state == Thread.COMPLETED


async def test_a_killed_server_starts_again_on_a_full_disk_with_the_room_that_it_kept(
    tmp_path: Path, shims: Path, with_agent: Path
) -> None:
    database, _ = paths(tmp_path / "place")
    with FaultyDisk(tmp_path, shims, database) as disk:
        async with Place(tmp_path / "place", {**disk.environment, **BRIEF}, prepared=with_agent) as place:
            await place.start()
            async with place.client() as client:
                await begin(client, place, "stops", "save", gate="closed")
            await place.kill()
            reserve = place.db.with_name(f"{place.db.name}-reserve")
            left = reserve.exists()
            disk.fill()

            await place.start()
            async with place.client() as client, place.client(retry=NO_RETRY) as hasty:
                with pytest.raises(ResourceExhausted) as refused:
                    await hasty.create_thread(AGENT, "more", thread_id="refused")
                stopped = await client.cancel_thread("stops")
                disk.empty()
                await client.create_thread(AGENT, data=script("late", []), thread_id="late")
                late = await ended(client, "late")

            assert left
            assert refused.value.reason == "DISK_FULL"
            assert (stopped.state, late.state) == (Thread.CANCELLED, Thread.COMPLETED)
            await eventually(reserve.exists)
            assert await place.stop() == 0


@pytest.mark.parametrize(
    "rule",
    [
        Rule(Action.IO_ERROR, (Operation.SYNC,), (File.LOG,), first=3),
        Rule(Action.TORN, (Operation.WRITE,), (File.LOG,), first=20),
    ],
    ids=["failed sync", "torn write"],
)
async def test_what_a_failed_sync_drops_was_never_acknowledged(
    tmp_path: Path, shims: Path, with_agent: Path, rule: Rule
) -> None:
    database, marks = paths(tmp_path / "place")
    with FaultyDisk(tmp_path, shims, database, marks=marks) as disk:
        claims = Claims(disk)
        async with Place(tmp_path / "place", disk.environment, prepared=with_agent) as place:
            files = read_files(place.db)
            await place.start()
            async with place.client(retry=NO_RETRY) as client:
                await follow(client, claims, "before")
                disk.set(rule)
                followers = [follow(client, claims, f"t{number}") for number in range(4)]
                await asyncio.gather(*followers, return_exceptions=True)
            assert await place.ended() == EXIT_IO_ERROR
        records = list(read_trace(disk.trace_path))
        claims.calls(records)
    left = Disk(files)
    for record in records:
        if record.file is not File.MARKS:
            left.take(record)

    for model in Model:
        write_files(database, left.after_loss(model, random.Random(SEED)))
        told = claims.told(records[-1].end)
        assert ("threads/before", 5) in told.events
        assert await problems_of(database, told) == [], model


async def follow(client: Client, claims: Claims, name: str) -> None:
    body = script(name, [["look", "save"], ["send"]])
    claims.thread(await client.create_thread(AGENT, data=body, thread_id=name, request_id=name), name)
    async for event in client.watch(name):
        claims.event(event)


async def begin(client: Client, place: Place, name: str, tool: str, *, gate: str) -> None:
    """Returns once the tool was called, and waits at its gate."""
    body = script(name, [[tool]], more={tool: {"gate": gate}})
    await client.create_thread(AGENT, data=body, thread_id=name)
    await eventually(lambda: f"{name}/1/1" in [mark["note"] for mark in place.marks()])


async def first_of(client: Client, thread: str, count: int) -> list[ThreadEvent]:
    """What a new stream brings first."""
    found: list[ThreadEvent] = []
    async with aclosing(client.watch(thread)) as events:
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


async def ended(client: Client, thread: str) -> Thread:
    async for _ in client.watch(thread):
        pass
    return await client.get_thread(thread)
