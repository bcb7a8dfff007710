"""Ends a server again and again, in every way that a process can end or stand still."""

import asyncio
import random
import signal
from collections import Counter
from dataclasses import dataclass, field

from tests.faults.site import Site
from treadle_server import failpoints

LIFE_SECONDS = (0.1, 1.8)
"""Of a server, from when it serves to when it is killed."""
FROZEN_SECONDS = (0.05, 0.6)
HITS_MAX = 40
SIGKILLED = -9
FAILPOINTS = 0.5
"""Share of lives that a failpoint may end before anything else does."""
_WAYS = {"kill": 0.7, "freeze": 0.1, "terminate": 0.14, "terminate and kill": 0.06}


@dataclass(slots=True)
class Kills:
    """`ends` counts lives of the server by the way in which they ended."""

    site: Site
    chance: random.Random
    ends: Counter[str] = field(default_factory=Counter)
    starts: int = 0

    @property
    def count(self) -> int:
        """Lives that ended by SIGKILL, a failpoint's or ours."""
        return self.ends.total() - self.ends["terminate"]

    async def make(self, count: int) -> None:
        """The server runs before, and after it in peace."""
        while self.count < count:
            (way,) = self.chance.choices(list(_WAYS), list(_WAYS.values()))
            await self._end(way)
            await self._start(in_peace=self.count >= count)

    async def _start(self, *, in_peace: bool) -> None:
        """With a failpoint for the coming life, as often as not. A start may be killed, too."""
        while True:
            place = ""
            if not in_peace and self.chance.random() < FAILPOINTS:
                name, nth = self.chance.choice(list(failpoints.NAMES)), self.chance.randint(1, HITS_MAX)
                place = f"{name}#{nth}=kill"
            self.starts += 1
            try:
                await self.site.start(place)
            except AssertionError as died:
                if not place or f"ended with {SIGKILLED}" not in str(died):
                    raise
                self.ends["failpoint while starting"] += 1
            else:
                return

    async def _end(self, way: str) -> None:
        ended = asyncio.create_task(self.site.ended())
        try:
            await self._bring_about(way, ended)
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)
            await asyncio.wait({ended})
            raise

    async def _bring_about(self, way: str, ended: "asyncio.Task[int]") -> None:
        if await self._within(ended, LIFE_SECONDS):
            way = "failpoint"
        else:
            if way == "freeze":
                self._signal(signal.SIGSTOP)
                await self._within(ended, FROZEN_SECONDS)
                self._signal(signal.SIGCONT)
                await self._within(ended, LIFE_SECONDS)
            elif way.startswith("terminate"):
                self._signal(signal.SIGTERM)
            if way == "terminate and kill":
                await self._within(ended, FROZEN_SECONDS)
            if way != "terminate":
                self._signal(signal.SIGKILL)
        code = await ended
        if code == 0:
            assert way.startswith("terminate"), way
            self.ends["terminate"] += 1
        else:
            assert code == SIGKILLED, f"the server ended with {code}: {self.site.server.log_path}"
            self.ends[way] += 1

    async def _within(self, ended: "asyncio.Task[int]", seconds: tuple[float, float]) -> bool:
        """Lets time go by; true when the server has ended by itself meanwhile."""
        done, _ = await asyncio.wait({ended}, timeout=self.chance.uniform(*seconds))
        return bool(done)

    def _signal(self, number: signal.Signals) -> None:
        if self.site.server.running:
            self.site.server.signal(number)
