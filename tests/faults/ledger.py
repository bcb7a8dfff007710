"""What really happened in the world outside, in a file that outlives every kill of the server."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

BEGUN = "begun"
"""The request has arrived, and nothing is done."""
DONE = "done"
"""The effect has taken place. A line of this kind is one effect."""
ANSWERED = "answered"
"""The answer has been sent."""

MODEL = "model"
"""Stands for the tool in lines about model calls."""


@dataclass(frozen=True, slots=True)
class Line:
    """One step of one attempt at a call. Lines stand in the order in which things happened."""

    tool: str
    note: str
    """Different for every call of a test, `thread/turn/place`; of a model call `thread/turn`."""
    call_id: str = ""
    key: str = ""
    """Idempotency key."""
    attempt: int = 0
    step: str = DONE
    micros: int = 0
    """Of the clock that all processes share. BEGUN of a tool: when the server sent the call."""
    tokens: int = 0
    """Of a model's answer. No two answers have the same."""


class Ledger:
    """Appended to by the world alone, read by tests."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, line: Line) -> None:
        """The line is there, whole, when this returns, whatever is killed then."""
        data = json.dumps(asdict(line)).encode() + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            written = os.write(descriptor, data)
            assert written == len(data), "a line is written whole"
        finally:
            os.close(descriptor)

    def lines(self, note: str = "", *, step: str = DONE) -> list[Line]:
        """All effects, or all lines of another step; with `note` those of one call."""
        return [line for line in self.all() if line.step == step and (not note or line.note == note)]

    def effects(self) -> list[Line]:
        """What tools did, without model calls."""
        return [line for line in self.lines() if line.tool != MODEL]

    def all(self) -> list[Line]:
        """Every step of every call, of models too."""
        return list(self._read())

    def _read(self) -> Iterator[Line]:
        if not self._path.exists():
            return
        # A line that is being written is not there yet.
        whole = self._path.read_text().rpartition("\n")[0]
        for text in whole.splitlines():
            yield Line(**json.loads(text))
