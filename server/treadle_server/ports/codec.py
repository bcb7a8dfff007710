"""Port: domain values as the bytes that are stored and served."""

from typing import Protocol

from treadle_server.core.events import Event
from treadle_server.core.kinds import DeltaKind
from treadle_server.core.mail import Told
from treadle_server.core.spec import Spec
from treadle_server.core.state import State
from treadle_server.ports.log import ApprovalChange, Record, StoredRecord


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

    def approval(self, event: Event) -> ApprovalChange | None:
        """What the event makes of the row of an approval; None for one that is not about approvals."""
        ...

    def approval_of(self, body: bytes) -> str:
        """Id of the approval that a stored event is about; empty when it is about none."""
        ...

    def encode_mail(self, ask: Told) -> bytes: ...

    def decode_mail(self, body: bytes) -> Told | None:
        """None for what says nothing but that the children of its receiver are to be looked at, and for what
        a newer release wrote.
        """
        ...

    def delta(self, call_id: str, attempt: int, kind: DeltaKind, offset: int, text: str) -> bytes:
        """An ephemeral piece of a message, encoded like a stored event's body."""
        ...

    def heartbeat(self, last_sequence: int) -> bytes:
        """An ephemeral sign of life, encoded like a stored event's body."""
        ...
