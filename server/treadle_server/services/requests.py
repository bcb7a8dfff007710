"""Repeating a call safely: the same request id with the same request has the same outcome for 24 hours."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.requests import Requests
from treadle_server.ports.clock import Clock
from treadle_server.ports.log import Replayed, RequestRow

LIFETIME_MICROS = 24 * 3_600 * 1_000_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """A mutating call as its caller may repeat it."""

    principal: str
    method: str
    request_id: str = ""
    """Empty: every call counts."""
    digest: bytes = b""
    """Of the request without what does not change its meaning."""

    def row(
        self, *, resource: str, response: bytes | None, now: int, from_sequence: int = 0
    ) -> RequestRow | None:
        """What to store in the unit that does what was asked; None without a request id."""
        if not self.request_id:
            return None
        return RequestRow(
            self.request_id,
            self.principal,
            self.method,
            self.digest,
            resource,
            from_sequence,
            response,
            now + LIFETIME_MICROS,
        )


class Replays:
    """Finds out whether a call was made before."""

    def __init__(self, requests: Requests, clock: Clock) -> None:
        self._requests = requests
        self._clock = clock

    async def once(self, tenant: int, asked: Asked, act: Callable[[], Awaitable[T]]) -> T:
        """Acts, unless the call was made before. Raises Replayed, or Refused(REQUEST_ID_REUSED).

        A refusal counts only if the same call did not succeed meanwhile: then it is a replay too.
        """
        await self.check(tenant, asked)
        try:
            return await act()
        except Refused:
            await self.check(tenant, asked)
            raise

    async def check(self, tenant: int, asked: Asked) -> None:
        """Raises Replayed or Refused(REQUEST_ID_REUSED) if the request id was used."""
        if not asked.request_id:
            return
        found = await self._requests.find(tenant, asked.request_id, now=self._clock.now())
        if found is None:
            return
        same = (found.principal, found.method, found.digest) == (asked.principal, asked.method, asked.digest)
        if same:
            raise Replayed(found.resource, found.from_sequence, found.response)
        raise Refused(
            Reason.REQUEST_ID_REUSED,
            f"request_id {asked.request_id!r} was used for another request",
            metadata={"request_id": asked.request_id},
        )
