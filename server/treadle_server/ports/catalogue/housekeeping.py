"""Port: what a store does that no caller waits for."""

from typing import Protocol


class Housekeeping(Protocol):
    """Bounded work behind the scenes. Each call does some, gives way to callers, and says how much it did."""

    async def forget_requests(self, now: int) -> int:
        """Request ids that expired."""
        ...

    async def forget_starts(self, now: int) -> int:
        """Starts of threads that no start rate counts any more."""
        ...

    async def expire_threads(self, now: int, retention: int | None) -> int:
        """Hides ended threads that are kept no longer, whole. `retention`, in micros, is for tenants that
        have none of their own; None = for ever.
        """
        ...

    async def purge_threads(self) -> int:
        """Threads that were deleted or have expired, with all that was made of them but their ids."""
        ...

    async def prune_commits(self) -> int:
        """Commits of such threads. Each call goes on where the last one stopped."""
        ...

    async def forget_threads(self, now: int) -> int:
        """Rows of threads that have been gone for 30 days. Their ids stay taken."""
        ...

    async def expire_sessions(self, now: int, retention: int | None) -> int:
        """Sessions of which retention took every thread, and that are as old. `retention` as of threads."""
        ...

    async def purge_sessions(self) -> int:
        """Notes of sessions that were deleted or have expired."""
        ...

    async def purge_agents(self, now: int) -> int:
        """Deleted agents whose purge time has come."""
        ...

    async def reclaim(self) -> int:
        """Pages of the file that nothing uses, given back to the disk."""
        ...
