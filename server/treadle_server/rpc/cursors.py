"""Cursors of streams over several threads: opaque, and only good for the tenant and filter they came from."""

import base64
import binascii
import hashlib
import struct
from typing import Final

from treadle_server.core.errors import Refused, invalid
from treadle_server.rpc.calls import Call
from treadle_server.services.tenant_stream import Place

_CHECK_BYTES: Final = 8
_PLACE: Final = struct.Struct(">qq")


def cursor_of(place: Place, filter_text: str, call: Call, method: str = "") -> str:
    """The cursor of a stream that has come so far; `method` is what reads on, if that is another."""
    data = _PLACE.pack(place.position, place.sequence)
    check = _check(data, filter_text, method or call.method, call.tenant)
    return base64.urlsafe_b64encode(check + data).decode().rstrip("=")


def place_of(cursor: str, filter_text: str, call: Call) -> Place | None:
    """The place of a cursor; None without one. Raises Refused(FIELD_INVALID) for a foreign one."""
    if not cursor:
        return None
    try:
        found = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _foreign() from None
    check, data = found[:_CHECK_BYTES], found[_CHECK_BYTES:]
    if len(data) != _PLACE.size or check != _check(data, filter_text, call.method, call.tenant):
        raise _foreign()
    position, sequence = _PLACE.unpack(data)
    if position < 0 or sequence < 0:
        raise _foreign()
    return Place(position, sequence)


def _check(data: bytes, filter_text: str, method: str, tenant: int) -> bytes:
    """Ties a cursor to its stream. It keeps mistakes out, not forgers: a place gives away nothing."""
    about = f"{method}\n{tenant}\n{filter_text}\n".encode()
    return hashlib.sha256(about + data).digest()[:_CHECK_BYTES]


def _foreign() -> Refused:
    return invalid(("after_cursor", "must be the cursor of an earlier stream of the same request and tenant"))
