"""Port: copies of the whole store, made while it is in use."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from treadle_server.ports.log import RequestRow


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that is whole, checked and durable. It does not have its name before it is published."""

    path: Path
    """Where it stands once it is published."""
    size_bytes: int
    sha256: str


class Copies(Protocol):
    """Makes copies, one at a time: to see to that is the caller's. None is ever there by half."""

    async def make(self, copy_id: str) -> Copy:
        """Copies the store as it is at one moment after this call, while others read and write.

        First removes what is left of one that was never published. To cancel it does not end it, `stop` does.
        Raises Refused: RESOURCE_EXISTS, DISK_FULL, RECORD_CORRUPT, STORE_UNAVAILABLE, DRAINING; then
        nothing is left of it.
        """
        ...

    async def publish(self, copy: Copy, tenant: int, request: RequestRow | None) -> None:
        """Gives a copy its name, never another file's, and remembers the request: both or neither.

        Raises Refused or Replayed; then nothing is left of it. After another error the next server settles
        whether it was made.
        """
        ...

    def stop(self) -> None:
        """Ends the copy that is being made, and refuses others. Returns at once."""
        ...
