"""Wall clocks that jump: nothing is early, nothing is lost, and order is by sequence."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.faults.shim.place import Place
from tests.faults.shim.wall_clock import WallClock
from tests.waiting import eventually
from treadle import AgentLimits, Client, Thread, ThreadEvent
from treadle_server.clock import LEAD, SteadyClock

SECOND = 1_000_000_000
DAY = 86_400
RETRY_SECONDS = 2.0
LIMIT_SECONDS = 3.0
HEARTBEAT_SECONDS = 1.0
SHARE_MIN = 1 - 1 / LEAD
"""Of a wait: the clock may be led by so much."""
MESSAGE_SECONDS = 0.5
"""A stream's message may take so long, and the wait seems to begin later by that."""
LATE_SECONDS = 5.0
"""On a busy machine."""
_FAILS_ONCE = {
    "error": {
        "code": "UNAVAILABLE",
        "retryable": True,
        "attempts": 1,
        "retry_after_ms": int(RETRY_SECONDS * 1000),
    },
    "text": "answered",
}


@dataclass(slots=True)
class HandClocks:
    """A machine's two clocks, in a test's hands."""

    wall: int = 1_800_000_000 * SECOND
    elapsed: int = 5 * SECOND

    def steady(self) -> SteadyClock:
        return SteadyClock(wall_ns=lambda: self.wall, elapsed_ns=lambda: self.elapsed)

    def pass_by(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)
        self.elapsed += round(seconds * SECOND)


def test_the_clock_begins_with_the_machines_and_goes_on_with_it() -> None:
    clocks = HandClocks()
    clock = clocks.steady()

    times = []
    for _ in range(3):
        times.append(clock.now() * 1000 - clocks.wall)
        clocks.pass_by(3600)

    assert times == [0, 0, 0]


@pytest.mark.parametrize("put", [DAY, 2, -2, -DAY])
def test_a_clock_that_was_put_is_followed_slowly_never_backwards_and_not_beyond(put: int) -> None:
    clocks = HandClocks()
    clock = clocks.steady()
    last, began = clock.now(), clocks.elapsed
    clocks.wall += put * SECOND

    for _ in range(200):
        clocks.pass_by(1)
        now = clock.now()
        assert abs((now - last) - 1_000_000) <= 1_000_000 // LEAD
        last = now

    passed = clocks.elapsed - began
    off = abs(last * 1000 - clocks.wall)
    assert off == max(0, abs(put) * SECOND - passed // LEAD)


def test_time_that_the_machine_slept_has_passed() -> None:
    clocks = HandClocks()
    clock = clocks.steady()
    before = clock.now()

    clocks.pass_by(8 * 3600)

    assert clock.now() - before == 8 * 3600 * 1_000_000


def test_what_the_server_asks_for_wall_time_is_what_a_test_can_put(tmp_path: Path, shims: Path) -> None:
    wall = WallClock(tmp_path, shims)
    wall.put(DAY)
    code = (
        "import time, datetime; from treadle_server.clock import SteadyClock, elapsed_ns;"
        "print(SteadyClock().now() // 1000000, int(time.time()), int(datetime.datetime.now().timestamp()),"
        " int(time.monotonic()), elapsed_ns() // 1000000000)"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **wall.environment},
        check=True,
        capture_output=True,
        text=True,
    )

    *walls, monotonic, elapsed = map(int, ran.stdout.split())
    assert all(abs(each - time.time() - DAY) < LATE_SECONDS for each in walls)
    assert abs(monotonic - time.monotonic()) < LATE_SECONDS
    assert abs(elapsed - time.clock_gettime(time.CLOCK_BOOTTIME)) < LATE_SECONDS
    assert wall.looks >= 3


