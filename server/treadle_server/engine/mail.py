"""Brings what threads tell each other to those that are told."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog

from treadle_server import failpoints
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.mail import Told
from treadle_server.ports.codec import Codec
from treadle_server.ports.log import Conflict, Fenced, StoreFailed, ThreadKey
from treadle_server.ports.mail import Letter, Mailbox

_LOG = structlog.get_logger(__name__)
PAGE = 200
AT_ONCE = 64
"""Threads that are told something at one time."""
_LATER = frozenset({Reason.DISK_FULL, Reason.STORE_UNAVAILABLE, Reason.DRAINING})

Tell = Callable[[ThreadKey, Told, int], Awaitable[object]]
"""Records what a thread is told, and takes the letter at that position with it. Raises what refuses it."""
Look = Callable[[ThreadKey], Awaitable[Sequence[Told]]]
"""What the children of a thread have to tell it that it does not know."""
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Postman:
    """Each thread is told in order, and several at one time. A letter stays until its thread has taken it.

    Woken by every commit with mail, by the sweeper, and when a server begins: what a crash left lies there.
    """

    def __init__(self, mailbox: Mailbox, codec: Codec, tell: Tell, look: Look, spawn: Spawn) -> None:
        self._mailbox = mailbox
        self._codec = codec
        self._tell = tell
        self._look = look
        self._spawn = spawn
        self._round: asyncio.Task[None] | None = None
        self._woken = False
        self._told: set[ThreadKey] = set()
        """Threads that are being told something."""
        self._left_out = False
        """Letters were left where they are because their threads were busy."""
        self.draining = False

    def wake(self) -> None:
        """There may be mail."""
        self._woken = True
        if self._round is None and not self.draining:
            self._round = self._spawn(self._go_round())

    async def _go_round(self) -> None:
        try:
            while self._woken and not self.draining:
                self._woken = self._left_out = False
                await self._hand_out()
        except (Fenced, StoreFailed):
            return
        except Exception:
            _LOG.exception("mail_not_read")
        finally:
            self._round = None

    async def _hand_out(self) -> None:
        after, busy = 0, frozenset(self._told)
        while True:
            page = await self._mailbox.waiting(after=after, limit=PAGE)
            letters: dict[ThreadKey, list[Letter]] = {}
            for letter in page:
                letters.setdefault(letter.key, []).append(letter)
            for key, found in letters.items():
                if key in self._told or len(self._told) >= AT_ONCE:
                    self._left_out = True
                elif key in busy:  # it has taken some since: what was read may be gone
                    self._woken = True
                else:
                    self._told.add(key)
                    self._spawn(self._bring(key, found))
            if len(page) < PAGE:
                return
            if len(self._told) >= AT_ONCE:  # whoever is done first looks for the rest
                self._left_out = True
                return
            after = page[-1].position

    async def _bring(self, key: ThreadKey, letters: Sequence[Letter]) -> None:
        """Stops at the first that is for later: the others come after it."""
        kept = False
        try:
            for letter in letters:
                if self.draining or not await self._deliver(letter):
                    kept = True
                    return
        except (Fenced, StoreFailed):
            kept = True
        except Exception:
            kept = True
            _LOG.exception("mail_not_delivered", thread=key.thread)
        finally:
            self._told.discard(key)
            if self._left_out and not kept:
                self.wake()

    async def _deliver(self, letter: Letter) -> bool:
        """False when it is to be told later."""
        if failpoints.ACTIVE:
            failpoints.hit("mail.before")
        ask = self._codec.decode_mail(letter.body) if letter.body is not None else None
        try:
            if ask is not None:
                await self._tell(letter.key, ask, letter.position)
                return True
            if letter.body is None:
                _LOG.error("letter_damaged", thread=letter.key.thread, position=letter.position)
            for answer in await self._look(letter.key):
                await self._tell(letter.key, answer, 0)
        except Conflict:
            return False
        except Refused as refused:
            if refused.reason in _LATER:
                return False
            _LOG.info("told_too_late", thread=letter.key.thread, why=refused.message)
        await self._mailbox.drop(letter)
        return True
