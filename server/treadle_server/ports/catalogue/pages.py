"""A page of rows, and where the next one begins."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

Position = tuple[int, int]
"""Where a page ended: the sorted value and the key of its last row."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows in order. `next` is where to go on; None after the last."""

    items: tuple[T, ...]
    next: Position | None
