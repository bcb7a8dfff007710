"""Checksums of rows, since SQLite has none: a flipped bit must be an error and never an answer.

Texts and blobs have a CRC. Columns of numbers that an append or a filter touches have a weighted sum, which
SQL computes itself: weights are odd, so every single flipped bit changes it.
"""

from collections.abc import Mapping, Sequence
from zlib import crc32

from treadle_server.ports.log import Record
from treadle_server.stores.refusals import record_corrupt

DETAILS_INTACT = "details_intact"
"""`details_intact` as it is called in SQL."""

Value = bytes | str | int | None

IDENTITY: Mapping[str, int] = {
    "tenant": 3,
    "agent": 5,
    "version": 7,
    "session": 9,
    "create_time": 11,
    "trigger_type": 13,
    "revision": 15,
    "delete_time": 17,
}
"""Numbers of `threads` that seldom change, with their weights in `identity_sum`."""
PROGRESS: Mapping[str, int] = {
    "sequence": 3,
    "epoch": 5,
    "iteration_count": 7,
    "tool_call_count": 9,
    "total_tokens": 11,
    "cost_micros": 13,
    "state": 15,
    "stop_reason": 17,
    "state_time": 19,
    "wake_at": 21,
    "start_time": 23,
    "end_time": 25,
}
"""Numbers of `threads` that follow the log, with their weights in `progress_sum`."""
COMMIT: Mapping[str, int] = {"tenant": 3, "thread": 5, "session": 7, "root": 9, "first": 11, "last": 13}
START: Mapping[str, int] = {"agent": 3, "start_time": 5, "thread": 7, "expire_time": 9}
LINEAGE: Mapping[str, int] = {"thread": 3, "tenant": 5, "parent": 7, "root": 9}
META: Mapping[str, int] = {"schema": 3, "core": 5, "epoch": 7, "next_thread": 9}


def sum_sql(weights: Mapping[str, int], prefix: str = "") -> str:
    """The sum as SQL over columns; NULL counts as -1, which no column holds."""
    return " + ".join(f"{weight} * coalesce({prefix}{name}, -1)" for name, weight in weights.items())


def sum_of(weights: Mapping[str, int], values: Sequence[int | None]) -> int:
    """The sum of values in the order of their weights."""
    return sum(
        weight * (-1 if value is None else value)
        for weight, value in zip(weights.values(), values, strict=True)
    )


def of_record(sequence: int, record: Record) -> int:
    """Covers what the record says and where it stands in its log; a copy to a fork keeps it."""
    checksum = crc32(record.body, (sequence * 1_000_003 + record.kind) & 0xFFFFFFFF)
    return checksum if record.private is None else crc32(record.private, checksum)


def of_row(*values: Value) -> int:
    """Covers the values and where each ends. `ascii`, because `repr` changes with the tables of Unicode."""
    checksum = crc32(ascii([len(one) if isinstance(one, bytes) else one for one in values]).encode())
    for value in values:
        if isinstance(value, bytes):
            checksum = crc32(value, checksum)
    return checksum


def details_intact(checksum: int, spec_digest: bytes, *others: bytes) -> bool:
    """Of a row of `thread_details` whose texts come as blobs: what SQL would refuse to pass on as text."""
    *texts, metadata = others
    return of_row(spec_digest, *map(lenient_text, texts), metadata) == checksum


def of_row_before(*values: Value) -> int:
    """What rows of schema 1 carry. Only the migration from there asks for it."""
    checksum = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "backslashreplace")
        checksum = crc32(data, crc32(b"%d:" % len(data), checksum))
    return checksum


def lenient_text(data: bytes) -> str:
    """Text as a row holds it. Damage that is no UTF-8 must reach the checksum instead of failing the read."""
    return data.decode("utf-8", "surrogateescape")


def verify(stored: int, what: str, *values: Value, **metadata: str) -> None:
    """Raises Refused(RECORD_CORRUPT) for `what` if its values are not those that were written."""
    if of_row(*values) != stored:
        raise record_corrupt(what, **metadata)
