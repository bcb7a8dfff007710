"""What callers see of threads that retention took: never a silent gap, and never less than the truth."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from tests.rpc.failures import Failure, failure_of
from tests.rpc.rig import Rig, running
from tests.rpc.runs import (
    ADD,
    DONE,
    HANG,
    collected,
    create,
    create_request,
    get,
    kinds,
    make_agent,
    pb,
    run,
    sequences,
    taken,
    thread_of,
    watch,
)
from tests.waiting import eventually
from treadle.v1 import admin_service_pb2
from treadle_server.core.errors import Refused
from treadle_server.engine.specs import CachedSpecs
from treadle_server.feed.feed import HotFeed
from treadle_server.feed.tenants import CommitFeed
from treadle_server.ports.catalogue.threads import ThreadRow, Threads
from treadle_server.ports.feed import Watch
from treadle_server.ports.log import Expired, ThreadKey
from treadle_server.services.tenant_stream import Place, TenantBatch, TenantStream, Unreadable
from treadle_server.services.thread_reads import ThreadReads
from treadle_server.wire.codec import ProtoCodec

_admin: Any = admin_service_pb2
T1 = "threads/t1"
EXPIRED_AT = 4_000_000_000_000_000
EXPIRE_TIME = "2096-10-02T07:06:40.000Z"


@pytest.fixture
async def ran(rig: Rig) -> Rig:
    """A server with one thread that has ended."""
    await make_agent(rig)
    await rig.threads.CreateThread(create_request(thread_id="t1", request_id="r1"))
    await collected(watch(rig, T1))
    return rig


async def none_is_left(rig: Rig) -> bool:
    """Asks the server's own retention to look, and says whether it has taken all."""
    rig.server.retention.poke()
    return not (await rig.threads.ListThreads(pb.ListThreadsRequest())).threads


async def expire(rig: Rig, *, purge: bool = True) -> None:
    """Takes all threads that have ended, long after now."""
    keeping = rig.server.store.housekeeping
    assert await keeping.expire_threads(EXPIRED_AT, 1)
    while purge and await keeping.purge_threads():
        pass
    if purge:
        await keeping.prune_commits()


def assert_gap(failure: Failure, last: int) -> None:
    assert (failure.code, failure.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")
    assert failure.metadata == {"first": str(last + 1), "last": str(last), "expire_time": EXPIRE_TIME}
    assert failure.details["ResourceInfo"].resource_name == T1
    assert "expired" in failure.message


def assert_gone(failure: Failure) -> None:
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert failure.metadata == {"resource": T1, "expire_time": EXPIRE_TIME}
    assert failure.details["ResourceInfo"].resource_name == T1
    assert "expired" in failure.message


def list_events(rig: Rig, after: int) -> Any:
    return rig.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent=T1, after_sequence=after))


def stream_again(rig: Rig, after: int) -> Any:
    """The call that made the thread, repeated to go on in its stream."""
    request = pb.ExecuteAgentStreamRequest(
        thread=thread_of(), thread_id="t1", request_id="r1", after_sequence=after
    )
    return rig.threads.ExecuteAgentStream(request)


@pytest.mark.parametrize("purge", [False, True])
async def test_a_reader_who_lacks_something_of_an_expired_thread_learns_it(ran: Rig, purge: bool) -> None:
    last = (await get(ran, T1)).last_sequence
    await expire(ran, purge=purge)

    for after in (0, 1, last - 1, last + 1):
        for ask in (
            collected(watch(ran, T1, after)),
            collected(stream_again(ran, after)),
            list_events(ran, after),
        ):
            assert_gap(await failure_of(ask), last)


async def test_a_reader_who_has_all_of_an_expired_thread_lacks_nothing(ran: Rig) -> None:
    last = (await get(ran, T1)).last_sequence
    await expire(ran)

    assert await collected(watch(ran, T1, last)) == []
    assert await collected(stream_again(ran, last)) == []
    assert list((await list_events(ran, last)).events) == []


@pytest.mark.parametrize("purge", [False, True])
async def test_an_expired_thread_is_not_found_and_that_says_why(ran: Rig, purge: bool) -> None:
    await expire(ran, purge=purge)

    asks = [
        get(ran, T1),
        get(ran, T1, full=True),
        ran.threads.ListIterations(pb.ListIterationsRequest(parent=T1)),
        ran.threads.UpdateThread(pb.UpdateThreadRequest(thread={"name": T1, "tags": ["x"]})),
        ran.threads.CancelThread(pb.CancelThreadRequest(name=T1)),
        ran.threads.CancelThread(pb.CancelThreadRequest(name=T1, request_id="new")),
        ran.threads.DeleteThread(pb.DeleteThreadRequest(name=T1, force=True)),
    ]

    for ask in asks:
        assert_gone(await failure_of(ask))
    assert not (await ran.threads.ListThreads(pb.ListThreadsRequest())).threads


