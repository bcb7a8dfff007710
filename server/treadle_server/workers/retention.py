"""Takes threads that are kept no longer."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from treadle_server.core.errors import Refused
from treadle_server.ports.catalogue import Housekeeping
from treadle_server.ports.clock import Clock

_LOG = structlog.get_logger(__name__)
LOOK_SECONDS = 10.0
_ROUNDS_MAX = 100


class Retention:
    """One task; a failure is logged and tried again at the next look.

    An ended thread is hidden within a look of its time, and purged behind. All writing is background work, in
    pieces that give way to callers.
    """

    def __init__(
        self,
        housekeeping: Housekeeping,
        clock: Clock,
        *,
        default_micros: int | None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`default_micros` is for tenants without a retention of their own; None = for ever."""
        self._housekeeping = housekeeping
        self._clock = clock
        self._default_micros = default_micros
        self._look_seconds = look_seconds
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.looks = 0
        """Made so far, failed ones too."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def poke(self) -> None:
        """Looks soon: a tenant's retention has changed."""
        self._wanted.set()

    async def _run(self) -> None:
        while True:
            self._wanted.clear()
            try:
                await self.look()
            except Refused as refused:  # there is no room on the disk, for instance
                _LOG.warning("retention_refused", reason=refused.reason.value, why=refused.message)
            except Exception:
                _LOG.exception("retention_failed")
            self.looks += 1
            try:
                async with asyncio.timeout(self._look_seconds):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def look(self) -> int:
        """Takes what is due now; how many threads that was."""
        keeping, now = self._housekeeping, self._clock.now()
        expired = await _until_done(lambda: keeping.expire_threads(now, self._default_micros))
        purged = await _until_done(keeping.purge_threads)
        pruned = await keeping.prune_commits()
        forgotten = await _until_done(lambda: keeping.forget_threads(now))
        if purged or pruned or forgotten:
            await keeping.reclaim()
        if expired:
            _LOG.info("threads_expired", count=expired)
        return expired


async def _until_done(work: Callable[[], Awaitable[int]]) -> int:
    """Bounded: what is left is for the next look."""
    done = 0
    for _ in range(_ROUNDS_MAX):
        some = await work()
        done += some
        if not some:
            break
    return done
