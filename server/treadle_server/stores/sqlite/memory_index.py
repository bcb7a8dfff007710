"""Whether the index of memories says what their rows say.

No checksum of a row tells of damage in it: what it has lost is just not found. So it is compared as a whole,
at a start and by `treadle check`. It can be made anew from the rows.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count, repeat
from pathlib import Path

import structlog

from treadle_server.core.errors import Refused
from treadle_server.stores.sqlite.memory_rows import COLUMNS, memory_of

_LOG = structlog.get_logger(__name__)
TEXT_BYTES_MAX = 2 * 1024 * 1024
"""Of the texts whose words a start compares, in half a second; more of them are left to `treadle check`."""

# Not of the rows themselves, which may be gigabytes.
_SIZE = "SELECT coalesce(sum(text_bytes), 0) FROM memory_totals WHERE namespace = ''"
# Of its structure. What it has of each row it compares by a sum in which single bits cancel each other out.
_CHECK = "INSERT INTO memory_index (memory_index) VALUES ('integrity-check')"
_REBUILD = "INSERT INTO memory_index (memory_index) VALUES ('rebuild')"
_ROWS = f"SELECT {COLUMNS} FROM memories"
_VOCABULARY = "CREATE VIRTUAL TABLE temp.kept_{kind} USING fts5vocab('main', 'memory_index', '{kind}')"
_KEPT = "SELECT term, doc, offset FROM temp.kept_instance"
_WORDS = "SELECT memory, words FROM memories"
_TERMS = "SELECT term FROM temp.kept_row"
_TERM = "SELECT 1 FROM temp.kept_row WHERE term = ?"


def mend_index(connection: sqlite3.Connection, path: Path) -> None:
    """Makes a damaged index anew if the rows are sound. Else only the rows may be damaged, and what the index
    finds of them is told as damage when it is read.
    """
    (size,) = connection.execute(_SIZE).fetchone()
    if size > TEXT_BYTES_MAX:
        _LOG.warning("memory_index_not_checked", bytes=size, advice=f"treadle check {path}")
        return
    problem = _problem(connection)
    if problem is None:
        return
    damaged = sum(1 for _ in _damaged_rows(connection))
    advice = f"treadle check {path} names what is damaged"
    _LOG.error("memory_index_damaged", why=problem, damaged_memories=damaged, advice=advice)
    if not damaged:
        connection.execute(_REBUILD)
        _LOG.warning("memory_index_rebuilt")


def index_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """What of the index is not as the rows are, on a connection that only reads."""
    with _vocabulary(connection):
        for memory in _differing(connection):
            yield f"memory_index: it does not have the words of memory {memory}"
        for (term,) in connection.execute(_TERMS):
            if connection.execute(_TERM, (term,)).fetchone() is None:
                yield f"memory_index: {term!r} is not found in it"


def _problem(connection: sqlite3.Connection) -> str | None:
    try:
        connection.execute(_CHECK)
        with _vocabulary(connection):
            differing = _differing(connection)
    except sqlite3.DatabaseError as error:
        return str(error)
    return f"it does not have the words of {len(differing)} memories" if differing else None


@contextmanager
def _vocabulary(connection: sqlite3.Connection) -> Iterator[None]:
    """What the index has, as tables beside the file."""
    kinds = ("instance", "row")
    for kind in kinds:
        connection.execute(_VOCABULARY.format(kind=kind))
    try:
        yield
    finally:
        for kind in kinds:
            with suppress(sqlite3.DatabaseError):  # where reading has broken off
                connection.execute(f"DROP TABLE temp.kept_{kind}")


def _differing(connection: sqlite3.Connection) -> list[int]:
    """Keys of memories of which the index does not have just the words that their rows have."""
    sums: dict[int, int] = {}
    for entry in connection.execute(_KEPT):
        sums[entry[1]] = sums.get(entry[1], 0) + hash(entry)
    for memory, words in connection.execute(_WORDS):
        wanted = sum(map(hash, zip(words.split(), repeat(memory), count(), strict=False)))
        if sums.get(memory, 0) == wanted:
            sums.pop(memory, None)
        else:
            sums[memory] = wanted
    return sorted(sums)


def _damaged_rows(connection: sqlite3.Connection) -> Iterator[str]:
    for row in connection.execute(_ROWS):
        try:
            memory_of(row)
        except Refused as damage:
            yield damage.message