async def test_a_repeated_call_whose_thread_has_expired_makes_no_other(ran: Rig) -> None:
    await expire(ran)
    execute = pb.ExecuteAgentRequest(thread=thread_of(), thread_id="t1", request_id="r1")

    asks = [
        ran.threads.CreateThread(create_request(thread_id="t1", request_id="r1")),
        ran.threads.ExecuteAgent(execute),
    ]

    for ask in asks:
        assert_gone(await failure_of(ask))
    taken_id = await failure_of(create(ran, "t1"))
    assert taken_id.reason == "RESOURCE_EXISTS"


async def test_a_thread_that_is_taken_while_it_is_read_is_not_found(ran: Rig) -> None:
    store, unused = ran.server.store, cast(Any, None)
    codec = ProtoCodec()
    reads = ThreadReads(
        log=store.log,
        threads=store.threads,
        sessions=store.sessions,
        engine=unused,
        codec=codec,
        specs=CachedSpecs(store.threads, codec),
    )
    row = await store.threads.get(1, "t1")
    assert row is not None
    await expire(ran)

    with pytest.raises(Refused) as refused:
        await reads.view(row, full=True)

    assert refused.value.metadata == {"resource": T1, "expire_time": EXPIRE_TIME}
    assert refused.value.reason == "RESOURCE_NOT_FOUND"


async def test_a_thread_that_was_deleted_by_a_caller_is_only_not_found(ran: Rig) -> None:
    delete = pb.DeleteThreadRequest(name=T1, request_id="d1")
    await ran.threads.DeleteThread(delete)
    await ran.threads.DeleteThread(delete)

    for ask in (get(ran, T1), collected(watch(ran, T1)), list_events(ran, 0)):
        failure = await failure_of(ask)
        assert (failure.reason, failure.metadata) == ("RESOURCE_NOT_FOUND", {"resource": T1})


async def test_threads_that_have_not_ended_stay_however_long_ago_they_began(rig: Rig) -> None:
    await make_agent(rig)
    await make_agent(rig, "hanging", HANG)
    await create(rig, "living", "hanging")
    await run(rig, "t1")

    await expire(rig)

    listed = await rig.threads.ListThreads(pb.ListThreadsRequest())
    assert [thread.name for thread in listed.threads] == ["threads/living"]
    found = await taken(watch(rig, "threads/living"), lambda events: "model_call_started" in kinds(events))
    assert sequences(found)[0] == 1


async def test_a_reader_that_an_open_stream_leaves_behind_is_told(rig: Rig) -> None:
    await make_agent(rig, "helper", {"calls": ADD["calls"] * 32}, DONE)
    await run(rig, "t1")
    row = await rig.server.store.threads.get(1, "t1")
    assert row is not None
    place = HotFeed(rig.server.store.log, ProtoCodec()).follow(Watch(row.key, 0))
    seen = [item.sequence for item in await anext(place)]
    assert len(seen) < row.sequence

    await expire(rig)

    with pytest.raises(Expired) as expired:
        await anext(place)
    place.close()
    assert (expired.value.last, expired.value.expire_time) == (row.sequence, EXPIRED_AT)


# Streams over all threads


def watch_all(rig: Rig, cursor: str = "") -> Any:
    return rig.threads.WatchThreads(pb.WatchThreadsRequest(after_cursor=cursor))


async def begin(rig: Rig, cursor: str = "") -> tuple[Any, str]:
    """A stream that has begun, and its first cursor."""
    stream = watch_all(rig, cursor)
    return stream, (await stream.read()).cursor


