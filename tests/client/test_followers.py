"""A reader's position: what is new in an answer, and what to ask for after a disconnect."""

from __future__ import annotations

import grpc

from tests.client.server import heartbeat, log_of
from treadle import errors
from treadle.followers import ApprovalFollower, TenantFollower, ThreadFollower
from treadle.v1.approval_pb2 import Approval
from treadle.v1.approval_service_pb2 import WatchApprovalsRequest, WatchApprovalsResponse
from treadle.v1.event_pb2 import Heartbeat, MessageDelta, ThreadEvent
from treadle.v1.thread_service_pb2 import (
    ExecuteAgentStreamRequest,
    WatchThreadRequest,
    WatchThreadResponse,
    WatchThreadsRequest,
)

LOST = errors.Unavailable(grpc.StatusCode.UNAVAILABLE, "gone")
WATCH = WatchThreadRequest(name="threads/t1", include_deltas=True, snapshot=True)


def delta(
    text: str,
    offset: int,
    *,
    attempt: int = 1,
    kind: MessageDelta.Kind.ValueType = MessageDelta.TEXT,
) -> ThreadEvent:
    piece = MessageDelta(call_id="c1", attempt=attempt, kind=kind, offset=offset, text=text)
    return ThreadEvent(thread="threads/t1", message_delta=piece)


def texts(follower: ThreadFollower, *events: ThreadEvent) -> list[tuple[int, str]]:
    taken = follower.take(WatchThreadResponse(events=events))
    return [(each.message_delta.offset, each.message_delta.text) for each in taken]


def test_events_that_were_seen_are_dropped() -> None:
    log = log_of(4)
    follower = ThreadFollower(WATCH, include_heartbeats=False)

    first = list(follower.take(WatchThreadResponse(events=log[:3])))
    second = list(follower.take(WatchThreadResponse(events=log[1:])))

    assert [event.sequence for event in (*first, *second)] == [1, 2, 3, 4]


def test_a_watch_goes_on_after_the_last_sequence_and_without_another_snapshot() -> None:
    follower = ThreadFollower(WATCH, include_heartbeats=False)
    list(follower.take(WatchThreadResponse(events=log_of(5)[:3])))

    assert follower.interrupted(LOST)
    assert follower.request() == WatchThreadRequest(name="threads/t1", after_sequence=3, include_deltas=True)


def test_a_watch_that_gave_nothing_is_asked_for_as_before() -> None:
    follower = ThreadFollower(WATCH, include_heartbeats=False)

    assert follower.interrupted(LOST)
    assert follower.request() == WATCH


def test_nothing_is_asked_for_after_the_end() -> None:
    follower = ThreadFollower(WATCH, include_heartbeats=False)
    list(follower.take(WatchThreadResponse(events=log_of(2))))

    assert not follower.interrupted(LOST)


def test_a_started_thread_is_watched_once_its_name_is_known_from_metadata() -> None:
    start = ExecuteAgentStreamRequest(request_id="r", event_types=["thread_ended"])
    follower = ThreadFollower(start, include_heartbeats=False)
    assert follower.interrupted(LOST)
    assert follower.request() == start

    assert follower.interrupted(errors.Unavailable(grpc.StatusCode.UNAVAILABLE, "", thread="threads/t9"))

    assert follower.request() == WatchThreadRequest(name="threads/t9", event_types=["thread_ended"])


def test_heartbeats_are_given_only_when_asked_for() -> None:
    silent = ThreadFollower(WATCH, include_heartbeats=False)
    telling = ThreadFollower(WATCH, include_heartbeats=True)

    assert list(silent.take(heartbeat(7))) == []
    assert [event.heartbeat.last_sequence for event in telling.take(heartbeat(7))] == [7]


def test_a_heartbeat_moves_no_position_since_filtered_events_may_be_under_way() -> None:
    follower = ThreadFollower(WATCH, include_heartbeats=False)
    list(follower.take(heartbeat(7)))

    assert follower.request() == WatchThreadRequest(name="threads/t1", include_deltas=True)


def test_the_text_so_far_that_a_late_reader_gets_is_cut_to_what_is_new() -> None:
    follower = ThreadFollower(WATCH, include_heartbeats=False)

    assert texts(follower, delta("Zwölf ", 0), delta("Boxkämpfer", 6)) == [(0, "Zwölf "), (6, "Boxkämpfer")]
    assert texts(follower, delta("Zwölf Boxkämpfer jagen", 0)) == [(16, " jagen")]
    assert texts(follower, delta("Zwölf Boxkämpfer", 0)) == []


def test_pieces_after_a_gap_are_given_as_they_are() -> None:
    follower = ThreadFollower(WATCH, include_heartbeats=False)

    assert texts(follower, delta("abc", 0), delta("xyz", 10)) == [(0, "abc"), (10, "xyz")]


def test_a_higher_attempt_begins_anew_and_a_lower_one_is_dropped() -> None:
    follower = ThreadFollower(WATCH, include_heartbeats=False)

    taken = texts(follower, delta("abc", 0), delta("abd", 0, attempt=2), delta("def", 3))

    assert taken == [(0, "abc"), (0, "abd")]


def test_thought_and_text_are_counted_apart() -> None:
    follower = ThreadFollower(WATCH, include_heartbeats=False)

    taken = texts(follower, delta("thinking", 0, kind=MessageDelta.THOUGHT), delta("say", 0))

    assert taken == [(0, "thinking"), (0, "say")]


def test_a_batch_over_threads_is_given_with_its_cursor_and_gone_on_from() -> None:
    follower = TenantFollower(WatchThreadsRequest(filter="f", after_cursor="c0"), include_heartbeats=False)

    taken = follower.take(WatchThreadResponse(events=log_of(1), cursor="c1"))

    assert [batch.cursor for batch in taken] == ["c1"]
    assert follower.request() == WatchThreadsRequest(filter="f", after_cursor="c1")


def test_the_cursor_of_a_swallowed_heartbeat_is_gone_on_from_too() -> None:
    follower = TenantFollower(WatchThreadsRequest(after_cursor="c0"), include_heartbeats=False)
    beat = WatchThreadResponse(events=[ThreadEvent(heartbeat=Heartbeat())], cursor="c2")

    assert follower.take(beat) == []
    assert follower.request().after_cursor == "c2"


def test_a_watch_of_approvals_goes_on_after_its_newest_cursor_and_else_begins_anew() -> None:
    follower = ApprovalFollower(WatchApprovalsRequest())
    waits = Approval(name="threads/t1/approvals/a1")

    first = follower.take(WatchApprovalsResponse(approvals=[waits]))
    assert follower.request() == WatchApprovalsRequest()
    alive = follower.take(WatchApprovalsResponse(cursor="c1"))
    follower.take(WatchApprovalsResponse(approvals=[waits]))

    assert [batch.approvals[0] for batch in first] == [waits]
    assert alive == []
    assert follower.interrupted(LOST)
    assert follower.request() == WatchApprovalsRequest(after_cursor="c1")
