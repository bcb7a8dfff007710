"""Pages by keyset: a page begins where the last one ended, and never counts rows to skip."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.stores.sqlite.readers import Row

T = TypeVar("T")

KEY_MAX = 2**63 - 1


def before(after: Position | None) -> int:
    """The key that rows of a list with the newest first must be below."""
    return KEY_MAX if after is None else after[1]


def page_of(rows: Sequence[Row], limit: int, make: Callable[[Row], T]) -> Page[T]:
    """A page of rows read with `limit + 1` that begin with their keys: one more says that a page follows."""
    kept = rows[:limit]
    follows = len(rows) > limit and bool(kept)
    return Page(tuple(make(row) for row in kept), (kept[-1][0], kept[-1][0]) if follows else None)
