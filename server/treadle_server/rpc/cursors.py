"""Cursors of streams over several threads: opaque, and only good for the tenant and filter they came from."""

import base64
import binascii
import hashlib
from typing import Final

from treadle_server.core.errors import invalid
from treadle_server.rpc.calls import Call

_CHECK_BYTES: Final = 8
_POSITION_BYTES: Final = 8


def cursor_of(position: int, filter_text: str, call: Call) -> str:
    """The cursor after a position of the store."""
    data = position.to_bytes(_POSITION_BYTES, "big")
    return base64.urlsafe_b64encode(_check(data, filter_text, call) + data).decode().rstrip("=")


def position_of(cursor: str, filter_text: str, call: Call) -> int | None:
    """The position of a cursor; None without one. Raises Refused(FIELD_INVALID) for a foreign one."""
    if not cursor:
        return None
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _foreign() from None
    check, position = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
    if len(position) != _POSITION_BYTES or check != _check(position, filter_text, call):
        raise _foreign()
    return int.from_bytes(position, "big")


def _check(data: bytes, filter_text: str, call: Call) -> bytes:
    """Ties a cursor to its stream. It keeps mistakes out, not forgers: a position gives away nothing."""
    about = f"{call.tenant}\n{filter_text}\n".encode()
    return hashlib.sha256(about + data).digest()[:_CHECK_BYTES]


def _foreign() -> Exception:
    return invalid(("after_cursor", "must be a cursor of the same tenant and filter"))
