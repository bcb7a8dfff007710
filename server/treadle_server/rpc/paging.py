"""Pages: their size, and opaque tokens that only fit the request that they came from."""

import base64
import binascii
import hashlib
import json
from typing import Any, Final

from google.protobuf.message import Message

from treadle_server.core.errors import Refused, invalid
from treadle_server.rpc.calls import Call
from treadle_server.rpc.limits import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX

PAGE_BYTES_MAX = 1024 * 1024
"""Of pages whose items differ much in size; one item may be larger."""

Place = tuple[int | str, int]
"""Where a page ended: the sorted value and the key of its last item."""

_CHECK_BYTES: Final = 12
_FREE = frozenset({"page_size", "page_token", "view"})
"""Fields that may differ from page to page."""


def page_size(asked: int) -> int:
    """How many items to give; a negative number was refused before."""
    return min(asked, PAGE_SIZE_MAX) if asked else PAGE_SIZE_DEFAULT


def token_of(place: Place | None, request: Message, call: Call) -> str:
    """The token of the next page; empty after the last."""
    if place is None:
        return ""
    payload = json.dumps(place, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_check(payload, request, call) + payload).decode().rstrip("=")


def place_of(request: Any, call: Call) -> Place | None:
    """Where the page that is asked for begins; None for the first.

    Raises Refused(FIELD_INVALID) for a token that is damaged or of another method, tenant or request.
    """
    token: str = request.page_token
    if not token:
        return None
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _foreign() from None
    check, payload = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
    if check != _check(payload, request, call):
        raise _foreign()
    return _parse(payload)


def position_of(request: Any, call: Call) -> tuple[int, int] | None:
    """As `place_of`, where the sorted value is a number."""
    place = place_of(request, call)
    if place is None:
        return None
    value, key = place
    if isinstance(value, str) or value < 0 or key < 0:
        raise _foreign()
    return value, key


def _parse(payload: bytes) -> Place:
    """The check is no signature, so what it lets through may still be forged."""
    try:
        value, key = json.loads(payload)
    except (ValueError, TypeError, RecursionError):
        raise _foreign() from None
    numbers = [number for number in (value, key) if not isinstance(number, str)]
    if isinstance(key, str) or not all(type(n) is int and abs(n) < 2**63 for n in numbers):
        raise _foreign()
    return value, key


def _check(payload: bytes, request: Message, call: Call) -> bytes:
    """Ties a token to its request. It keeps mistakes out, not forgers: a place gives away nothing."""
    bound = type(request)()
    bound.CopyFrom(request)
    for name in _FREE & {field.name for field in request.DESCRIPTOR.fields}:
        bound.ClearField(name)
    about = [call.method, str(call.tenant), bound.SerializeToString(deterministic=True).hex()]
    return hashlib.sha256("\n".join(about).encode() + b"\n" + payload).digest()[:_CHECK_BYTES]


def _foreign() -> Refused:
    return invalid(("page_token", "must be the next_page_token of an answer to the same request"))
