"""What a disk may hold after a power loss at any point of a trace, under four models of a disk.

A sync makes durable what was written to its file before it began; a name is durable once its folder was
synced. Nothing else is promised: after a loss any of it, all, or none may be there.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from tests.faults.shim.rules import File
from tests.faults.shim.trace import Kind, Record

SECTOR_BYTES = 512

Files = dict[File, bytes]
"""Contents by name; a file that is not there has none."""


class Model(Enum):
    SYNCED = "only what was synced"
    ALL = "what was synced and all that was written later"
    SOME = "what was synced and some of what was written later"
    TORN = "what was synced and some sectors of what was written later"


@dataclass(eq=False, slots=True)
class _Content:
    """A file, whatever it is called."""

    durable: bytearray
    pending: list[Record] = field(default_factory=list)

    def settle(self, until: int) -> None:
        """What was asked before this place of the trace is durable."""
        for record in self.pending:
            if record.begin < until:
                _apply(self.durable, record)
        self.pending = [record for record in self.pending if record.begin >= until]

    def forget(self, until: int) -> None:
        self.pending = [record for record in self.pending if record.begin >= until]

    def image(self, model: Model, chance: random.Random) -> bytes:
        content = bytearray(self.durable)
        share = chance.random()
        for record in self.pending if model is not Model.SYNCED else ():
            if model is Model.ALL or chance.random() < share:
                if model is Model.TORN and record.kind is Kind.WRITTEN:
                    _apply_torn(content, record, chance)
                else:
                    _apply(content, record)
        return bytes(content)


@dataclass(frozen=True, slots=True)
class _Change:
    """Of a folder: this name stands for this content, or for none."""

    place: int
    file: File
    content: _Content | None


class Disk:
    """Takes the records of a trace one by one; says at any point what may be left."""

    def __init__(self, files: Mapping[File, bytes]) -> None:
        """`files` were durable before the trace began."""
        self._now = {file: _Content(bytearray(data)) for file, data in files.items()}
        self._durable = dict(self._now)
        self._changes: list[_Change] = []

    def take(self, record: Record) -> None:
        content = self._now.get(record.file)
        match record.kind:
            case Kind.CREATED:
                self._rename(record, record.file, _Content(bytearray()))
            case Kind.UNLINKED:
                self._rename(record, record.file, None)
            case Kind.RENAMED:
                self._rename(record, File(record.offset), content)
                self._rename(record, record.file, None)
            case Kind.SYNCED if record.file is File.FOLDER:
                self._settle_names(record.offset)
            case Kind.WRITTEN | Kind.TRUNCATED if content is not None:
                content.pending.append(record)
            case Kind.SYNCED if content is not None:
                content.settle(record.offset)
            case Kind.SYNC_FAILED if content is not None:
                content.forget(record.offset)

    def after_loss(self, model: Model, chance: random.Random) -> Files:
        """What is there when the power comes back."""
        names = dict(self._durable)
        share = chance.random()
        for change in self._changes if model is not Model.SYNCED else ():
            if model is Model.ALL or chance.random() < share:
                _change(names, change)
        return {file: content.image(model, chance) for file, content in names.items()}

    def _rename(self, record: Record, file: File, content: _Content | None) -> None:
        change = _Change(record.begin, file, content)
        self._changes.append(change)
        _change(self._now, change)

    def _settle_names(self, until: int) -> None:
        for change in self._changes:
            if change.place < until:
                _change(self._durable, change)
        self._changes = [change for change in self._changes if change.place >= until]


@dataclass(frozen=True, slots=True)
class Loss:
    """The power failed when the trace had come to `place`."""

    place: int
    model: Model
    files: Files


def losses(
    records: Iterable[Record], points: Iterable[int], *, files: Mapping[File, bytes], seed: int
) -> Iterator[Loss]:
    """What is left after a loss behind the records of these numbers, under each model."""
    wanted, disk = set(points), Disk(files)
    for number, record in enumerate(records):
        if record.file is not File.MARKS:
            disk.take(record)
        if number in wanted:
            for model in Model:
                chance = random.Random(f"{seed} {number} {model.name}")
                yield Loss(record.end, model, disk.after_loss(model, chance))


def _change(names: dict[File, _Content], change: _Change) -> None:
    if change.content is None:
        names.pop(change.file, None)
    else:
        names[change.file] = change.content


def _apply(content: bytearray, record: Record) -> None:
    if record.kind is Kind.TRUNCATED:
        del content[record.offset :]
        content.extend(bytes(record.offset - len(content)))
        return
    _put(content, record.offset, record.data)


def _apply_torn(content: bytearray, record: Record, chance: random.Random) -> None:
    """Sectors of the disk, not of the write: a short write may share its sector with others."""
    share = chance.random()
    begin, end = record.offset, record.offset + len(record.data)
    while begin < end:
        next_begin = min(end, (begin // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if chance.random() < share:
            _put(content, begin, record.data[begin - record.offset : next_begin - record.offset])
        begin = next_begin


def _put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data
