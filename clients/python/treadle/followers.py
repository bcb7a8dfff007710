"""Where a reader stands in a stream, so that it can go on elsewhere without losing or repeating anything."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.errors import TreadleError
from treadle.v1.approval_service_pb2 import WatchApprovalsRequest, WatchApprovalsResponse
from treadle.v1.event_pb2 import MessageDelta, ThreadEvent
from treadle.v1.session_service_pb2 import WatchSessionRequest
from treadle.v1.thread_service_pb2 import (
    ExecuteAgentStreamRequest,
    WatchThreadRequest,
    WatchThreadResponse,
    WatchThreadsRequest,
)


class Pieces:
    """How much of each message was seen, in code points, since a server begins anew for a late reader."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], tuple[int, int]] = {}

    def unseen(self, delta: MessageDelta) -> bool:
        """Cuts off what was seen before; false when nothing is left."""
        key = (delta.call_id, delta.kind)
        attempt, end = self._seen.get(key, (0, 0))
        if delta.attempt < attempt:
            return False
        if delta.attempt > attempt:
            end = 0
        if delta.offset < end:
            delta.text = delta.text[end - delta.offset :]
            delta.offset = end
        self._seen[key] = (delta.attempt, delta.offset + len(delta.text))
        return bool(delta.text)

    def forget(self, call_id: str) -> None:
        """No more pieces follow of this call."""
        for kind in (MessageDelta.TEXT, MessageDelta.THOUGHT):
            self._seen.pop((call_id, kind), None)


class ThreadFollower:
    """A position in the log of one thread, which may have to be made first."""

    def __init__(
        self, start: WatchThreadRequest | ExecuteAgentStreamRequest, include_heartbeats: bool
    ) -> None:
        self._start = start
        self._include_heartbeats = include_heartbeats
        self._thread = start.name if isinstance(start, WatchThreadRequest) else ""
        self._last = start.after_sequence
        self._started = False
        self._ended = False
        self._pieces = Pieces()

    def request(self) -> WatchThreadRequest | ExecuteAgentStreamRequest:
        """The first request again as long as it gave nothing, then a watch from the last sequence on."""
        if not self._started:
            return self._start
        return WatchThreadRequest(
            name=self._thread,
            after_sequence=self._last,
            include_deltas=self._start.include_deltas,
            event_types=self._start.event_types,
        )

    def take(self, response: WatchThreadResponse) -> Iterator[ThreadEvent]:
        for event in response.events:
            if event.thread:
                self._thread = event.thread
                self._started = True
            if self._is_new(event):
                yield event

    def interrupted(self, error: TreadleError) -> bool:
        if error.thread and not self._thread:
            self._thread = error.thread
            self._started = True
        return not self._ended

    def _is_new(self, event: ThreadEvent) -> bool:
        if event.sequence:
            if event.sequence <= self._last:
                return False
            self._last = event.sequence
        match event.WhichOneof("payload"):
            case "heartbeat":
                return self._include_heartbeats
            case "message_delta":
                return self._pieces.unseen(event.message_delta)
            case "message_completed":
                self._pieces.forget(event.message_completed.call_id)
            case "thread_ended":
                self._ended = True
        return True


class ApprovalFollower:
    """A position in the changes of all approvals. Without a cursor yet it begins anew."""

    def __init__(self, start: WatchApprovalsRequest) -> None:
        self._request = WatchApprovalsRequest()
        self._request.CopyFrom(start)

    def request(self) -> WatchApprovalsRequest:
        return self._request

    def take(self, response: WatchApprovalsResponse) -> list[WatchApprovalsResponse]:
        self._request.after_cursor = response.cursor or self._request.after_cursor
        return [response] if response.approvals else []

    def interrupted(self, error: TreadleError) -> bool:
        return True


SeveralThreads = WatchThreadsRequest | WatchSessionRequest | WatchThreadRequest


class TenantFollower:
    """A position in the events of several threads: those that fit a filter, of a session, or of a tree."""

    def __init__(self, start: SeveralThreads, include_heartbeats: bool) -> None:
        self._request = type(start).FromString(start.SerializeToString())
        self._include_heartbeats = include_heartbeats

    def request(self) -> SeveralThreads:
        return self._request

    def take(self, response: WatchThreadResponse) -> list[WatchThreadResponse]:
        self._request.after_cursor = response.cursor or self._request.after_cursor
        if not self._include_heartbeats:
            kept = [event for event in response.events if event.WhichOneof("payload") != "heartbeat"]
            response = WatchThreadResponse(events=kept, cursor=response.cursor)
        return [response] if response.events else []

    def interrupted(self, error: TreadleError) -> bool:
        return True
