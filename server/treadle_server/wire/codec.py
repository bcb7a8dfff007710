"""Events, specs and summaries as bytes: implements ports/codec."""

import re
from functools import cache
from typing import Any

from google.protobuf.message import DecodeError

from treadle.v1 import event_pb2, thread_pb2
from treadle_server.core import events as e
from treadle_server.core.kinds import DeltaKind
from treadle_server.core.mail import Told
from treadle_server.core.spec import Spec
from treadle_server.core.state import State
from treadle_server.ports.log import ApprovalChange, Record, StoredRecord
from treadle_server.record.v1 import record_pb2
from treadle_server.wire import approvals, mail, messages, threads
from treadle_server.wire.messages import Field, plan_of, to_message

_EVENT = event_pb2.ThreadEvent
_ARMS = {field.name: field for field in _EVENT.DESCRIPTOR.oneofs_by_name["payload"].fields}
_BY_NUMBER = {field.number: field for field in _ARMS.values()}


class _Arm:
    """How one kind of payload is stored."""

    __slots__ = ("cls", "kind", "name", "private", "public")

    def __init__(self, cls: type[Any]) -> None:
        field = _ARMS[snake(cls.__name__)]
        self.cls = cls
        self.name = field.name
        self.kind = field.number
        self.public: tuple[Field, ...] = plan_of(cls, field.message_type, private=False)
        self.private: tuple[Field, ...] = plan_of(cls, record_pb2.PrivateRecord.DESCRIPTOR, private=True)


def snake(name: str) -> str:
    """`ThreadCreated` -> `thread_created`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@cache
def arms() -> tuple[dict[type[Any], _Arm], dict[int, _Arm]]:
    """All payloads that this release knows, by class and by number."""
    made = [_Arm(cls) for cls in e.Payload.__args__ if cls is not e.Unknown]
    return {arm.cls: arm for arm in made}, {arm.kind: arm for arm in made}


class ProtoCodec:
    """Stateless."""

    def __init__(self) -> None:
        self._by_class, self._by_kind = arms()

    def encode(self, event: e.Event) -> Record:
        payload = event.payload
        arm = self._by_class[type(payload)]
        message = _EVENT()
        message.iteration = event.iteration
        stamp = message.event_time
        seconds, micros = divmod(event.time_micros, 1_000_000)
        stamp.seconds, stamp.nanos = seconds, micros * 1000
        part = getattr(message, arm.name)
        part.SetInParent()
        for field in arm.public:
            value = getattr(payload, field.name)
            if value is not None and value != field.default:
                field.put(part, value)
        private = _private(arm, payload) if arm.private else None
        return Record(arm.kind, message.SerializeToString(), private)

    def decode(self, stored: StoredRecord) -> e.Event:
        message = _EVENT.FromString(stored.record.body)
        stamp = message.event_time
        time_micros = stamp.seconds * 1_000_000 + stamp.nanos // 1000
        payload = self._payload(message, stored.record)
        return e.Event(stored.sequence, time_micros, message.iteration, payload)

    def _payload(self, message: event_pb2.ThreadEvent, record: Record) -> e.Payload:
        arm = self._by_kind.get(record.kind)
        if arm is None or message.WhichOneof("payload") != arm.name:
            return e.Unknown(record.kind)
        try:
            part = getattr(message, arm.name)
            values = {field.name: field.get(part) for field in arm.public}
            if arm.private and record.private:
                private = record_pb2.PrivateRecord.FromString(record.private)
                values.update({field.name: field.get(private) for field in arm.private})
        except (messages.UnknownNumber, DecodeError):
            return e.Unknown(record.kind)
        payload: e.Payload = arm.cls(**values)
        return payload

    def kind(self, name: str) -> int | None:
        field = _ARMS.get(name)
        return None if field is None else field.number

    def encode_spec(self, spec: Spec) -> bytes:
        message = record_pb2.Spec()
        to_message(spec, message)
        return message.SerializeToString(deterministic=True)

    def decode_spec(self, data: bytes) -> Spec:
        return messages.from_message(Spec, record_pb2.Spec.FromString(data))

    def summary(self, state: State) -> bytes:
        message = thread_pb2.Thread()
        threads.fill_from_state(message, state)
        return message.SerializeToString()

    def approval(self, event: e.Event) -> ApprovalChange | None:
        return approvals.change_by(event)

    def approval_of(self, body: bytes) -> str:
        return approvals.approval_of(body)

    def encode_mail(self, ask: Told) -> bytes:
        return mail.encode(ask)

    def decode_mail(self, body: bytes) -> Told | None:
        return mail.decode(body)

    def delta(self, call_id: str, attempt: int, kind: DeltaKind, offset: int, text: str) -> bytes:
        message = _EVENT()
        part = message.message_delta
        part.call_id, part.attempt, part.offset, part.text = call_id, attempt, offset, text
        part.kind = int(kind)  # type: ignore[assignment]  # the stub names the enum, the runtime takes numbers
        return message.SerializeToString()

    def heartbeat(self, last_sequence: int) -> bytes:
        message = _EVENT()
        message.heartbeat.last_sequence = last_sequence
        message.heartbeat.SetInParent()
        return message.SerializeToString()


def _private(arm: _Arm, payload: e.Payload) -> bytes | None:
    message = record_pb2.PrivateRecord()
    to_message(payload, message, arm.private)
    return message.SerializeToString() or None


def kind_name(kind: int) -> str:
    """The event type of a number: `tool_call_completed`."""
    field = _BY_NUMBER.get(kind)
    return field.name if field is not None else f"event_{kind}"
