"""Calls of SessionService. A session is named by its id, or by `sessions/{session}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from treadle.calls import names
from treadle.calls.call import Pages, Stream, Unary, request_id_or_new
from treadle.followers import TenantFollower
from treadle.v1 import session_service_pb2 as rpc
from treadle.v1.session_pb2 import Session, SessionMessage
from treadle.v1.thread_service_pb2 import WatchThreadResponse


def get_session(session: str) -> Unary[Session]:
    """Answers a session as it is now."""
    return Unary(rpc.GetSessionRequest(name=names.session(session)), Session)


def lookup_session(session_key: str) -> Unary[Session]:
    """Answers the session that threads were started in by this key."""
    return Unary(rpc.LookupSessionRequest(session_key=session_key), Session)


def list_sessions(*, filter: str = "", page_size: int = 0) -> Pages[Session]:
    """Lists sessions, newest first, and fetches pages as they are needed."""
    request = rpc.ListSessionsRequest(filter=filter, page_size=page_size)
    return Pages(request, rpc.ListSessionsResponse, lambda page: page.sessions)


def update_session(
    session: str, *, labels: Mapping[str, str], etag: str = "", request_id: str = ""
) -> Unary[Session]:
    """Replaces the labels of a session."""
    request = rpc.UpdateSessionRequest(
        session=Session(name=names.session(session), etag=etag, labels=labels),
        update_mask=FieldMask(paths=["labels"]),
        request_id=request_id_or_new(request_id),
    )
    return Unary(request, Session)


def delete_session(
    session: str, *, force: bool = False, etag: str = "", request_id: str = ""
) -> Unary[Empty]:
    """Deletes a session and frees its key; its threads stay. With `force` they are cancelled first."""
    request = rpc.DeleteSessionRequest(
        name=names.session(session), force=force, etag=etag, request_id=request_id_or_new(request_id)
    )
    return Unary(request, Empty)


def list_session_messages(session: str, *, page_size: int = 0) -> Pages[SessionMessage]:
    """Lists what was said in a session, oldest first."""
    request = rpc.ListSessionMessagesRequest(parent=names.session(session), page_size=page_size)
    return Pages(request, rpc.ListSessionMessagesResponse, lambda page: page.messages)


def watch_session(
    session: str,
    *,
    after_cursor: str = "",
    include_heartbeats: bool = False,
    event_types: Sequence[str] = (),
    timeout: float | None = None,
) -> Stream[WatchThreadResponse]:
    """Gives the events of a session's threads in batches, without an end, across disconnects.

    The `cursor` of a batch is where another watch of the same session goes on after it.
    """
    request = rpc.WatchSessionRequest(
        name=names.session(session), after_cursor=after_cursor, event_types=event_types
    )
    return Stream(WatchThreadResponse, lambda: TenantFollower(request, include_heartbeats), timeout)
