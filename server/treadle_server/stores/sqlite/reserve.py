"""Room on the disk that is kept for when there is none: a file beside the database, given up in need."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 16 * 1024 * 1024
"""As much as the log takes between two checkpoints, which is some 200 threads cancelled one by one, or
thousands at once."""
_CHUNK = bytes(1024 * 1024)


def free_bytes_at(path: Path) -> int:
    """What a program without privileges can still write on the file system of a path."""
    try:
        found = os.statvfs(path)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def reserve_path(database: Path) -> Path:
    return database.with_name(database.name + "-reserve")


def give_up_left(database: Path) -> bool:
    """Lets a start have the room that a killed server kept; False if there was none."""
    try:
        reserve_path(database).unlink()
    except OSError:
        return False
    return True


class Reserve:
    """Really allocated while `held`. Made only where at least as much stays free beside it; one that a killed
    server left whole is held as it is.

    Not safe for threads: it belongs to the committer, before `start` to whoever opens the store.
    """

    def __init__(
        self,
        database: Path,
        byte_count: int = RESERVE_BYTES,
        *,
        owed: bool = False,
        free_bytes: Callable[[Path], int] = free_bytes_at,
    ) -> None:
        """No file is made or looked for when `byte_count` is 0. `owed`: given up to open the database."""
        self.path = reserve_path(database)
        self.byte_count = byte_count
        self.held = False
        self._owed = owed and byte_count > 0
        self._free_bytes = free_bytes

    @property
    def owed(self) -> bool:
        """It was given up and is not made again."""
        return self._owed

    @property
    def free_bytes(self) -> int:
        """On the file system of the database, what is held not counted."""
        return self._free_bytes(self.path.parent)

    def take(self) -> bool:
        """Allocates the file if there is room for twice as much; whether it is there now."""
        if not self.held and self.byte_count and self._fits(self._on_disk()):
            self.held = self._allocate()
            self._owed = self._owed and not self.held
        return self.held

    def give_up(self) -> bool:
        """Lets others have the room, this process's log among them; False if there was none to give."""
        had, self.held = self.held, False
        self._owed = self._owed or had
        if self.byte_count:
            self._remove()
        return had

    @property
    def has_room(self) -> bool:
        """Whether ordinary work may go on: one that was given up can be made again."""
        return not self._owed or self.free_bytes >= 2 * self.byte_count

    def restore(self) -> bool:
        """Makes again what was given up; False if there is no room for it after all."""
        return self.take() or not self._owed

    def _fits(self, present: int) -> bool:
        return present >= self.byte_count or self.free_bytes + present >= 2 * self.byte_count

    def _allocate(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return False
        try:
            _fill(descriptor, self.byte_count)
        except OSError:
            self._remove()
            return False
        finally:
            os.close(descriptor)
        return True

    def _on_disk(self) -> int:
        """Of a file that a killed server left."""
        try:
            return self.path.stat().st_blocks * 512
        except OSError:
            return 0

    def _remove(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _fill(descriptor: int, byte_count: int) -> None:
    """Blocks and not a hole, also where the system has no call for it."""
    os.ftruncate(descriptor, min(byte_count, os.fstat(descriptor).st_size))
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, byte_count)
        return
    for offset in range(0, byte_count, len(_CHUNK)):
        os.pwrite(descriptor, _CHUNK[: byte_count - offset], offset)
