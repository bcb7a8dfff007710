"""From the committer's thread to the event loop: outcomes of units, and that the store has failed."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from treadle_server.ports.log import Fenced, StoreFailed
from treadle_server.stores.sqlite.inbox import Inbox, Work, WorkTicket
from treadle_server.stores.sqlite.unwritten import not_begun, refusal_after

OnApplied = Callable[[Sequence[Work]], None]
OnFatal = Callable[[Exception], None]


class Delivery:
    """Made on the event loop. What arrives there arrives in the order in which it was posted."""

    def __init__(self, inbox: Inbox, on_fatal: OnFatal) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox = inbox
        self._on_fatal = on_fatal
        self._listeners: list[OnApplied] = []
        self.failure: Fenced | StoreFailed | None = None
        """Why nothing is written any more."""

    def subscribe(self, listener: OnApplied) -> None:
        """Calls `listener` on the loop after each COMMIT with the work that was applied, in order."""
        self._listeners.append(listener)

    def _deliver(self, batch: Sequence[WorkTicket]) -> None:
        applied = [ticket.work for ticket in batch if ticket.error is None]
        for listener in self._listeners if applied else ():
            try:
                listener(applied)
            except Exception as error:  # a faulty listener must not keep others from their answers
                context = {"message": f"{listener!r} failed after a commit", "exception": error}
                self._loop.call_exception_handler(context)
        for ticket in batch:
            ticket.resolve()

    # What follows runs on the committer's thread.

    def settled(self, batch: Sequence[WorkTicket]) -> None:
        """Tells all who wait for these outcomes. Nobody changes the tickets any more."""
        self.post(self._deliver, batch)

    def fail(self, reason: Fenced | StoreFailed) -> None:
        """Nothing is written any more: what waits in the inbox is answered, and `on_fatal` called, once."""
        if self.failure is not None:
            return
        self.failure = reason
        self._inbox.close(refusal_after(reason))
        self.settled(not_begun(self._inbox.drain(), reason))
        self.post(self._on_fatal, reason)

    def post(self, callback: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return
