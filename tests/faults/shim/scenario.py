"""The same work on a disk that fails somewhere: what was acknowledged, how it ended, how the server ended."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field

from tests.faults.scripts import script
from tests.faults.shim.place import AGENT, Place
from treadle import Action, Client, DataLoss, Thread, ThreadEvent

LOOK_SECONDS = 0.01
WORKS = ("work-1", "work-2")
SENDS = "sends"
STOPS = "stops"
"""Cancelled in a call."""
THREADS = (*WORKS, SENDS, STOPS)
GATE, CLOSED = "gate", "closed"


@dataclass(slots=True)
class Report:
    acknowledged: set[str] = field(default_factory=set)
    threads: dict[str, Thread] = field(default_factory=dict)
    logs: dict[str, list[ThreadEvent]] = field(default_factory=dict)
    seen: dict[str, list[ThreadEvent]] = field(default_factory=lambda: defaultdict(list))
    exit_codes: list[int] = field(default_factory=list)
    """Of servers that ended by themselves; each was started again."""
    stop_code: int = 0
    """Of the one that was told to stop."""
    marks: list[dict[str, str]] = field(default_factory=list)
    hits: int = 0
    damages: list[str] = field(default_factory=list)
    """What callers were told of damage."""
    server_log: str = ""

    @property
    def unknown_calls(self) -> list[str]:
        completed = [event.tool_call_completed for log in self.logs.values() for event in log]
        return [each.tool_call_id for each in completed if each.status == Action.UNKNOWN]


class Supervisor:
    """Starts the server again when it has ended by itself."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._task = asyncio.create_task(self._run())
        self.exit_codes: list[int] = []

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._place.server.running:
                continue
            self.exit_codes.append(await self._place.ended())
            await self._place.start()

    async def stop(self) -> None:
        """Whatever made it fail is raised here."""
        if self._task.done():
            self._task.result()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def play(place: Place, report: Report) -> None:
    """Creates, runs, cancels and finishes; the server may end meanwhile. It is left running."""
    supervisor = Supervisor(place)
    try:
        async with place.client() as client:
            await _told(_make_agent(client), report)
            await asyncio.gather(*(_told(_run(client, place, report, name), report) for name in THREADS))
            await _told(read(client, report), report)
    finally:
        await supervisor.stop()
        report.exit_codes = supervisor.exit_codes
        report.marks = place.marks()
        report.server_log = place.server.log_path.read_text()


async def _told(work: Awaitable[None], report: Report) -> None:
    try:
        await work
    except DataLoss as damage:
        report.damages.append(str(damage))


async def _make_agent(client: Client) -> None:
    made = await client.create_agent("other", model="scripted:", request_id="other")
    assert made.name == "agents/other"


async def _run(client: Client, place: Place, report: Report, name: str) -> None:
    turns = {SENDS: [["send"], ["look"]], STOPS: [["save"]]}.get(name, [["look", "save"], ["send"]])
    gate = {SENDS: GATE, STOPS: CLOSED}.get(name)
    more = {tool: {"gate": gate} for tool in ("save", "send")} if gate else None
    body = script(name, turns, more=more)
    await client.create_thread(AGENT, data=body, thread_id=name, request_id=name)
    report.acknowledged.add(f"threads/{name}")
    cancelling = None
    async for event in client.watch(name):
        report.seen[f"threads/{name}"].append(event)
        if name == STOPS and event.HasField("tool_call_started") and cancelling is None:
            cancelling = asyncio.create_task(client.cancel_thread(name, request_id="cancel"))
        if name == SENDS and event.HasField("tool_call_started"):
            place.open_gate(GATE)
    if cancelling is not None:
        assert (await cancelling).state == Thread.CANCELLED


async def read(client: Client, report: Report) -> None:
    async for thread in client.list_threads():
        report.threads[thread.name] = thread
        report.logs[thread.name] = [event async for event in client.list_events(thread.name)]


def problems(report: Report) -> Iterator[str]:
    """What must hold whatever the disk did."""
    if lost := report.acknowledged - set(report.threads):
        yield f"acknowledged and lost: {lost}"
    for name, log in report.logs.items():
        if [event.sequence for event in log] != list(range(1, len(log) + 1)):
            yield f"the log of {name} has holes"
        if report.seen[name] != log[: len(report.seen[name])]:
            yield f"the watcher of {name} was sent something else than is stored"
    sent = [mark["note"] for mark in report.marks if mark["tool"] == "send"]
    if len(sent) != len(set(sent)):
        yield f"sent more than once: {sent}"


def unfinished(report: Report) -> Iterator[str]:
    """What must have come to its end besides."""
    yield from report.damages
    for name, log in report.logs.items():
        if [event for event in log if event.HasField("thread_ended")] != log[-1:]:
            yield f"the end of {name} is not the last of its log"
        if report.seen[name] != log:
            yield f"the watcher of {name} was not sent all"
        wanted = Thread.CANCELLED if name == f"threads/{STOPS}" else Thread.COMPLETED
        if report.threads[name].state != wanted:
            yield f"{name} ended {Thread.State.Name(report.threads[name].state)}"
    if not report.exit_codes and report.unknown_calls:
        yield f"unknown though no server ended: {report.unknown_calls}"
