"""Takes threads that are kept no longer."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.housekeeping import Housekeeping
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import Fenced, StoreFailed

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
                _tell(refused)
            self.looks += 1
            try:
                async with asyncio.timeout(self._look_seconds):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def look(self) -> int:
        """Takes what is due now; how many threads that was. Each step fails alone.

        Raises Refused when the store takes nothing.
        """
        keeping, now = self._housekeeping, self._clock.now()
        expired = await _until_done(lambda: keeping.expire_threads(now, self._default_micros))
        taken = await _until_done(keeping.purge_threads)
        taken += await _alone(keeping.prune_commits)
        if taken:
            await _until_done(lambda: keeping.expire_sessions(now, self._default_micros))
        await _until_done(keeping.purge_sessions)
        taken += await _until_done(lambda: keeping.forget_threads(now))
        if taken:
            await _alone(keeping.reclaim)
        if expired:
            _LOG.info("threads_expired", count=expired)
        return expired


async def _alone(work: Callable[[], Awaitable[int]]) -> int:
    """A failure is 0, and told: damage that one step meets is no reason to leave out the others."""
    try:
        return await work()
    except Refused as refused:
        if refused.reason in (Reason.DISK_FULL, Reason.STORE_UNAVAILABLE):
            raise
        _tell(refused)
    except (StoreFailed, Fenced):
        return 0  # the store has said so, and the server stops
    except Exception:
        _LOG.exception("retention_failed")
    return 0


def _tell(refused: Refused) -> None:
    _LOG.warning("retention_refused", reason=refused.reason.value, why=refused.message)


async def _until_done(work: Callable[[], Awaitable[int]]) -> int:
    """Bounded: what is left is for the next look."""
    done = 0
    for _ in range(_ROUNDS_MAX):
        some = await _alone(work)
        done += some
        if not some:
            break
    return done
