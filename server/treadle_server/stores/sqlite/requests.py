"""What was asked before, by request id. Units remember their own; here they are looked up."""

from treadle_server.ports.log import RequestRow
from treadle_server.stores.sqlite.readers import Readers
from treadle_server.stores.sqlite.statements import FIND_REQUEST, request_of


class SqliteRequests:
    """Implements `ports.catalogue.requests.Requests`."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def find(self, tenant: int, request_id: str, *, now: int) -> RequestRow | None:
        row = await self._readers.row(FIND_REQUEST, (tenant, request_id))
        return request_of(tenant, request_id, row, now) if row is not None else None
