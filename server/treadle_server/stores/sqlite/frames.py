"""The write-ahead log as bytes: what SQLite leaves behind a damaged frame without a word."""

import os
import sqlite3
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from treadle_server.stores.sqlite.lock import FileLock

_HEADER = struct.Struct(">8I")  # magic, format, page size, checkpoint number, salts, checksum
_FRAME = struct.Struct(">6I")  # page, size of the file after a commit, salts, checksum
_MAGIC, _MAGIC_BIG_ENDIAN = 0x377F0682, 0x377F0683
_INDEX = struct.Struct("=3I2BH2I2I2I")  # as the documentation of the wal-index lays it out
_MASK = 0xFFFFFFFF
MARK_BYTES = 16
_VERSIONS = slice(18, 20)
"""Of the database's header: 1 and 1 in a file that has no log, as a backup is."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Transactions in the log that SQLite does not read, because something before them is damaged."""

    commits: int
    """How many; the last of them may never have been acknowledged, the others were."""
    frame: int
    """Of the log, from 1: the first that is not read; 0 = the header."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the log went when a commit was acknowledged, kept where the log is not: beside the process id
    in the lock file. Only a server's first is synced: after power loss it may tell of an earlier commit."""

    salts: bytes
    """Of the log: another one begins with other salts."""
    frame: int
    """0 = commits are not synced one by one, and the last of them may be lost."""

    def encode(self) -> bytes:
        data = self.salts + self.frame.to_bytes(4, "big")
        return data + crc32(data).to_bytes(4, "big")

    @classmethod
    def decode(cls, data: bytes) -> "Mark | None":
        if len(data) != MARK_BYTES or crc32(data[:12]).to_bytes(4, "big") != data[12:]:
            return None
        return cls(data[:8], int.from_bytes(data[8:12], "big"))


class Marker:
    """Writes the mark after every commit. Its descriptor of the index stays open as long as SQLite's own: to
    close it would drop the locks that SQLite has there."""

    def __init__(self, path: Path, lock: FileLock, *, every_commit_synced: bool) -> None:
        self._index = os.open(f"{path}-shm", os.O_RDONLY)
        self._lock = lock
        self._synced = every_commit_synced
        self.write()
        with suppress(OSError):
            lock.sync()  # that commits are not synced one by one has to be known after power loss

    def write(self) -> None:
        """Costs two calls of the system. What keeps it from being written costs only the mark."""
        with suppress(OSError, struct.error):
            values = _INDEX.unpack(os.pread(self._index, _INDEX.size, 0))
            mark = Mark(struct.pack("=2I", *values[10:12]), values[6] if self._synced else 0)
            self._lock.note(mark.encode())

    def close(self) -> None:
        os.close(self._index)


def foreign(path: Path) -> bool:
    """Whether the log is of another file: a backup was put before it, and SQLite would write it into that.

    Only while nobody in this process has the file open: to close it drops their locks.
    """
    with path.open("rb") as file, suppress(FileNotFoundError):
        return file.read(_VERSIONS.stop)[_VERSIONS] == b"\x01\x01" and os.path.getsize(f"{path}-wal") > 0
    return False


def marked_loss(path: Path, read: int, mark: Mark | None) -> bool | None:
    """Whether the log as it is read misses what was acknowledged; None if the mark does not say."""
    if mark is not None and not mark.frame:
        return False  # of whichever log it was, the server synced none
    try:
        with Path(f"{path}-wal").open("rb") as log:
            header = os.pread(log.fileno(), _HEADER.size, 0)
    except FileNotFoundError:
        return None
    if mark is None or len(header) < _HEADER.size or header[16:24] != mark.salts:
        return None
    return read < mark.frame


def dropped(connection: sqlite3.Connection, path: Path) -> Dropped | None:
    """What of the log is not read. `connection` must have read from the file before.

    A process that was killed leaves at most frames without a commit at the end of the log. Power loss can
    leave one commit that was never synced, and so never acknowledged.
    """
    try:
        with Path(f"{path}-wal").open("rb") as log:
            return _dropped(log.fileno(), frames_read(connection, path))
    except FileNotFoundError:
        return None


def frames_read(connection: sqlite3.Connection, path: Path) -> int:
    """As the index of the log says, after SQLite has recovered it; 0 without a log.

    Only while nobody else in this process has the file open: closing the index drops their locks.
    """
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    try:
        data = Path(f"{path}-shm").read_bytes()[: _INDEX.size]
    except FileNotFoundError:
        return 0
    return int(_INDEX.unpack(data)[6]) if len(data) == _INDEX.size else 0


def _dropped(log: int, read: int) -> Dropped | None:
    header = os.pread(log, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return None
    magic, _, page_size, _, *rest = _HEADER.unpack(header)
    size = os.fstat(log).st_size
    if magic not in (_MAGIC, _MAGIC_BIG_ENDIAN) or _checksum(header[:24], magic) != tuple(rest[2:]):
        frames = (size - _HEADER.size) // (page_size + _FRAME.size) if 512 <= page_size <= 65536 else 1
        return Dropped(max(1, frames), 0) if size > _HEADER.size else None
    step, commits = page_size + _FRAME.size, 0
    for place in range(_HEADER.size + read * step, size - step + 1, step):
        _, commit, *salts = _FRAME.unpack(os.pread(log, _FRAME.size, place))
        commits += bool(commit) and salts[:2] == rest[:2]
    return Dropped(commits, read + 1) if commits else None


def _checksum(data: bytes, magic: int) -> tuple[int, int]:
    first = second = 0
    words = struct.unpack(f"{'>' if magic == _MAGIC_BIG_ENDIAN else '<'}{len(data) // 4}I", data)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & _MASK
        second = (second + other + first) & _MASK
    return first, second
