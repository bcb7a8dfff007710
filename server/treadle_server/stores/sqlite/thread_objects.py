"""Which object of the caller's a thread is about: what access follows."""

from collections.abc import Sequence

from treadle_server.ports.log import ThreadKey
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.statements import Write

_INSERT = "INSERT INTO thread_objects (thread, tenant, parent_object, checksum) VALUES (?, ?, ?, ?)"
# By its own index, since few threads are about one object.
_ABOUT = """t.thread IN (
  SELECT o.thread FROM thread_objects o WHERE o.tenant = ? AND o.parent_object IN ({marks}))"""
DELETE_OBJECT = "DELETE FROM thread_objects WHERE thread = ?"


def insert_object(key: ThreadKey, parent_object: str) -> Write:
    checksum = checksums.of_row(key.thread, key.tenant, parent_object)
    return Write(_INSERT, (key.thread, key.tenant, parent_object, checksum))


def object_intact(thread: int, tenant: int, parent_object: str | None, checksum: int | None) -> bool:
    """A thread without a row is about no object."""
    if parent_object is None and checksum is None:
        return True
    return checksum is not None and checksums.of_row(thread, tenant, parent_object) == checksum


def about(tenant: int, objects: Sequence[str]) -> tuple[str, list[str | int]]:
    """A condition for the threads `t` that are about one of these, and its values."""
    return _ABOUT.format(marks=", ".join("?" * len(objects))), [tenant, *objects]


def reached(tenant: int, patterns: Sequence[str]) -> tuple[str, list[str | int]]:
    """A condition for the threads `t` whose object fits one of the patterns, and its values."""
    if not any(pattern.endswith("*") for pattern in patterns):
        return about(tenant, patterns)
    terms: list[str] = []
    values: list[str | int] = []
    for pattern in patterns:
        if pattern.endswith("*"):
            terms.append("substr(o.parent_object, 1, ?) = ?")
            values += [len(pattern) - 1, pattern[:-1]]
        else:
            terms.append("o.parent_object = ?")
            values.append(pattern)
    term = f"EXISTS (SELECT 1 FROM thread_objects o WHERE o.thread = t.thread AND ({' OR '.join(terms)}))"
    return term, values
