"""Notices readers of streams that do not read, with one timer for all streams."""

import asyncio
from typing import Protocol


class Writer(Protocol):
    """A stream that is writing."""

    def stalled(self) -> None:
        """Its write has been blocked for too long. Must not block."""
        ...


class Stalls:
    """Tells a writer when one write has lasted `seconds`. Costs two dictionary operations a write."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[Writer, float] = {}  # in order of begin, so in order of deadline
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, writer: Writer) -> None:
        """The writer's next write begins."""
        loop = asyncio.get_running_loop()
        self._deadlines[writer] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look, loop)

    def end(self, writer: Writer) -> None:
        """The write has returned."""
        self._deadlines.pop(writer, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        late = []
        for writer, deadline in self._deadlines.items():
            if deadline > now:
                self._timer = loop.call_at(deadline, self._look, loop)
                break
            late.append(writer)
        for writer in late:
            del self._deadlines[writer]
            writer.stalled()
