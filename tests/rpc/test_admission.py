"""How many calls may begin, and when those who may not are to come again."""

import asyncio
import random

import grpc
import pytest
from structlog.testing import capture_logs

from tests.abuse import wire
from tests.abuse.wire import Wire
from tests.rpc.failures import failure_of
from tests.rpc.wired import THREADS, wired
from treadle.v1 import thread_service_pb2
from treadle_server.core.errors import Reason, Refused
from treadle_server.rpc.admission import Admission, Lane, LaneLimits
from treadle_server.rpc.log_lines import LogLines
from treadle_server.services.rates import DELAY_SECONDS_MAX, Rate

WATCH_THREAD = "/treadle.v1.ThreadService/WatchThread"


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_begins_at_once_and_then_so_many_a_second() -> None:
    clock = Clock()
    rate = Rate(10, clock)
    assert [rate.begin() for _ in range(10)] == [0.0] * 10
    assert rate.begin() > 0

    clock.now += 0.35

    assert [rate.take() for _ in range(5)] == [True, True, True, False, False]


def test_those_who_come_too_early_get_turns_one_after_the_other() -> None:
    rate = Rate(100, Clock())
    for _ in range(100):
        rate.begin()

    delays = [rate.begin() for _ in range(500)]

    assert all(place / 100 <= delay <= place / 100 * 1.1 for place, delay in enumerate(delays, start=1))


def test_a_crowd_that_comes_when_it_was_told_to_is_let_in_within_its_time() -> None:
    clock, waiting, begun = Clock(), [(100.0, number) for number in range(3_000)], 0
    rate = Rate(500, clock)

    while waiting:
        waiting.sort()
        moment, number = waiting.pop(0)
        clock.now = max(clock.now, moment)
        delay = rate.begin()
        if delay:
            waiting.append((clock.now + delay * random.uniform(1.0, 1.1), number))
        else:
            begun += 1

    assert begun == 3_000
    assert clock.now - 100.0 < 1.3 * 2_500 / 500


def test_no_turn_is_further_away_than_anyone_should_wait() -> None:
    rate = Rate(1, Clock())

    delays = [rate.begin() for _ in range(500)]

    assert max(delays) <= DELAY_SECONDS_MAX * 1.1
    assert len(set(delays[100:])) > 300


def test_a_tenant_in_a_hurry_takes_nothing_from_the_others() -> None:
    lane = Lane("streams", LaneLimits(server=1_000, tenant=1_000, server_rate=20, tenant_rate=5))
    for _ in range(5):
        lane.enter_tenant(1)
    for _ in range(100):
        with pytest.raises(Refused) as refused:
            lane.enter_tenant(1)
        assert refused.value.reason is Reason.RATE_LIMITED

    for tenant in (2, 3, 4):
        for _ in range(5):
            lane.enter_tenant(tenant)

    with pytest.raises(Refused, match="at the server"):
        lane.enter_tenant(5)


def test_rates_of_tenants_that_rest_are_dropped() -> None:
    lane = Lane("streams", LaneLimits(server=10_000, tenant=10, tenant_rate=1e9))
    for tenant in range(5_000):
        lane.enter_tenant(tenant)
        lane.leave_tenant(tenant)

    assert len(lane._rates) <= 1_024


async def test_streams_that_begin_too_fast_are_told_when_to_come_again() -> None:
    limits = LaneLimits(server=100, tenant=100, server_rate=100, tenant_rate=2)
    admission = Admission(streams=limits)
    request = thread_service_pb2.WatchThreadRequest(name="threads/t")

    async with wired((THREADS, Quick()), admission=admission) as found:
        stream = found.stream("ThreadService/WatchThread")
        for _ in range(2):
            assert [answer async for answer in stream(request)] == [b"\x0a\x00"]
        failure = await failure_of(stream(request).read())

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert failure.metadata.keys() == {"limit", "remaining", "reset_time"}
    assert 500_000 <= failure.details["RetryInfo"].retry_delay.ToMicroseconds() <= 550_000
    assert failure.details["QuotaFailure"].violations


async def test_those_who_are_refused_together_are_not_told_to_come_back_together() -> None:
    admission = Admission(streams=LaneLimits(server=0, tenant=0))
    request = thread_service_pb2.WatchThreadRequest(name="threads/t")

    async with wired((THREADS, Quick()), admission=admission) as found:
        stream = found.stream("ThreadService/WatchThread")
        failures = [await failure_of(stream(request).read()) for _ in range(20)]

    delays = {failure.details["RetryInfo"].retry_delay.ToMicroseconds() for failure in failures}
    assert len(delays) > 10
    assert all(1_000_000 <= delay <= 1_500_000 for delay in delays)


class Quick:
    """Streams of one message."""

    async def WatchThread(self, request, call):  # type: ignore[no-untyped-def]
        yield b"\x0a\x00"


def in_many_frames(address: str, frames: int) -> str:
    """How a call ends whose metadata comes in frames of 1,000 bytes: each is below gRPC's own limit."""
    fields = [wire.field(f"x-{number}", "y" * 1_000) for number in range(frames)]
    headers = [wire.frame(wire.HEADERS, wire.request_fields(WATCH_THREAD), stream=1)]
    headers += [wire.frame(wire.CONTINUATION, field, stream=1) for field in fields]
    headers.append(wire.frame(wire.CONTINUATION, flags=wire.END_HEADERS, stream=1))
    request = thread_service_pb2.WatchThreadRequest(name="threads/t").SerializeToString()
    with Wire(address) as connection:
        connection.send(b"".join(headers) + wire.body(1, wire.message(request)))
        return connection.status(1)


async def test_immense_metadata_is_refused() -> None:
    async with wired((THREADS, Quick())) as found:
        with capture_logs() as logs:
            below = await asyncio.to_thread(in_many_frames, found.address, 15)
            above = await asyncio.to_thread(in_many_frames, found.address, 20)

    assert (below, above) == ("grpc 0", "grpc 3")
    assert [line["reason"] for line in logs if line["event"] == "call_refused"] == ["REQUEST_TOO_LARGE"]


def test_lines_beyond_the_rate_are_counted_and_left_out() -> None:
    lines = LogLines(per_second=3)

    admitted = [lines.admit("a") for _ in range(10)]

    assert admitted == [{}, {}, {}, *[None] * 7]
    assert lines.admit("b") == {}
