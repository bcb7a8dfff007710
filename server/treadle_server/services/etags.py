"""Changes to what somebody else may be changing too."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from treadle_server.core.errors import Reason, Refused

T = TypeVar("T")

_ATTEMPTS_MAX = 10


def check_etag(given: str, present: str, name: str) -> None:
    """Raises Refused(ETAG_MISMATCH) if an etag was given and is not the present one."""
    if given and given != present:
        raise Refused(
            Reason.ETAG_MISMATCH, f"{name} has changed since it was read", metadata={"etag": present}
        )


async def change(act: Callable[[], Awaitable[T]]) -> T:
    """Reads, decides and writes again as long as another writer came between.

    `act` compares the caller's etag itself, so a caller who gave one is refused and not overruled.
    """
    for _ in range(_ATTEMPTS_MAX - 1):
        try:
            return await act()
        except Refused as refused:
            if refused.reason is not Reason.ETAG_MISMATCH or "etag" in refused.metadata:
                raise
    return await act()