@dataclass(slots=True)
class Seen:
    """What a stream brought, each with the time of a clock that nobody puts."""

    events: list[tuple[float, ThreadEvent]] = field(default_factory=list)

    async def watch(self, client: Client, thread: str) -> None:
        async for event in client.watch(thread, include_heartbeats=True):
            self.events.append((time.monotonic(), event))

    def has(self, kind: str, count: int = 1) -> bool:
        return len(self.times(kind)) >= count

    def times(self, kind: str) -> list[float]:
        return [at for at, event in self.events if event.WhichOneof("payload") == kind]

    @property
    def stored(self) -> list[ThreadEvent]:
        return [event for _, event in self.events if event.sequence]


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["a day on", "a day back"])
async def test_a_jump_ends_no_wait_early_and_loses_none(tmp_path: Path, shims: Path, jump: int) -> None:
    wall = WallClock(tmp_path, shims)
    settings = {"TREADLE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS)}
    async with Place(tmp_path / "place", {**wall.environment, **settings}) as place:
        await place.start()
        async with place.client() as client:
            await make_agents(client)
            retried, limited = Seen(), Seen()
            tasks = [
                asyncio.create_task(retried.watch(client, await begin(client, "free", _FAILS_ONCE))),
                asyncio.create_task(limited.watch(client, await begin(client, "limited", {"hang": True}))),
            ]
            await eventually(lambda: retried.has("model_call_failed") and limited.has("model_call_started"))

            wall.put(jump)
            await eventually(lambda: limited.has("heartbeat", 2))
            await asyncio.gather(*tasks)

            listed = await client.get_thread("limited-thread")
        assert await place.stop() == 0

    waited = retried.times("model_call_started")[1] - retried.times("model_call_failed")[0]
    assert RETRY_SECONDS * SHARE_MIN - MESSAGE_SECONDS <= waited <= RETRY_SECONDS + LATE_SECONDS
    ran = limited.times("thread_ended")[0] - limited.times("model_call_started")[0]
    assert LIMIT_SECONDS * SHARE_MIN - MESSAGE_SECONDS <= ran <= LIMIT_SECONDS + LATE_SECONDS
    assert len(limited.times("heartbeat")) <= ran / (HEARTBEAT_SECONDS * 0.7) + 1
    assert listed.state == Thread.TIMED_OUT
    for seen in (retried, limited):
        assert [event.sequence for event in seen.stored] == list(range(1, len(seen.stored) + 1))
        times = [event.event_time.ToNanoseconds() for event in seen.stored]
        assert times == sorted(times)
        assert times[-1] - times[0] < 60 * SECOND


@pytest.mark.parametrize(
    ("jump", "overdue"),
    [(DAY, {"hour"}), (3 * DAY, {"hour", "days"}), (-DAY, set())],
    ids=["a day on", "three days on", "a day back"],
)
async def test_a_new_server_reckons_what_is_due_by_wall_time(
    tmp_path: Path, shims: Path, jump: int, overdue: set[str]
) -> None:
    wall = WallClock(tmp_path, shims)
    async with Place(tmp_path / "place", wall.environment) as place:
        await place.start()
        async with place.client() as client:
            await make_agents(client)
            names = [await begin(client, agent, {"hang": True}) for agent in ("hour", "days")]
            before = await start_time_of(client)
        assert await place.stop() == 0
        wall.put(jump)
        began = time.monotonic()
        await place.start()
        async with place.client() as client:
            after = await start_time_of(client)
            for name in names:
                if name.removesuffix("-thread") in overdue:
                    async for _ in client.watch(name):
                        pass
            states = {name: (await client.get_thread(name)).state for name in names}
            logs = [[event async for event in client.list_events(name)] for name in names]

        assert time.monotonic() - began < 2 * LATE_SECONDS
        assert abs((after - before).total_seconds() - jump) < 60
        for name, state in states.items():
            due = name.removesuffix("-thread") in overdue
            assert state == (Thread.TIMED_OUT if due else Thread.RUNNING), name
        for log in logs:
            assert [event.sequence for event in log] == list(range(1, len(log) + 1))


async def make_agents(client: Client) -> None:
    """Agents that may run for as long as their names say."""
    limits = {
        "free": timedelta(hours=1),
        "limited": timedelta(seconds=LIMIT_SECONDS),
        "hour": timedelta(hours=1),
        "days": timedelta(days=2),
    }
    for name, limit in limits.items():
        timeout = Duration()
        timeout.FromTimedelta(limit)
        await client.create_agent(name, model="scripted:", limits=AgentLimits(timeout=timeout))


async def begin(client: Client, agent: str, turn: Mapping[str, object]) -> str:
    """A thread whose model has been asked for a turn."""
    name = f"{agent}-thread"
    await client.create_thread(agent, data={"turns": [turn]}, thread_id=name)
    async with aclosing(client.watch(name)) as events:
        async for event in events:
            if event.HasField("model_call_started"):
                break
    return name


async def start_time_of(client: Client) -> datetime:
    return (await client.get_server_info()).start_time.ToDatetime()