async def test_a_cursor_from_before_what_was_taken_is_refused_with_one_that_goes_on(rig: Rig) -> None:
    await make_agent(rig)
    stream, origin = await begin(rig)
    stream.cancel()
    await run(rig, "t1")
    stream, between = await begin(rig)
    stream.cancel()
    await run(rig, "t2")
    await expire(rig)
    await run(rig, "t3")

    failures = [await failure_of(collected(watch_all(rig, cursor))) for cursor in (origin, between)]
    for failure in failures:
        assert (failure.code, failure.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")
        assert failure.metadata.keys() == {"first", "last", "cursor"}
        assert int(failure.metadata["first"]) < int(failure.metadata["last"])
    on = watch_all(rig, failures[0].metadata["cursor"])
    found = await taken(on, lambda events: "thread_ended" in kinds(events))

    stored = [event for event in found if event.sequence]
    assert stored == await collected(watch(rig, "threads/t3"))


async def test_a_stream_without_a_cursor_begins_with_now_whatever_was_taken(ran: Rig) -> None:
    await expire(ran)

    stream, cursor = await begin(ran)
    await run(ran, "t2")
    found = await taken(stream, lambda events: "thread_ended" in kinds(events))
    again = await taken(watch_all(ran, cursor), lambda events: "thread_ended" in kinds(events))

    whole = await collected(watch(ran, "threads/t2"))
    assert [event for event in found if event.sequence] == whole
    assert [event for event in again if event.sequence] == whole


async def test_a_stream_that_has_read_what_is_taken_goes_on(ran: Rig) -> None:
    stream, _ = await begin(ran)
    await run(ran, "t2")
    await taken_from(stream, 1)

    await expire(ran)
    await run(ran, "t3")

    await taken_from(stream, 1)
    stream.cancel()


async def taken_from(stream: Any, ends: int) -> None:
    """Reads on until so many threads have ended."""
    async with asyncio.timeout(20):
        while ends:
            ends -= kinds((await stream.read()).events).count("thread_ended")


def stream_of(rig: Rig, threads: Threads | None = None) -> TenantStream:
    store = rig.server.store
    return TenantStream(CommitFeed(store.log, store.commits), threads or store.threads, store.log)


async def whole(stream: AsyncIterator[TenantBatch]) -> list[TenantBatch]:
    async with asyncio.timeout(20):
        return [batch async for batch in stream]


async def test_a_stream_that_stays_behind_is_told_what_it_misses(ran: Rig) -> None:
    following = stream_of(ran).follow(1, Place(0), lambda row: True, frozenset())
    await anext(following)

    await expire(ran)

    with pytest.raises(Unreadable) as gap:
        await anext(following)
    assert gap.value.refused.reason == "SEQUENCE_OUT_OF_RANGE"
    assert gap.value.place == Place(await ran.server.store.commits.horizon(1))
    assert gap.value.place.position > 0


async def test_a_stream_in_the_middle_of_a_commit_is_told_too(ran: Rig) -> None:
    last = await ran.server.store.commits.last_position()
    place = Place(last, 1)
    await expire(ran)

    with pytest.raises(Unreadable):
        await whole(stream_of(ran).follow(1, place, lambda row: True, frozenset()))
    following = stream_of(ran).follow(1, Place(last), lambda row: True, frozenset())
    assert (await anext(following)).place == Place(last)
    await following.aclose()


class TakenMeanwhile:
    """Threads that retention takes between the look at the commits and the look at the thread."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    async def get_by_key(self, key: ThreadKey) -> ThreadRow | None:
        if not await self._rig.server.store.commits.horizon(key.tenant):
            await expire(self._rig)
        return await self._rig.server.store.threads.get_by_key(key)


async def test_a_thread_that_is_taken_while_its_commit_is_at_hand_is_no_silent_gap(ran: Rig) -> None:
    threads: Any = TakenMeanwhile(ran)

    with pytest.raises(Unreadable) as gap:
        await whole(stream_of(ran, threads).follow(1, Place(0), lambda row: True, frozenset()))

    assert gap.value.refused.reason == "SEQUENCE_OUT_OF_RANGE"


# The worker


async def test_a_tenants_retention_is_carried_out_by_itself(rig: Rig) -> None:
    await make_agent(rig)
    ended = await run(rig, "t1")
    looks = rig.server.retention.looks
    await eventually(lambda: rig.server.retention.looks > 0)

    tenant = {"name": "tenants/default", "thread_retention": {"seconds": 1}}
    await rig.admin.UpdateTenant(_admin.UpdateTenantRequest(tenant=tenant))
    await eventually(lambda: rig.server.retention.looks > looks)
    await eventually(lambda: none_is_left(rig), seconds=60)

    failure = await failure_of(get(rig, "threads/t1"))
    expire_time = datetime.fromisoformat(failure.metadata["expire_time"])
    assert (expire_time - ended.end_time.ToDatetime(UTC)).total_seconds() >= 0.999


async def test_the_servers_own_retention_is_for_tenants_without_one(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig)
        await run(rig, "t1")
        kept = (("treadle-tenant", "kept"),)
        request = _admin.CreateTenantRequest(
            tenant={"thread_retention": {"seconds": 86_400}}, tenant_id="kept"
        )
        await rig.admin.CreateTenant(request)
        await make_agent(rig, metadata=kept)
        await run(rig, "t1", metadata=kept)

    async with running(tmp_path / "t.db", thread_retention_days=1 / 86_400) as rig:
        await eventually(lambda: none_is_left(rig), seconds=60)
        listed = await rig.threads.ListThreads(pb.ListThreadsRequest(), metadata=kept)
        assert [thread.name for thread in listed.threads] == ["threads/t1"]
