"""Tells the storage shim what is to fail, while the server runs, and counts what it was asked."""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

PLACES = 4
"""Rules that hold at the same time."""
_RULE = struct.Struct("=8I")
_HITS_AT = 28
_COUNT = struct.Struct("=I")
_ROOM = struct.Struct("=2Q")
_ROOM_AT = PLACES * _RULE.size


class File(IntEnum):
    """The files of a database. MARKS is one more file whose writes are traced."""

    MAIN = 1
    LOG = 2
    JOURNAL = 3
    INDEX = 4
    FOLDER = 5
    MARKS = 6
    RESERVE = 7
    LOCK = 8


class Operation(IntEnum):
    OPEN = 0
    READ = 1
    WRITE = 2
    """Room that is reserved, too."""
    SYNC = 3
    TRUNCATE = 4
    UNLINK = 5
    RENAME = 6


class Action(IntEnum):
    NO_SPACE = 1
    IO_ERROR = 2
    """Of a sync: what was not synced before is lost, and later syncs say OK."""
    SHORT = 3
    """A write writes half and says so."""
    TORN = 4
    """A write writes half and fails."""
    SLOW = 5
    LIE = 6
    """A sync does nothing and says OK."""


_COUNTS_AT = _ROOM_AT + _ROOM.size + 8 * (max(File) + 1)
STORED = (File.MAIN, File.LOG, File.JOURNAL)
"""What holds data. The index is made anew from the log."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which operations fail, and how. They are counted from 1, beginning when the rule is set."""

    action: Action
    operations: tuple[Operation, ...]
    files: tuple[File, ...] = STORED
    first: int = 1
    count: int = 1
    """How many in a row; 0 means all until the rule is lifted."""
    milliseconds: int = 0
    """How much slower they are."""


class FaultyDisk:
    """The disk below one database. A context manager; its rules and counts outlive the server's process."""

    def __init__(self, folder: Path, libraries: Path, database: Path, *, marks: Path | None = None) -> None:
        """With `marks` everything is traced, with what is written to that file."""
        folder.mkdir(exist_ok=True)
        self.trace_path = folder / "trace"
        self._control = folder / "control"
        size = _COUNTS_AT + len(Operation) * (max(File) + 1) * _COUNT.size
        self._control.write_bytes(bytes(size))
        self.environment = {
            "LD_PRELOAD": str(libraries / "storage.so"),
            "STORAGE_SHIM_DATABASE": str(database),
            "STORAGE_SHIM_CONTROL": str(self._control),
        }
        if marks is not None:
            self.trace_path.touch()
            self.environment |= {
                "STORAGE_SHIM_TRACE": str(self.trace_path),
                "STORAGE_SHIM_MARKS": str(marks),
            }
        with self._control.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), size)

    def set(self, rule: Rule, place: int = 0) -> None:
        """Puts a rule into force, in the place of an older one."""
        self.lift(place)
        operations, files = _bits(rule.operations), _bits(rule.files)
        tail = (files, rule.action, rule.first, rule.count, rule.milliseconds, 0, 0)
        at = place * _RULE.size
        _RULE.pack_into(self._shared, at, 0, *tail)
        _COUNT.pack_into(self._shared, at, operations)  # last: from now on it is looked at

    def lift(self, place: int = 0) -> None:
        _COUNT.pack_into(self._shared, place * _RULE.size, 0)

    @contextmanager
    def failing(self, rule: Rule) -> Iterator[None]:
        """The rule holds within the block."""
        self.set(rule)
        try:
            yield
        finally:
            self.lift()

    def hits(self, place: int = 0) -> int:
        """Operations that the newest rule of a place hit, lifted or not."""
        return int(_COUNT.unpack_from(self._shared, place * _RULE.size + _HITS_AT)[0])

    def count(self, operation: Operation, files: tuple[File, ...] = STORED) -> int:
        """Operations since the disk was made, of all servers."""
        places = (operation * (max(File) + 1) + file for file in files)
        return sum(_COUNT.unpack_from(self._shared, _COUNTS_AT + _COUNT.size * place)[0] for place in places)

    def fill(self, room: int = 0) -> None:
        """From now on files can grow by so many bytes in all, and by what others give back."""
        _ROOM.pack_into(self._shared, _ROOM_AT, room, 1)

    def empty(self) -> None:
        """There is room again."""
        _ROOM.pack_into(self._shared, _ROOM_AT, 0, 0)

    def position(self) -> int:
        """How far the trace has come. Read after an answer it is the latest at which that was durable."""
        return self.trace_path.stat().st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._shared.close()


def _bits(members: tuple[IntEnum, ...]) -> int:
    return sum(1 << member for member in members)
