"""The lock file beside a database: one server at a time."""

import fcntl
import os
from pathlib import Path


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


class FileLock:
    """Held until `release`, or the end of the process however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

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
                _write_pid(descriptor)
                return cls(descriptor)
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
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _write_pid(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
