"""What was made at some cost and is wanted again: kept while there is room."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """At most so many values, and together at most so many bytes: who was not asked for longest gives way."""

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._byte_count = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size: int) -> V:
        """Gives the value back. One that is larger than all the room is not kept."""
        self._drop(key)
        if size <= self._bytes_max:
            self._values[key] = (value, size)
            self._byte_count += size
        while len(self._values) > self._count_max or self._byte_count > self._bytes_max:
            self._drop(next(iter(self._values)))
        return value

    def _drop(self, key: K) -> None:
        _, size = self._values.pop(key, (None, 0))
        self._byte_count -= size
