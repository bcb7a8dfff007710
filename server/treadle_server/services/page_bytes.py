"""Pages of what may be large: an answer must fit into a message, and what is read for it into memory."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from treadle_server.ports.catalogue.pages import Page, Position

PAGE_BYTES_MAX = 2 * 1024 * 1024
_ROWS = 8
_ROWS_MAX = 256
"""Read at once: few first, and more while they turn out to be small."""

T = TypeVar("T")
Read = Callable[[int, Position | None], Awaitable[Page[T]]]
"""Reads at most so many after a position."""


def fitting(sizes: Iterable[int], bytes_max: int = PAGE_BYTES_MAX) -> int:
    """How many of the first items make up a page, by their bytes: one at least."""
    left, count = bytes_max, 0
    for size in sizes:
        left -= size
        if left < 0 and count:
            break
        count += 1
    return count


async def read_page(
    read: Read[T],
    *,
    limit: int,
    after: Position | None,
    size: Callable[[T], int],
    position: Callable[[T], Position],
    bytes_max: int = PAGE_BYTES_MAX,
) -> Page[T]:
    """At most so many items and bytes, but one item in any case."""
    found: list[T] = []
    left, rows = bytes_max, _ROWS
    while True:
        page = await read(min(rows, limit - len(found)), after)
        for item in page.items:
            left -= size(item)
            if found and left < 0:
                return Page(tuple(found), position(found[-1]))
            found.append(item)
        after = page.next
        if after is None or len(found) >= limit:
            return Page(tuple(found), after)
        rows = min(2 * rows, _ROWS_MAX)
