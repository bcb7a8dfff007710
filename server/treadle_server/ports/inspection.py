"""Port: everything that one database file holds, looked at without changing it."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from treadle_server.ports.catalogue.approvals import ApprovalRow
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.ports.log import StoredRecord


class Inspection(Protocol):
    """A file as it is. Nothing here raises for damage: it is told, or left out after it was told."""

    def counts(self) -> dict[str, int]:
        """How many rows of each table were looked at so far."""
        ...

    def structure(self) -> Iterator[str]:
        """What is wrong with pages, indexes, the schema and the log beside the file."""
        ...

    def rows(self) -> Iterator[str]:
        """Rows beside the threads that are not as they were written, or name what is not there."""
        ...

    def threads(self) -> Iterator[ThreadRow | str]:
        """Threads that are not deleted, in order; a text says what is wrong with the one before it."""
        ...

    def records(self, row: ThreadRow) -> Iterator[StoredRecord | str]:
        """The log of a thread, 1, 2, 3; ends with a text where it cannot be read on."""
        ...

    def approvals(self, row: ThreadRow) -> Mapping[str, ApprovalRow]:
        """Those of a thread, by id. Damaged ones as such; none where they cannot be read."""
        ...

    def spec(self, row: ThreadRow) -> bytes | None:
        """None when it is missing or damaged."""
        ...
