"""Port: domain values as the bytes that are stored and served."""

from typing import Protocol

from treadle_server.core.events import Event
from treadle_server.core.kinds import DeltaKind
from treadle_server.core.spec import Spec
from treadle_server.core.state import State
from treadle_server.ports.log import Record, StoredRecord


class Codec(Protocol):
    """Encoding is deterministic; decoding never fails on what an equal or older release encoded."""

    def encode(self, event: Event) -> Record:
        """The event as it is stored: without its thread and sequence."""
        ...

    def decode(self, stored: StoredRecord) -> Event:
        """The event; `Unknown` when a newer release wrote it."""
        ...

    def kind(self, name: str) -> int | None:
        """The number of an event type by its name in the API, `tool_call_completed`, if there is one."""
        ...

    def encode_spec(self, spec: Spec) -> bytes: ...

    def decode_spec(self, data: bytes) -> Spec: ...

    def summary(self, state: State) -> bytes:
        """A thread as its log tells it: the `Thread` message without what only its row knows."""
        ...

    def delta(self, call_id: str, attempt: int, kind: DeltaKind, offset: int, text: str) -> bytes:
        """An ephemeral piece of a message, encoded like a stored event's body."""
        ...

    def heartbeat(self, last_sequence: int) -> bytes:
        """An ephemeral sign of life, encoded like a stored event's body."""
        ...
