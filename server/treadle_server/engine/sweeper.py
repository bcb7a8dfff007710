"""What must happen though nobody asks: timers of threads that nobody drives, and tidying up."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from treadle_server.core.errors import Reason, Refused
from treadle_server.engine.embedded import EmbeddedEngine
from treadle_server.engine.timers import AHEAD_MICROS
from treadle_server.ports.catalogue.housekeeping import Housekeeping
from treadle_server.ports.catalogue.threads import Threads
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import Fenced, StoreFailed

_LOG = structlog.get_logger(__name__)
LOOK_SECONDS = 30.0
"""Half of what timers are read ahead, so one missed look loses none."""
_PAGE = 1000
_ROUNDS_MAX = 100


class Sweeper:
    """One task; a failure is logged and tried again at the next look."""

    def __init__(
        self,
        engine: EmbeddedEngine,
        threads: Threads,
        housekeeping: Housekeeping,
        clock: Clock,
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._engine = engine
        self._threads = threads
        self._housekeeping = housekeeping
        self._clock = clock
        self._look_seconds = look_seconds
        self._task: asyncio.Task[None] | None = None
        self.looks = 0
        """Made so far, failed ones too."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for step in self._steps():
                try:
                    await step()
                except Exception as error:
                    if not _known(error):
                        _LOG.exception("sweep_failed")
            self.looks += 1
            await asyncio.sleep(self._look_seconds)

    async def _arm_timers(self) -> None:
        until, after = self._clock.now() + AHEAD_MICROS, None
        while True:
            wakes = await self._threads.wakes(until=until, limit=_PAGE, after=after)
            for wake in wakes:
                self._engine.arm(wake.key, wake.wake_at)
            if len(wakes) < _PAGE:
                return
            after = (wakes[-1].wake_at, wakes[-1].key.thread)

    async def _deliver_mail(self) -> None:
        self._engine.deliver_mail()

    def _steps(self) -> Sequence[Callable[[], Awaitable[object]]]:
        """Each fails alone: damage that one meets is no reason to leave out the others."""
        now, keeping = self._clock.now(), self._housekeeping
        return (
            self._arm_timers,
            self._deliver_mail,
            lambda: _until_done(lambda: keeping.forget_requests(now)),
            lambda: _until_done(lambda: keeping.forget_starts(now)),
            lambda: _until_done(keeping.purge_threads),
            lambda: _until_done(lambda: keeping.purge_agents(now)),
            keeping.reclaim,
        )


def _known(error: Exception) -> bool:
    """The store has told it: it takes nothing at present, and the next look will do, or never will again."""
    if isinstance(error, StoreFailed | Fenced):
        return True
    return isinstance(error, Refused) and error.reason in (Reason.DISK_FULL, Reason.STORE_UNAVAILABLE)


async def _until_done(work: Callable[[], Awaitable[int]]) -> None:
    for _ in range(_ROUNDS_MAX):
        if not await work():
            return
