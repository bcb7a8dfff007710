"""Port: request ids that were used."""

from typing import Protocol

from treadle_server.ports.log import RequestRow


class Requests(Protocol):
    """What was asked before, by request id."""

    async def find(self, tenant: int, request_id: str, *, now: int) -> RequestRow | None:
        """None for an expired one."""
        ...
