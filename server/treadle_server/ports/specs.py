"""Port: the pinned spec of a thread."""

from typing import Protocol

from treadle_server.core.spec import Spec
from treadle_server.ports.log import ThreadKey


class Specs(Protocol):
    """Specs are immutable, so an implementation may cache them by digest."""

    async def of_thread(self, key: ThreadKey) -> tuple[Spec, int]:
        """The spec and the session's key (0 = none) of a thread; Refused(RESOURCE_NOT_FOUND) without one."""
        ...
