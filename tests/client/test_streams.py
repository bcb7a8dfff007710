"""Streams, by both clients: every event once and in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, closing

import grpc
import pytest

from tests.client.conftest import QUICK, Handle
from tests.client.server import (
    Server,
    answers,
    hangs,
    heartbeat,
    log_of,
    refuses,
    retry_after,
    serves,
)
from treadle import Client, DeadlineExceeded, OutOfRange, SyncClient, Thread, ThreadEvent
from treadle.v1.event_pb2 import MessageDelta
from treadle.v1.thread_service_pb2 import WatchThreadResponse

LOG = log_of(9)
LOST = refuses(grpc.StatusCode.UNAVAILABLE)


def sequences(events: list[ThreadEvent]) -> list[int]:
    return [event.sequence for event in events]


def piece(text: str, offset: int) -> WatchThreadResponse:
    delta = MessageDelta(call_id="c", attempt=1, kind=MessageDelta.TEXT, offset=offset, text=text)
    return WatchThreadResponse(events=[ThreadEvent(thread="threads/t1", message_delta=delta)])


async def test_a_watch_that_loses_its_connection_again_and_again_misses_nothing(
    server: Server, handle: Handle
) -> None:
    server.play(
        serves(LOG, cut_after=2), serves(LOG, cut_after=0), LOST, serves(LOG, cut_after=3), serves(LOG)
    )

    assert sequences(await handle.items("watch", "t1")) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [asked.request.after_sequence for asked in server.asked] == [0, 2, 2, 2, 5]


async def test_a_watch_goes_on_with_a_server_that_was_restarted(server: Server, handle: Handle) -> None:
    server.play(hangs(WatchThreadResponse(events=LOG[:4])), serves(LOG))
    watching = asyncio.create_task(handle.items("watch", "t1"))
    await server.arrived(1)

    await server.stop()
    await server.start()

    assert sequences(await watching) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


async def test_a_watch_that_a_server_cancelled_goes_on(server: Server, handle: Handle) -> None:
    server.play(refuses(grpc.StatusCode.CANCELLED), serves(LOG))

    assert sequences(await handle.items("watch", "t1")) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


async def test_a_reader_that_was_too_slow_comes_again_when_the_server_says_so(
    server: Server, handle: Handle
) -> None:
    too_slow = refuses(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "SUBSCRIBER_TOO_SLOW",
        details=[retry_after(0.1)],
        after=[WatchThreadResponse(events=LOG[:3])],
    )
    server.play(too_slow, serves(LOG))

    assert sequences(await handle.items("watch", "t1")) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert server.asked[1].time - server.asked[0].time >= 0.1


async def test_a_watch_begins_where_it_is_told_to(server: Server, handle: Handle) -> None:
    server.play(serves(LOG))

    assert sequences(await handle.items("watch", "threads/t1", after_sequence=7)) == [8, 9]


async def test_a_watch_ends_when_the_server_ends_it(server: Server, handle: Handle) -> None:
    server.play(answers())

    assert await handle.items("watch", "t1", after_sequence=9) == []
    assert len(server.asked) == 1


async def test_a_broken_connection_after_the_end_is_no_error(server: Server, handle: Handle) -> None:
    server.play(serves(LOG, cut_after=9))

    assert sequences(await handle.items("watch", "t1")) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert len(server.asked) == 1


async def test_a_sequence_that_the_log_does_not_hold_is_an_error(server: Server, handle: Handle) -> None:
    server.play(refuses(grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE"), serves(LOG))

    with pytest.raises(OutOfRange):
        await handle.items("watch", "t1", after_sequence=99)

    assert len(server.asked) == 1


async def test_heartbeats_are_swallowed_unless_asked_for(server: Server, handle: Handle) -> None:
    stream = (heartbeat(0), WatchThreadResponse(events=LOG))
    server.play(answers(*stream), answers(*stream))

    assert len(await handle.items("watch", "t1")) == 9
    assert len(await handle.items("watch", "t1", include_heartbeats=True)) == 10


async def test_no_piece_of_a_message_is_given_twice_across_a_disconnect(
    server: Server, handle: Handle
) -> None:
    cut = refuses(grpc.StatusCode.UNAVAILABLE, after=[piece("Hel", 0), piece("lo", 3)])
    server.play(cut, answers(piece("Hello, wor", 0), piece("ld", 10)))

    events = await handle.items("watch", "t1", include_deltas=True)

    assert "".join(event.message_delta.text for event in events) == "Hello, world"


async def test_a_watch_has_a_deadline_if_it_wants_one(server: Server, handle: Handle) -> None:
    server.play(hangs(WatchThreadResponse(events=LOG[:2])))

    with pytest.raises(DeadlineExceeded):
        await handle.items("watch", "t1", timeout=0.3)


async def test_a_started_thread_is_watched_after_a_disconnect(server: Server, handle: Handle) -> None:
    server.play(serves(LOG, cut_after=4), serves(LOG))

    events = await handle.items("stream", "a", "2+2", event_types=["iteration_started", "thread_ended"])

    assert sequences(events) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    start, again = server.asked
    assert (start.method, again.method) == ("ExecuteAgentStream", "WatchThread")
    assert (again.request.name, again.request.after_sequence) == ("threads/t1", 4)
    assert again.request.event_types == start.request.event_types


async def test_a_thread_whose_name_came_alone_is_watched_after_a_disconnect(
    server: Server, handle: Handle
) -> None:
    server.play(refuses(grpc.StatusCode.UNAVAILABLE, thread="threads/t1"), serves(LOG))

    assert len(await handle.items("stream", "a", "2+2")) == 9
    assert [asked.method for asked in server.asked] == ["ExecuteAgentStream", "WatchThread"]
    assert server.asked[1].request.name == "threads/t1"


async def test_a_start_that_gave_nothing_is_repeated_with_its_request_id(
    server: Server, handle: Handle
) -> None:
    server.play(LOST, refuses(grpc.StatusCode.CANCELLED), serves(LOG))

    assert len(await handle.items("stream", "a", "2+2")) == 9

    requests = [asked.request for asked in server.asked]
    assert requests[0].request_id
    assert requests == [requests[0]] * 3


async def test_events_of_many_threads_go_on_by_cursor(server: Server, handle: Handle) -> None:
    def batch(number: int) -> WatchThreadResponse:
        return WatchThreadResponse(events=log_of(1, f"threads/{number}"), cursor=f"c{number}")

    cut = refuses(grpc.StatusCode.UNAVAILABLE, after=[batch(1), batch(2)])
    end = refuses(grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE", after=[batch(3)])
    server.play(cut, LOST, end)

    with pytest.raises(OutOfRange):
        await handle.items("watch_threads", "agent = 'agents/a'", after_cursor="c0")

    assert [asked.request.after_cursor for asked in server.asked] == ["c0", "c2", "c2"]
    assert {asked.request.filter for asked in server.asked} == {"agent = 'agents/a'"}


async def test_events_of_a_tree_go_on_by_cursor_until_they_end(server: Server, handle: Handle) -> None:
    def batch(number: int) -> WatchThreadResponse:
        return WatchThreadResponse(events=log_of(1, f"threads/{number}"), cursor=f"c{number}")

    server.play(refuses(grpc.StatusCode.UNAVAILABLE, after=[batch(1)]), answers(batch(2)))

    batches = await handle.items("watch_tree", "t")

    assert [found.cursor for found in batches] == ["c1", "c2"]
    assert [asked.request.after_cursor for asked in server.asked] == ["", "c1"]
    assert {(asked.request.name, asked.request.include_children) for asked in server.asked} == {
        ("threads/t", True)
    }


async def test_a_stream_is_cancelled_when_its_iterator_is_closed(server: Server, client: Client) -> None:
    server.play(hangs(WatchThreadResponse(events=LOG[:1])))

    async with aclosing(client.watch("t1")) as events:
        assert (await anext(events)).sequence == 1

    async with asyncio.timeout(5):
        await server.asked[0].ended.wait()


async def test_a_stream_is_cancelled_when_its_reader_leaves_the_loop(server: Server, client: Client) -> None:
    server.play(hangs(WatchThreadResponse(events=LOG[:1])))

    async for _ in client.watch("t1"):
        break

    async with asyncio.timeout(5):
        await server.asked[0].ended.wait()


async def test_a_stream_is_cancelled_when_its_readers_task_is(server: Server, client: Client) -> None:
    server.play(hangs(WatchThreadResponse(events=LOG[:1])), serves(LOG))

    async def read() -> None:
        async for _ in client.watch("t1"):
            pass

    reading = asyncio.create_task(read())
    asked = await server.arrived(1)
    reading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(5):
        await asked.ended.wait()
    assert len(server.asked) == 1


async def test_a_blocking_stream_is_cancelled_when_its_iterator_is_closed(server: Server) -> None:
    server.play(hangs(WatchThreadResponse(events=LOG[:1])))

    def first(client: SyncClient) -> int:
        with closing(client.watch("t1")) as events:
            return next(events).sequence

    with SyncClient(server.address, retry=QUICK) as client:
        assert await asyncio.to_thread(first, client) == 1
        async with asyncio.timeout(5):
            await server.asked[0].ended.wait()


async def test_closing_a_blocking_client_ends_its_streams_for_good(server: Server) -> None:
    server.play(hangs(WatchThreadResponse(events=LOG[:1])), serves(LOG))
    client = SyncClient(server.address, retry=QUICK)
    watching = asyncio.create_task(asyncio.to_thread(list, client.watch("t1")))
    await server.arrived(1)

    client.close()

    with pytest.raises(Exception, match="CANCELLED"):
        await watching
    assert len(server.asked) == 1


async def test_a_failed_thread_is_an_answer_and_no_error(server: Server, handle: Handle) -> None:
    failed = Thread(name="threads/t1", state=Thread.FAILED)
    server.play(answers(failed))

    assert await handle.answer("execute", "a", "2+2") == failed
