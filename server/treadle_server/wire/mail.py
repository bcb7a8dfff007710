"""What threads tell each other as bytes."""

from google.protobuf.message import DecodeError

from treadle_server.core.mail import Told
from treadle_server.core.outcomes import ChildEnded
from treadle_server.core.signals import Cancel, Pause, Resume
from treadle_server.record.v1 import record_pb2
from treadle_server.wire.messages import UnknownNumber, from_message, to_message

_ARMS: dict[type[Pause] | type[Resume] | type[Cancel] | type[ChildEnded], str] = {
    Pause: "pause",
    Resume: "resume",
    Cancel: "cancel",
    ChildEnded: "child_ended",
}
_CLASSES = {arm: cls for cls, arm in _ARMS.items()}


def encode(ask: Told) -> bytes:
    message = record_pb2.Mail()
    part = getattr(message, _ARMS[type(ask)])
    part.SetInParent()
    to_message(ask, part)
    return message.SerializeToString(deterministic=True)


def decode(body: bytes) -> Told | None:
    """None for a letter without words, and for one of a newer release."""
    try:
        message = record_pb2.Mail.FromString(body)
        arm = message.WhichOneof("ask")
        return None if arm is None else from_message(_CLASSES[arm], getattr(message, arm))
    except (DecodeError, UnknownNumber):
        return None
