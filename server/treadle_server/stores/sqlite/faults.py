"""What an error of SQLite means: whose fault it is, and whether anything can be written after it."""

import sqlite3
from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType


class Fault(Enum):
    """The kinds of error that the store tells apart."""

    FULL = auto()
    """There is no room. Rolled back; it heals by itself, and until then the units wait."""
    BUSY = auto()
    """Another process holds a lock of the file. Rolled back; the units wait."""
    DAMAGE = auto()
    """A page is not as it was written: a matter of the unit, or the read, that met it."""
    UNIT = auto()
    """A unit that cannot be carried out, by a bug of ours. The others are none the worse."""
    STORE = auto()
    """Nothing can be written or read any more: the process stops."""


FAULTS: Mapping[int, Fault] = MappingProxyType(
    {
        sqlite3.SQLITE_ERROR: Fault.UNIT,
        sqlite3.SQLITE_INTERNAL: Fault.STORE,
        sqlite3.SQLITE_PERM: Fault.STORE,
        sqlite3.SQLITE_ABORT: Fault.UNIT,
        sqlite3.SQLITE_BUSY: Fault.BUSY,
        sqlite3.SQLITE_LOCKED: Fault.BUSY,
        sqlite3.SQLITE_NOMEM: Fault.STORE,
        sqlite3.SQLITE_READONLY: Fault.STORE,
        sqlite3.SQLITE_INTERRUPT: Fault.UNIT,
        sqlite3.SQLITE_IOERR: Fault.STORE,
        sqlite3.SQLITE_CORRUPT: Fault.DAMAGE,
        sqlite3.SQLITE_NOTFOUND: Fault.UNIT,
        sqlite3.SQLITE_FULL: Fault.FULL,
        sqlite3.SQLITE_CANTOPEN: Fault.STORE,
        sqlite3.SQLITE_PROTOCOL: Fault.STORE,
        sqlite3.SQLITE_EMPTY: Fault.UNIT,
        sqlite3.SQLITE_SCHEMA: Fault.UNIT,
        sqlite3.SQLITE_TOOBIG: Fault.UNIT,
        sqlite3.SQLITE_CONSTRAINT: Fault.UNIT,
        sqlite3.SQLITE_MISMATCH: Fault.UNIT,
        sqlite3.SQLITE_MISUSE: Fault.UNIT,
        sqlite3.SQLITE_NOLFS: Fault.STORE,
        sqlite3.SQLITE_AUTH: Fault.STORE,
        sqlite3.SQLITE_FORMAT: Fault.UNIT,
        sqlite3.SQLITE_RANGE: Fault.UNIT,
        sqlite3.SQLITE_NOTADB: Fault.DAMAGE,
    }
)
"""By primary result code: every one that SQLite documents as an error."""

_WAITING = frozenset({Fault.FULL, Fault.BUSY})


def fault_of(error: Exception, *, committing: bool = False) -> Fault:
    """The kind of an error. Of a COMMIT that failed nobody knows whether it is there, unless it was
    refused for want of room or a lock.
    """
    if isinstance(error, MemoryError):  # how Python's module tells of SQLITE_NOMEM
        return Fault.STORE
    code = getattr(error, "sqlite_errorcode", None)
    fault = Fault.UNIT if code is None else FAULTS.get(code & 0xFF, Fault.STORE)
    return Fault.STORE if committing and fault not in _WAITING else fault
