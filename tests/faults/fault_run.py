"""A round of many threads and many kills, on a file of its own and checked at its end."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.callers import Callers
from tests.faults.history import History, check
from tests.faults.kills import Kills
from tests.faults.ledger import DONE, MODEL
from tests.faults.site import PATIENCE_SECONDS, Site
from tests.faults.watching import SeenOfAll, watch_all
from tests.waiting import eventually
from treadle import Client

CLIENT_SECONDS = 300.0
"""A caller who waits for an answer is interrupted by many kills in a row."""
REST_SECONDS = 15.0
"""For what goes on when every caller has been answered."""


@dataclass(frozen=True, slots=True)
class Round:
    """At least so much happens in it."""

    seed: int
    kills: int
    threads: int
    at_once: int = 64
    seconds: float = 1200.0
    """Callers who still wait then wait for nothing."""
    google: float = 0.0
    """Share of threads whose model is the world's."""


@dataclass(slots=True)
class Figures:
    """What rounds amounted to."""

    counts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, other: "Figures") -> None:
        self.counts += other.counts
        self.ends += other.ends
        self.seconds += other.seconds

    def __str__(self) -> str:
        parts = [f"{count:,} {what}" for what, count in self.counts.items()]
        parts += [f"{count} ended by {way}" for way, count in self.ends.most_common()]
        return f"{', '.join(parts)}, {self.seconds:.0f} s"


async def run(folder: Path, prepared: Path, plan: Round) -> Figures:
    """Fails when an invariant does not hold. The folder has the file, the ledger and the server's log."""
    began = time.monotonic()
    async with Site(folder, prepared=prepared) as site:
        await site.start()
        async with (
            site.client(timeout=CLIENT_SECONDS) as client,
            site.channel() as channel,
        ):
            kills, history = Kills(site, random.Random(plan.seed)), History()
            callers = Callers(client, channel, history, plan.seed, google=plan.google)
            chance, of_all = random.Random(plan.seed), SeenOfAll()
            watcher = asyncio.create_task(watch_all(of_all, channel, lambda: chance.randint(50, 500)))
            await eventually(lambda: bool(of_all.cursor), seconds=PATIENCE_SECONDS)

            def enough() -> bool:
                return callers.made >= plan.threads and killing.done()

            try:
                async with asyncio.timeout(plan.seconds), asyncio.TaskGroup() as working:
                    killing = working.create_task(kills.make(plan.kills))
                    for _ in range(plan.at_once):
                        working.create_task(callers.work(enough))
            except TimeoutError:
                history.failures.append(f"callers still waited after {plan.seconds:g} s")
            await _come_to_rest(client, history)
            await history.read(client)
            history.ledger = site.ledger.all()
            await _catch_up(of_all, history)
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
    check(history)
    return _figures(history, kills, of_all, time.monotonic() - began)


async def _come_to_rest(client: Client, history: History) -> None:
    """Waits until nothing goes on: also children of threads that nobody waits for any more."""

    async def at_rest() -> bool:
        return not [thread.name async for thread in client.list_threads(filter="state = RUNNING")]

    try:
        await eventually(at_rest, seconds=REST_SECONDS, pause_seconds_max=0.2)
    except AssertionError:
        history.failures.append("threads still run")


async def _catch_up(of_all: SeenOfAll, history: History) -> None:
    """Waits until the watcher of all threads was sent as much as there is."""
    total = sum(map(len, history.logs.values()))
    try:
        await eventually(lambda: of_all.event_count >= total, seconds=PATIENCE_SECONDS)
    except AssertionError:
        history.failures.append(f"the watcher of all was sent {of_all.event_count} of {total} events")
    for seen in of_all.threads.values():
        seen.complete = True
    history.seen += of_all.threads.values()


def _figures(history: History, kills: Kills, of_all: SeenOfAll, seconds: float) -> Figures:
    events = [event for log in history.logs.values() for event in log]
    counts = Counter(
        {
            "kills": kills.count,
            "acknowledged threads": len({each.thread for each in history.acknowledged}),
            "acknowledged ends": len(history.ended),
            "acknowledged decisions": len(history.decided),
            "acknowledged inputs": len(history.steered) + len(history.answered),
            "children": sum(bool(thread.parent_thread) for thread in history.threads.values()),
            "events": len(events),
            "events sent": sum(len(seen.events) for seen in history.seen),
            "streams": sum(seen.connections for seen in history.seen) + of_all.connections,
            "recoveries": sum(event.HasField("execution_recovered") for event in events),
            "effects": len(history.effects),
            "model answers over HTTP": sum(
                line.step == DONE and line.tool == MODEL for line in history.ledger
            ),
            "starts": kills.starts + 1,
        }
    )
    return Figures(counts, kills.ends, seconds)
