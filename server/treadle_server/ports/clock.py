"""Port: what time it is."""

from typing import Protocol


class Clock(Protocol):
    """Wall time that never goes back within a process, whatever is done to the machine's clock."""

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        ...
