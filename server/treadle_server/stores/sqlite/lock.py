"""The lock file beside a database: one server at a time."""

import fcntl
import os
from pathlib import Path

_NOTE_OFFSET = 32
_NOTE_BYTES_MAX = 64


class FileUnusable(Exception):  # noqa: N818 - the text says what to do about it
    """The database file cannot be served, and why."""


class FileLocked(FileUnusable):
    """Another server has the file. `pid` is 0 when it did not say."""

    def __init__(self, path: Path, pid: int) -> None:
        owner = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{path} is served by {owner}; stop it first, or take the file over if it is frozen (--take-over)"
        )
        self.pid = pid


class FileWedged(FileUnusable):
    """A frozen server holds SQLite's own lock, which only its end sets free."""

    def __init__(self, path: Path, pid: int) -> None:
        owner = f"process {pid}" if pid else "the process that serves it"
        super().__init__(
            f"{path} cannot be taken over: {owner} was frozen within a change and holds the file's lock; "
            f"end it (kill -KILL{f' {pid}' if pid else ''}), then start again"
        )
        self.pid = pid


class FileLock:
    """Held until `release`, or the end of the process however it ends."""

    def __init__(self, descriptor: int, noted: bytes = b"") -> None:
        self._descriptor = descriptor
        self.noted = noted
        """What the holder before this one noted last."""

    @classmethod
    def acquire(cls, database: Path) -> "FileLock":
        """Raises FileLocked at once if another server holds it."""
        path = _lock_path(database)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                pid = _read_pid(descriptor)
                os.close(descriptor)
                raise FileLocked(database, pid) from error
            if _is_at(descriptor, path):
                noted = os.pread(descriptor, _NOTE_BYTES_MAX, _NOTE_OFFSET)
                _write_pid(descriptor)
                return cls(descriptor, noted)
            os.close(descriptor)  # a take-over put another file here meanwhile

    @classmethod
    def take_over(cls, database: Path) -> "FileLock":
        """Puts a new lock file in the place of the old, whoever holds that: the epoch keeps it out."""
        path = _lock_path(database)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_pid(descriptor)
        os.replace(fresh, path)
        return cls(descriptor)

    def note(self, data: bytes) -> None:
        """Leaves something for the next holder, without waiting for the disk."""
        os.pwrite(self._descriptor, data, _NOTE_OFFSET)

    def sync(self) -> None:
        """Returns once the disk has what was noted."""
        os.fsync(self._descriptor)

    def release(self) -> None:
        """The file stays: to remove it would let two servers lock two files of one name."""
        os.close(self._descriptor)


def _lock_path(database: Path) -> Path:
    return database.with_name(database.name + "-lock")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _read_pid(descriptor: int) -> int:
    text = os.pread(descriptor, _NOTE_OFFSET, 0).partition(b"\n")[0].strip()
    return int(text) if text.isdigit() else 0


def _write_pid(descriptor: int) -> None:
    """Leaves the note where it is."""
    os.pwrite(descriptor, (b"%d\n" % os.getpid()).ljust(_NOTE_OFFSET), 0)
