"""Checksums of rows, since SQLite has none: a flipped bit must be an error and never an answer."""

from zlib import crc32

from treadle_server.ports.log import Record
from treadle_server.stores.refusals import record_corrupt


def of_record(sequence: int, record: Record) -> int:
    """Covers what the record says and where it stands in its log; a copy to a fork keeps it."""
    checksum = crc32(record.body, (sequence * 1_000_003 + record.kind) & 0xFFFFFFFF)
    return checksum if record.private is None else crc32(record.private, checksum)


def of_row(*values: bytes | str | int | None) -> int:
    """Covers the values and where each ends."""
    checksum = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "backslashreplace")
        checksum = crc32(data, crc32(b"%d:" % len(data), checksum))
    return checksum


def verify(stored: int, what: str, *values: bytes | str | int | None, **metadata: str) -> None:
    """Raises Refused(RECORD_CORRUPT) for `what` if its values are not those that were written."""
    if of_row(*values) != stored:
        raise record_corrupt(what, **metadata)
