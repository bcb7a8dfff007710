"""What tools really did, in a file that outlives every kill of the server that called them."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Line:
    """One effect: a tool got this far with one attempt at one call."""

    tool: str
    note: str
    """Argument that is different for every call of a test."""
    call_id: str
    key: str
    """Idempotency key."""
    attempt: int


class Ledger:
    """Appended to by servers, read by tests. A line is on the disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, line: Line) -> None:
        data = json.dumps(asdict(line)).encode() + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            written = os.write(descriptor, data)
            assert written == len(data), "a line is written whole"
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lines(self, note: str = "") -> list[Line]:
        """In the order in which they happened; with `note` those of one call."""
        if not self._path.exists():
            return []
        # A line that is being written is not there yet.
        whole = self._path.read_text().rpartition("\n")[0]
        lines = [Line(**json.loads(text)) for text in whole.splitlines()]
        return [line for line in lines if not note or line.note == note]
