"""How many threads of an agent may begin within a time: counted from what is durable, also after a crash."""

import asyncio
from bisect import bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from treadle_server.core.spec import Limits
from treadle_server.ports.catalogue.starts import STARTS_MAX, Began, Starts
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import ThreadKey

_LOG = structlog.get_logger(__name__)
RETRY_SECONDS = 10.0
"""How long to wait before a read is tried again that failed."""


@dataclass(frozen=True, slots=True)
class StartRate:
    """Within any interval at most so many threads begin."""

    starts_max: int
    interval_micros: int


def start_rate(limits: Limits, start_time: int | None) -> StartRate | None:
    """What a thread is held to that has not begun yet; None for one that has, or without such a limit."""
    if start_time or not limits.max_starts:
        return None
    return StartRate(limits.max_starts, limits.start_interval_micros)


@dataclass(slots=True)
class _Window:
    """What is known of an agent's starts within the longest interval that anybody asked for."""

    interval: int = 0
    starts: list[Began] = field(default_factory=list)
    """Durable ones, in order; at most the newest STARTS_MAX."""
    taken: set[ThreadKey] = field(default_factory=set)
    """Threads that may begin and have not durably: each counts as a start, whenever it will be."""
    loaded: bool = False


class StartRates:
    """Of all agents. `again` is called when somebody who was refused may have room now.

    The window of an agent is read when the first of its threads asks, which waits for that.
    """

    def __init__(self, starts: Starts, clock: Clock, again: Callable[[], None]) -> None:
        self._starts = starts
        self._clock = clock
        self._again = again
        self._windows: dict[int, _Window] = {}
        self._loading: dict[int, asyncio.Task[None]] = {}
        self._timers: dict[int, tuple[int, asyncio.TimerHandle]] = {}
        """When to look again for an agent, and what does."""
        self._begun: set[ThreadKey] = set()

    def binds(self, key: ThreadKey, rate: StartRate | None) -> StartRate | None:
        """The rate, as long as the thread has not begun."""
        return None if key in self._begun else rate

    def full(self, agent: int, rate: StartRate) -> bool:
        """No thread of the agent may begin now. It changes nothing."""
        window = self._windows.get(agent)
        return window is None or not window.loaded or self._room_at(window, rate) != 0

    def ask(self, agent: int, rate: StartRate) -> bool:
        """Whether one more may begin now; else `again` is called when that may have changed."""
        window = self._windows.setdefault(agent, _Window())
        if rate.interval_micros > window.interval or not window.loaded:
            self._load(agent, window, rate.interval_micros)
            return False
        at = self._room_at(window, rate)
        if at:
            self._look_at(agent, at)
        return at == 0

    def take(self, agent: int, key: ThreadKey) -> None:
        """A thread that `ask` allowed to begin will do so, or give its place back."""
        self._windows[agent].taken.add(key)

    def give_back(self, agent: int, key: ThreadKey) -> None:
        """A thread has stopped running. Nothing happens if it has begun."""
        window = self._windows.get(agent)
        if window is not None and key in window.taken:
            window.taken.remove(key)

    def began(self, agent: int, key: ThreadKey, start_time: int) -> None:
        """It is durable that a thread began."""
        self._begun.add(key)
        window = self._windows.setdefault(agent, _Window())
        window.taken.discard(key)
        insort(window.starts, (start_time, key.thread))
        self._trim(window)

    def forget(self, key: ThreadKey) -> None:
        """The thread is gone."""
        self._begun.discard(key)

    def stop(self) -> None:
        """Calls nobody any more."""
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in self._loading.values():
            task.cancel()

    def _room_at(self, window: _Window, rate: StartRate) -> int:
        """0 when there is room now, else when there may be: micros since 1970."""
        now = self._clock.now()
        since = _after(window, now - rate.interval_micros)
        excess = len(window.starts) - since + len(window.taken) + 1 - rate.starts_max
        if excess <= 0:
            return 0
        last = since + excess - 1
        if last < len(window.starts):
            return window.starts[last][0] + rate.interval_micros
        return now + rate.interval_micros  # those who are about to begin tell when they have

    def _trim(self, window: _Window) -> None:
        over = _after(window, self._clock.now() - window.interval) if window.loaded else 0
        del window.starts[: max(over, len(window.starts) - STARTS_MAX)]

    def _look_at(self, agent: int, at: int) -> None:
        armed = self._timers.get(agent)
        if armed is not None:
            if armed[0] <= at:
                return
            armed[1].cancel()
        delay = max(0, at - self._clock.now()) / 1e6 + 0.001
        self._timers[agent] = (at, asyncio.get_running_loop().call_later(delay, self._rung, agent))

    def _rung(self, agent: int) -> None:
        self._timers.pop(agent, None)
        self._again()

    def _load(self, agent: int, window: _Window, interval: int) -> None:
        if agent not in self._loading:
            window.loaded = False
            task = asyncio.create_task(self._read(agent, window, interval))
            self._loading[agent] = task
            task.add_done_callback(lambda _: self._loading.pop(agent, None))

    async def _read(self, agent: int, window: _Window, interval: int) -> None:
        """Times that lie ahead are taken for now: the machine's clock was put back since."""
        now = self._clock.now()
        try:
            read = await self._starts.recent(agent, now - interval)
        except Exception as error:
            _LOG.error("starts_not_read", agent=agent, why=str(error) or type(error).__name__)
            self._look_at(agent, now + int(RETRY_SECONDS * 1e6))
            return
        meanwhile = {thread: time for time, thread in window.starts}
        found = {thread: min(time, now) for time, thread in read}
        window.starts = sorted((time, thread) for thread, time in (found | meanwhile).items())
        window.interval, window.loaded = interval, True
        asyncio.get_running_loop().call_soon(self._again)


def _after(window: _Window, time: int) -> int:
    """Index of the first start after a time."""
    return bisect_right(window.starts, time, key=lambda began: began[0])
