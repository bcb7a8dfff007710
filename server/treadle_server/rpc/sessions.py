"""Servicer of SessionService."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from treadle.v1 import session_pb2, session_service_pb2
from treadle_server.core.errors import invalid
from treadle_server.core.objects import reaches
from treadle_server.ports.catalogue.sessions import SessionPlace, SessionRow
from treadle_server.ports.codec import Codec
from treadle_server.rpc import masks
from treadle_server.rpc.calls import Call, StreamChunk
from treadle_server.rpc.cursors import cursor_of
from treadle_server.rpc.cursors import place_of as cursor_place_of
from treadle_server.rpc.digests import asked
from treadle_server.rpc.event_streams import batch_response, kinds_of, told
from treadle_server.rpc.paging import PAGE_BYTES_MAX, Place, page_size, place_of, position_of, token_of
from treadle_server.rpc.session_filters import session_filter
from treadle_server.services.sessions import Sessions, etag_of
from treadle_server.services.tenant_stream import TenantStream, Unreadable
from treadle_server.wire.messages import to_message
from treadle_server.wire.threads import put_time

_pb = session_service_pb2
_UPDATABLE = frozenset({"labels"})


class SessionMessages:
    """Implements `services.sessions.SessionCodec`."""

    def answer(self, row: SessionRow) -> bytes:
        return session_message(row).SerializeToString()


class SessionServicer:
    """Reads, calls, answers."""

    def __init__(self, sessions: Sessions, stream: TenantStream, codec: Codec) -> None:
        self._sessions = sessions
        self._stream = stream
        self._codec = codec

    async def GetSession(self, request: _pb.GetSessionRequest, call: Call) -> Message:
        return session_message(await self._sessions.get(call.identity, request.name))

    async def LookupSession(self, request: _pb.LookupSessionRequest, call: Call) -> Message:
        return session_message(await self._sessions.lookup(call.identity, request.session_key))

    async def ListSessions(self, request: _pb.ListSessionsRequest, call: Call) -> Message:
        page = await self._sessions.list(
            call.identity,
            session_filter(request.filter),
            limit=page_size(request.page_size),
            after=position_of(request, call),
        )
        return _pb.ListSessionsResponse(
            sessions=[session_message(row) for row in page.items],
            next_page_token=token_of(page.next, request, call),
        )

    async def UpdateSession(self, request: _pb.UpdateSessionRequest, call: Call) -> Message:
        def wanted(row: SessionRow) -> dict[str, str]:
            present = session_pb2.Session(labels=row.labels)
            masks.apply(request.update_mask, request.session, present, _UPDATABLE)
            return dict(present.labels)

        session = request.session
        row = await self._sessions.update(
            call.identity, session.name, session.etag, wanted, asked(request, call)
        )
        return session_message(row)

    async def DeleteSession(self, request: _pb.DeleteSessionRequest, call: Call) -> Message:
        await self._sessions.delete(
            call.identity,
            request.name,
            etag=request.etag,
            force=request.force,
            asked=asked(request, call),
        )
        return Empty()

    async def ListSessionMessages(self, request: _pb.ListSessionMessagesRequest, call: Call) -> Message:
        page = await self._sessions.messages(
            call.identity,
            request.parent,
            _session_place(place_of(request, call)),
            limit=page_size(request.page_size),
            bytes_max=PAGE_BYTES_MAX,
        )
        response = _pb.ListSessionMessagesResponse()
        for message in page.messages:
            to_message(message, response.messages.add())
        response.next_page_token = token_of(_token_place(page.next), request, call)
        return response

    async def WatchSession(
        self, request: _pb.WatchSessionRequest, call: Call
    ) -> AsyncGenerator[StreamChunk, None]:
        kinds = kinds_of(self._codec, request.event_types)
        after = cursor_place_of(request.after_cursor, request.name, call)
        session = await self._sessions.get(call.identity, request.name)
        patterns = call.identity.object_patterns
        batches = self._stream.follow(
            call.tenant,
            after,
            lambda row: row.session == session.key and reaches(patterns, row.parent_object),
            kinds,
        )
        try:
            async with aclosing(batches):
                async for batch in batches:
                    cursor = cursor_of(batch.place, request.name, call)
                    yield StreamChunk(batch_response(self._codec, batch, cursor), cursor=cursor)
        except Unreadable as damage:
            raise told(damage, cursor_of(damage.place, request.name, call)) from damage


def session_message(row: SessionRow) -> session_pb2.Session:
    """A session as it is served."""
    message = session_pb2.Session(
        name=f"sessions/{row.id}",
        display_id=f"S-{row.number}",
        session_key=row.session_key,
        agent=f"agents/{row.agent_id}" if row.agent_id else "",
        parent_object=row.parent_object,
        context_initial=row.context_initial,
        labels=row.labels,
        active_thread=f"threads/{row.active_thread_id}" if row.active_thread_id else "",
        etag=etag_of(row),
    )
    put_time(message.create_time, row.create_time)
    put_time(message.update_time, row.update_time)
    return message


def _token_place(place: SessionPlace | None) -> Place | None:
    """Of the three numbers the first two go as a text."""
    return None if place is None else (f"{place.create_time}:{place.thread}", place.sequence)


def _session_place(place: Place | None) -> SessionPlace | None:
    if place is None:
        return None
    first, sequence = place
    create_time, _, thread = str(first).partition(":")
    if not (create_time.isdecimal() and thread.isdecimal()) or len(create_time) + len(thread) > 36:
        raise invalid(("page_token", "must be the next_page_token of an answer to the same request"))
    return SessionPlace(int(create_time), int(thread), sequence)
