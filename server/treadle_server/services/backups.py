"""Backups: copies of the whole store, made while it is in use."""

import asyncio
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.backup import Copies
from treadle_server.ports.clock import Clock
from treadle_server.services.background import Background
from treadle_server.services.requests import Asked, Replays


@dataclass(frozen=True, slots=True)
class Backup:
    """One copy, as it is answered."""

    name: str
    path: str
    size_bytes: int
    sha256: str
    create_time_micros: int
    duration_micros: int


class BackupCodec(Protocol):
    """Backups as the bytes that are answered."""

    def answer(self, backup: Backup) -> bytes:
        """The response that a repeated call gets again."""
        ...


@dataclass(frozen=True, slots=True)
class _Making:
    """A backup on its way, and for whom."""

    tenant: int
    asked: Asked
    task: "asyncio.Task[Backup]"


class Backups:
    """Makes one at a time. A caller who leaves does not end it: the same call finds it again."""

    def __init__(self, copies: Copies, codec: BackupCodec, replays: Replays, clock: Clock) -> None:
        self._copies = copies
        self._codec = codec
        self._replays = replays
        self._clock = clock
        self._background = Background()
        self._making: _Making | None = None

    async def create(self, tenant: int, asked: Asked, *, backup_id: str = "") -> Backup:
        """All that was acknowledged before this call is in it. Raises Refused, or Replayed."""
        await self._replays.check(tenant, asked)
        making = self._making
        if making is None:
            task = self._background.start(self._make(tenant, asked, backup_id))
            making = self._making = _Making(tenant, asked, task)
            task.add_done_callback(self._made)
        elif not asked.request_id or (making.tenant, making.asked) != (tenant, asked):
            raise Refused(Reason.CONCURRENCY_LIMITED, "another backup is being made", metadata={"limit": "1"})
        return await asyncio.shield(making.task)

    async def stop(self) -> None:
        """Ends the one that is being made; nothing is left of it, and its caller gets DRAINING."""
        self._copies.stop()
        if self._making is not None:
            await asyncio.wait({self._making.task})

    async def _make(self, tenant: int, asked: Asked, backup_id: str) -> Backup:
        async def act() -> Backup:
            now, began = self._clock.now(), time.monotonic()
            copy = await self._copies.make(backup_id or _new_id(now))
            backup = Backup(
                name=f"backups/{copy.path.stem}",
                path=str(copy.path),
                size_bytes=copy.size_bytes,
                sha256=copy.sha256,
                create_time_micros=now,
                duration_micros=round((time.monotonic() - began) * 1e6),
            )
            request = asked.row(resource=backup.name, response=self._codec.answer(backup), now=now)
            await self._copies.publish(copy, tenant, request)
            return backup

        return await self._replays.once(tenant, asked, act)

    def _made(self, _task: "asyncio.Task[Backup]") -> None:
        self._making = None


def _new_id(now_micros: int) -> str:
    """The time for people, and something that no other has."""
    moment = datetime.fromtimestamp(now_micros // 1_000_000, UTC)
    return f"{moment:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
