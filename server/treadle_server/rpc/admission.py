"""How much may be going on at one time and begin in a second, for the server and for each tenant."""

from collections.abc import Callable
from dataclasses import dataclass

from treadle_server.core.errors import Reason, Refused
from treadle_server.services.rates import Rate, rate_limited

RATES_MAX = 1_024
"""Tenants whose rates are kept before those that rest are dropped."""


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Most calls of one lane at one time, and most that begin in a second; None = any number."""

    server: int
    tenant: int
    server_rate: float | None = None
    tenant_rate: float | None = None


class Lane:
    """Counts calls of one kind. Never waits: what is too much is refused at once."""

    def __init__(self, what: str, limits: LaneLimits) -> None:
        self._what = what
        self._limits = limits
        self._tenants: dict[int, int] = {}
        self._rate = Rate(limits.server_rate) if limits.server_rate else None
        self._rates: dict[int, Rate] = {}
        self.count = 0

    def enter(self) -> None:
        """Before anything else is done for a call. Raises Refused(CONCURRENCY_LIMITED)."""
        if self.count >= self._limits.server:
            raise _refusal(f"the server has {self._what} enough at one time", self._limits.server)
        self.count += 1

    def leave(self) -> None:
        self.count -= 1

    def enter_tenant(self, tenant: int) -> None:
        """Once the tenant is known. Raises Refused: CONCURRENCY_LIMITED or RATE_LIMITED.

        Its own rate comes before the server's, so that a tenant in a hurry takes no turns from the others.
        """
        count = self._tenants.get(tenant, 0)
        if count >= self._limits.tenant:
            raise _refusal(f"the tenant has {self._what} enough at one time", self._limits.tenant)
        self._begin(self._tenant_rate(tenant), "of the tenant")
        self._begin(self._rate, "at the server")
        self._tenants[tenant] = count + 1

    def leave_tenant(self, tenant: int) -> None:
        count = self._tenants[tenant] - 1
        if count:
            self._tenants[tenant] = count
        else:
            del self._tenants[tenant]

    def _begin(self, rate: Rate | None, whose: str) -> None:
        delay = rate.begin() if rate is not None else 0.0
        if rate is not None and delay:
            raise rate_limited(f"too many {self._what} {whose} begin at once", rate.per_second, delay)

    def _tenant_rate(self, tenant: int) -> Rate | None:
        if self._limits.tenant_rate is None:
            return None
        rate = self._rates.get(tenant)
        if rate is None:
            if len(self._rates) >= RATES_MAX:
                self._rates = {key: kept for key, kept in self._rates.items() if not kept.full}
            rate = self._rates[tenant] = Rate(self._limits.tenant_rate)
        return rate


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
