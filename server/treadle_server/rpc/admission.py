"""How much may be going on at one time, for the server and for each tenant."""

from collections.abc import Callable
from dataclasses import dataclass

from treadle_server.core.errors import Reason, Refused


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Most calls of one lane at one time."""

    server: int
    tenant: int


class Lane:
    """Counts calls of one kind. Never waits: what is too much is refused at once."""

    def __init__(self, what: str, limits: LaneLimits) -> None:
        self._what = what
        self._limits = limits
        self._tenants: dict[int, int] = {}
        self.count = 0

    def enter(self) -> None:
        """Before anything else is done for a call. Raises Refused(CONCURRENCY_LIMITED)."""
        if self.count >= self._limits.server:
            raise _refusal(f"the server has {self._what} enough at one time", self._limits.server)
        self.count += 1

    def leave(self) -> None:
        self.count -= 1

    def enter_tenant(self, tenant: int) -> None:
        """Once the tenant is known. Raises Refused(CONCURRENCY_LIMITED)."""
        count = self._tenants.get(tenant, 0)
        if count >= self._limits.tenant:
            raise _refusal(f"the tenant has {self._what} enough at one time", self._limits.tenant)
        self._tenants[tenant] = count + 1

    def leave_tenant(self, tenant: int) -> None:
        count = self._tenants[tenant] - 1
        if count:
            self._tenants[tenant] = count
        else:
            del self._tenants[tenant]


@dataclass(frozen=True, slots=True)
class Backlog:
    """Changes that wait to be written, and how many may."""

    count: Callable[[], int]
    most: int


class Admission:
    """The door: closed while the server stops, and only so wide."""

    def __init__(
        self,
        calls: LaneLimits = LaneLimits(server=2_000, tenant=1_000),
        streams: LaneLimits = LaneLimits(server=12_000, tenant=10_000),
        backlog: Backlog | None = None,
    ) -> None:
        self._backlog = backlog
        self.calls = Lane("calls", calls)
        self.streams = Lane("streams", streams)
        self.draining = False
        """Set before the server stops: new calls are refused with DRAINING, those under way go on."""

    def check_open(self) -> None:
        if self.draining:
            raise Refused(Reason.DRAINING, "the server is stopping; threads go on at its next start")

    def check_backlog(self) -> None:
        """Before a call that changes something. Raises Refused(CONCURRENCY_LIMITED)."""
        backlog = self._backlog
        if backlog is not None and backlog.count() >= backlog.most:
            raise _refusal("the server has changes enough waiting to be written", backlog.most)


def _refusal(message: str, limit: int) -> Refused:
    return Refused(Reason.CONCURRENCY_LIMITED, message, metadata={"limit": str(limit)})
