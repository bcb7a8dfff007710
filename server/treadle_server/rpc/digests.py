"""What a repeated call is recognised by."""

import hashlib
from functools import cache

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from treadle_server.rpc.calls import Call
from treadle_server.services.requests import Asked

_MEANINGLESS = frozenset(
    {
        "request_id",
        "view",
        "after_sequence",
        "after_cursor",
        "include_deltas",
        "include_children",
        "event_types",
        "snapshot",
        "on_deadline",
    }
)
"""Fields that change how a call is answered, and not what it does."""


def request_digest(request: Message) -> bytes:
    """The same for two requests that ask for the same. Give it a request that was validated."""
    copy = type(request)()
    copy.CopyFrom(request)
    for name in _ignored(request.DESCRIPTOR):
        copy.ClearField(name)
    copy.DiscardUnknownFields()
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).digest()


def asked(request: Message, call: Call) -> Asked:
    """The call as its caller may repeat it. The request must have a `request_id`."""
    request_id: str = getattr(request, "request_id")  # noqa: B009 - every mutation has one
    digest = request_digest(request) if request_id else b""
    return Asked(call.principal, call.method, request_id, digest)


@cache
def _ignored(descriptor: Descriptor) -> tuple[str, ...]:
    return tuple(field.name for field in descriptor.fields if field.name in _MEANINGLESS)
