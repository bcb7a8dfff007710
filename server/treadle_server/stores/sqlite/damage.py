"""Tells an operator, in the server's log, of damage that is met while serving."""

from pathlib import Path

import structlog

from treadle_server.core.errors import Refused
from treadle_server.ports.log import ThreadKey
from treadle_server.stores.sqlite.readers import Readers

_LOG = structlog.get_logger(__name__)
TOLD_MAX = 10_000
"""Of a file with more damage than that nobody needs more lines."""
_NAMES = """
SELECT n.id, t.id FROM threads t LEFT JOIN tenants n ON n.tenant = t.tenant
WHERE t.tenant = ? AND t.thread = ?"""
_TENANT = "SELECT id FROM tenants WHERE tenant = ?"


class Damages:
    """Each thread and spec is told once, however often it is read, by the name that callers know.

    It is told at the first look: an engine that looks twice may still find it whole.
    """

    def __init__(self, path: Path, readers: Readers) -> None:
        self._path = path
        self._readers = readers
        self._told: set[object] = set()

    async def thread(self, key: ThreadKey, what: str) -> None:
        """`what` of the thread is damaged: an event, or its row. Other lines may tell only its key."""
        if self._is_new(key):
            tenant, thread = await self._names(key)
            self._tell("thread_damaged", tenant=tenant, thread=thread, what=what, key=key.thread)

    async def spec(self, tenant: int, digest: bytes) -> None:
        """Threads may share it; which ones, a check of the file says."""
        if self._is_new((tenant, digest)):
            self._tell("spec_damaged", tenant=await self._tenant(tenant), digest=digest.hex())

    def _is_new(self, place: object) -> bool:
        if place in self._told or len(self._told) > TOLD_MAX:
            return False
        self._told.add(place)
        if len(self._told) > TOLD_MAX:
            self._tell("more_damage_not_told", told=TOLD_MAX)
            return False
        return True

    def _tell(self, event: str, **facts: object) -> None:
        advice = f"treadle check {self._path} names all that is damaged; the way back is a backup"
        _LOG.error(event, **facts, advice=advice)

    async def _names(self, key: ThreadKey) -> tuple[str, str]:
        try:
            row = await self._readers.row(_NAMES, (key.tenant, key.thread))
        except Refused:  # the damage is in the way
            row = None
        return (_shown(row[0]), f"threads/{_shown(row[1])}") if row is not None else ("", "")

    async def _tenant(self, tenant: int) -> str:
        try:
            row = await self._readers.row(_TENANT, (tenant,))
        except Refused:
            row = None
        return _shown(row[0]) if row is not None else ""


def _shown(text: object) -> str:
    """A damaged name need not be text that can be written."""
    return "" if text is None else str(text).encode("utf-8", "replace").decode("utf-8", "replace")
