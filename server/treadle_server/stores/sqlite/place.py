"""The file that a path names: whether it can be a database, and whether it still is the same."""

import errno
import os
import stat
from pathlib import Path

from treadle_server.ports.log import Fenced
from treadle_server.stores.sqlite.lock import FileUnusable


class Place:
    """Of an open database: what is written to a file that nobody finds again is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found = os.stat(path)

    def check(self) -> None:
        """Raises Fenced when the file was moved away, deleted or replaced."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            raise Fenced(f"{self._path} is gone") from None
        except OSError:
            return
        if not os.path.samestat(found, self._found):
            raise Fenced(f"{self._path} is another file now")


def check_usable(path: Path) -> None:
    """Raises FileUnusable for a path at which no database can be, before anything is made beside it.

    Looks and does not open: that would drop SQLite's own locks on a file that this process has open.
    """
    try:
        if not stat.S_ISDIR(os.stat(path.parent).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise unusable(path, f"its folder {path.parent}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise unusable(path, f"its folder {path.parent} cannot be written, and SQLite keeps files there")
    if not path.exists():
        return
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise unusable(path, "it is a folder" if stat.S_ISDIR(mode) else "it is not a file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise unusable(path, "it cannot be read and written by this user")


def unusable(path: Path, why: str) -> FileUnusable:
    return FileUnusable(f"{path} cannot be opened: {why}")
