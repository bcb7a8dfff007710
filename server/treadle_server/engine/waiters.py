"""Who waits for something to happen to a thread."""

import asyncio
from collections.abc import Callable

from treadle_server.ports.log import ThreadKey


class Waiters:
    """Any number of tasks may wait for one thread. Who goes away leaves nothing behind."""

    def __init__(self) -> None:
        self._futures: dict[ThreadKey, list[asyncio.Future[None]]] = {}

    async def wait(self, key: ThreadKey) -> None:
        """Returns at the next release of this thread."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(key, []).append(future)
        try:
            await future
        finally:
            waiting = self._futures.get(key, [])
            if future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._futures[key]

    def release(self, key: ThreadKey) -> None:
        for future in self._futures.pop(key, ()):
            if not future.done():
                future.set_result(None)

    def fail(self, key: ThreadKey, refusal: Callable[[], Exception]) -> None:
        """Ends every wait for this thread with a refusal of its own."""
        for future in self._futures.pop(key, ()):
            if not future.done():
                future.set_exception(refusal())

    def refuse(self, refusal: Callable[[], Exception]) -> None:
        """Ends every wait with a refusal of its own."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(refusal())
