"""Reads what the storage shim wrote down: everything that was asked of a disk, in order."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from tests.faults.shim.rules import File

_RECORD = struct.Struct("=IIQQ")


class Kind(IntEnum):
    CREATED = 1
    WRITTEN = 2
    TRUNCATED = 3
    SYNCED = 4
    SYNC_FAILED = 5
    UNLINKED = 6
    RENAMED = 7


@dataclass(frozen=True, slots=True)
class Record:
    """One operation that had an effect, or a sync that failed."""

    kind: Kind
    file: File
    offset: int
    """Of TRUNCATED the size, of SYNCED where the trace ended when the sync began, of RENAMED the new name."""
    data: bytes
    begin: int
    end: int
    """Places in the trace."""


def read_trace(path: Path) -> Iterator[Record]:
    """All records. The last one may be cut by a kill, and is then left out."""
    whole = path.read_bytes()
    begin = 0
    while begin + _RECORD.size <= len(whole):
        kind, file, offset, length = _RECORD.unpack_from(whole, begin)
        data_at = begin + _RECORD.size
        end = data_at + length
        if end > len(whole):
            return
        yield Record(Kind(kind), File(file), offset, whole[data_at:end], begin, end)
        begin = end
