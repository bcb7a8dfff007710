"""How a thread comes into its session: found or made, what it is told, or the one at work steered instead."""

from collections.abc import Callable
from dataclasses import dataclass

from treadle_server.core import signals as s
from treadle_server.core.errors import Reason, Refused, invalid, not_found
from treadle_server.core.kinds import StopReason
from treadle_server.core.mail import Letter
from treadle_server.core.values import Content, Context
from treadle_server.ports.catalogue.sessions import SessionRow, Sessions
from treadle_server.ports.clock import Clock
from treadle_server.ports.engine import Engine
from treadle_server.ports.log import NewSession, RequestRow, ThreadKey
from treadle_server.services.access import check_reach
from treadle_server.services.ids import new_id
from treadle_server.services.keys import Identity

INTERRUPTED_MAX = 100
"""Threads that one new thread stops; those that wait behind them have their turn before it."""
Remember = Callable[[str], RequestRow | None]
"""Makes what remembers a call that attaches to a resource."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller says of the session of a thread to start."""

    session: str
    """`sessions/{session}`; empty when it is not named so."""
    session_key: str
    parent_object: str
    context: Context


@dataclass(frozen=True, slots=True)
class Entry:
    """What a thread takes from its session. Without one the thread stands for itself."""

    session: SessionRow | None
    parent_object: str
    context: Context | None
    begins: bool
    """It is the first thread of the session: what it is told at first, all are."""
    initial_context_ignored: bool


class SessionEntries:
    """All of it for one tenant at a time: a name of another tenant does not exist."""

    def __init__(self, sessions: Sessions, engine: Engine, clock: Clock) -> None:
        self._sessions = sessions
        self._engine = engine
        self._clock = clock

    async def entry(self, caller: Identity, wanted: Wanted, agent_key: int) -> Entry:
        """Makes the session if nobody has its key.

        Raises Refused: RESOURCE_NOT_FOUND, FIELD_INVALID for another agent's or another key's session,
        PARENT_FORBIDDEN, PARENT_MISMATCH.
        """
        session = await self._session(caller, wanted, agent_key)
        if session is None:
            check_reach(caller, wanted.parent_object, "thread")
            return Entry(None, wanted.parent_object, _context(wanted.context), False, False)
        name = f"sessions/{session.id}"
        check_reach(caller, session.parent_object, name)
        if session.agent != agent_key:
            raise invalid(
                ("thread.agent", f"{name} belongs to another agent: name that one, or another session")
            )
        if wanted.parent_object not in ("", session.parent_object):
            raise _mismatch(name, session.parent_object)
        begins, context = not session.begun, wanted.context
        told = Context(context.initial if begins else session.context_initial, context.additional)
        ignored = bool(context.initial) and not begins
        return Entry(session, session.parent_object, _context(told), begins, ignored)

    async def _session(self, caller: Identity, wanted: Wanted, agent_key: int) -> SessionRow | None:
        if wanted.session:
            session = await self._sessions.get(caller.tenant, wanted.session.removeprefix("sessions/"))
            if session is None:
                raise not_found("Session", wanted.session)
            if wanted.session_key and session.session_key != wanted.session_key:
                raise invalid(("thread.session_key", f"is not the key of {wanted.session}"))
            return session
        if not wanted.session_key:
            return None
        found = await self._sessions.find(caller.tenant, wanted.session_key)
        if found is not None:
            return found
        check_reach(caller, wanted.parent_object, "session")
        new = NewSession(
            new_id(), wanted.session_key, agent_key, wanted.parent_object, create_time=self._clock.now()
        )
        return await self._sessions.create_if_absent(caller.tenant, new)

    async def interruptions(
        self, caller: Identity, session: SessionRow, thread_id: str
    ) -> tuple[Letter, ...]:
        """What a new thread tells those of its session that have not ended, so that it comes next."""
        cancel = s.Cancel(
            self._clock.now(),
            caller.principal,
            f"threads/{thread_id} of the same session came with busy_policy INTERRUPT",
            stop_reason=StopReason.INTERRUPTED,
        )
        living = await self._sessions.unfinished(session, limit=INTERRUPTED_MAX)
        return tuple(Letter(cancel, thread=f"threads/{name}") for _, name in living)

    async def steer(
        self, caller: Identity, session: SessionRow, content: Content, remember: Remember
    ) -> tuple[ThreadKey, str] | None:
        """Hands an input to the session's thread, durably; None when there is none that takes it."""
        for key, thread_id in await self._sessions.unfinished(session, limit=1):
            ask = s.SendInput(self._clock.now(), content, principal=caller.principal)
            try:
                await self._engine.ask(key, ask, remember(f"threads/{thread_id}"))
            except Refused as refused:
                if refused.reason not in (Reason.THREAD_STATE_CONFLICT, Reason.RESOURCE_NOT_FOUND):
                    raise
                return None
            return key, thread_id
        return None


def _context(context: Context) -> Context | None:
    return context if context != Context() else None


def _mismatch(session: str, parent_object: str) -> Refused:
    about = f"is about {parent_object}" if parent_object else "is about no object"
    return Refused(
        Reason.PARENT_MISMATCH,
        f"{session} {about}, and the thread is to be about another",
        metadata={"session": session, "parent_object": parent_object},
        resource=("treadle.dev/Session", session),
    )
