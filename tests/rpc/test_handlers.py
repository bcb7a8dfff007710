"""What every call goes through, with servicers that behave well and badly."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from tests.rpc.failures import failure_of
from tests.rpc.wired import AGENTS, THREADS, Wired, wired
from tests.waiting import eventually
from treadle.v1 import agent_pb2, agent_service_pb2, thread_service_pb2
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Fenced, Replayed, StoreFailed
from treadle_server.rpc.admission import Admission, LaneLimits
from treadle_server.rpc.calls import Call, StreamChunk

_threads: Any = thread_service_pb2
GET = agent_service_pb2.GetAgentRequest(name="agents/a")
WATCH = thread_service_pb2.WatchThreadRequest(name="threads/t")
GET_AGENT = "AgentService/GetAgent"
WATCH_THREAD = "ThreadService/WatchThread"


class Raising:
    """Fails as it is told."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def GetAgent(self, request: Any, call: Call) -> Any:
        raise self._error

    async def WatchThread(self, request: Any, call: Call) -> AsyncIterator[StreamChunk]:
        yield StreamChunk(b"\x0a\x00", 1)
        raise self._error


class Answering:
    """Answers at once, with what it was made with."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def GetAgent(self, request: Any, call: Call) -> Any:
        return self._answer


class Held:
    """Calls that stay open until `release` is set, and how many are."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.open = 0
        self.cancelled = 0

    async def GetAgent(self, request: Any, call: Call) -> Any:
        await self._hold()
        return b""

    async def WatchThread(self, request: Any, call: Call) -> AsyncIterator[Any]:
        yield b"\x0a\x00"
        await self._hold()

    async def ExecuteAgent(self, request: Any, call: Call) -> Any:
        await self._hold()
        return b""

    async def _hold(self) -> None:
        self.open += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1


async def drained(stream: Any) -> list[bytes]:
    return [message async for message in stream]


async def test_messages_and_bytes_are_answered_alike() -> None:
    agent = agent_pb2.Agent(name="agents/a", model="m")

    for answer in (agent, agent.SerializeToString()):
        async with wired((AGENTS, Answering(answer))) as found:
            assert agent_pb2.Agent.FromString(await found.unary(GET_AGENT)(GET)) == agent


async def test_a_replayed_call_gets_the_stored_bytes() -> None:
    async with wired((AGENTS, Raising(Replayed("agents/a", 0, b"\x0a\x01x")))) as found:
        assert await found.unary(GET_AGENT)(GET) == b"\x0a\x01x"


async def test_a_method_without_a_servicer_is_unimplemented_with_details() -> None:
    async with wired((AGENTS, Answering(b""))) as found:
        for path in ("AgentService/CreateAgent", "ThreadService/WatchThread", "FutureService/Anything"):
            failure = await failure_of(found.unary(path)(GET))
            assert (failure.code, failure.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")
            assert failure.metadata == {"method": f"/treadle.v1.{path}"}


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x00\x01", b"\x0f"])
async def test_malformed_bytes_name_the_message_and_reach_no_servicer(data: bytes) -> None:
    async with wired(
        (AGENTS, Raising(AssertionError("reached"))), (THREADS, Raising(AssertionError()))
    ) as found:
        failure = await failure_of(found.unary(GET_AGENT)(data))
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert failure.fields.keys() == {"treadle.v1.GetAgentRequest"}

        failure = await failure_of(drained(found.stream(WATCH_THREAD)(data)))
        assert failure.fields.keys() == {"treadle.v1.WatchThreadRequest"}


async def test_a_faulty_request_reaches_no_servicer() -> None:
    async with wired((AGENTS, Raising(AssertionError("reached")))) as found:
        failure = await failure_of(found.unary(GET_AGENT)(agent_service_pb2.GetAgentRequest()))

    assert failure.fields == {"name": "is required"}


@pytest.mark.parametrize("path", [GET_AGENT, WATCH_THREAD])
async def test_a_fault_of_ours_tells_an_id_and_nothing_else(path: str) -> None:
    secret = "/var/lib/secret token=hunter2"
    servicer = Raising(ValueError(secret))

    async with wired((AGENTS, servicer), (THREADS, servicer)) as found:
        with capture_logs() as logs:
            call = found.unary(path)(GET) if path == GET_AGENT else drained(found.stream(path)(WATCH))
            failure = await failure_of(call)

    assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert failure.metadata == {}
    assert "secret" not in str(failure)
    assert "ValueError" not in str(failure)
    request_id = failure.details["RequestInfo"].request_id
    assert request_id in failure.message
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert line["request_id"] == request_id
    assert isinstance(line["exc_info"], ValueError)
    assert (line["method"], line["principal"]) == (f"/treadle.v1.{path}", "tester")


@pytest.mark.parametrize("error", [StoreFailed("why: /secret"), Fenced("/secret")])
async def test_a_store_that_does_not_answer_is_unavailable(error: Exception) -> None:
    async with wired((AGENTS, Raising(error))) as found:
        failure = await failure_of(found.unary(GET_AGENT)(GET))

    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert failure.details["RetryInfo"].retry_delay.ToMicroseconds() > 0
    assert "secret" not in str(failure)


async def test_a_refused_call_leaves_one_line_in_the_log() -> None:
    refused = Refused(Reason.THREAD_STATE_CONFLICT, "no", metadata={"current_state": "FAILED", "allowed": ""})

    async with wired((AGENTS, Raising(refused))) as found:
        with capture_logs() as logs:
            failure = await failure_of(found.unary(GET_AGENT)(GET))

    assert failure.details["PreconditionFailure"].violations[0].subject == "agents/a"
    (line,) = [line for line in logs if line["event"] == "call_refused"]
    assert (line["reason"], line["tenant"]) == ("THREAD_STATE_CONFLICT", "tenant-1")


async def test_a_stream_that_fails_sends_first_what_it_had() -> None:
    servicer = Raising(Refused(Reason.SEQUENCE_OUT_OF_RANGE, "gone", metadata={"first": "2", "last": "3"}))

    async with wired((THREADS, servicer)) as found:
        stream = found.stream(WATCH_THREAD)(WATCH)
        first = await stream.read()
        failure = await failure_of(stream.read())

    assert first == b"\x0a\x00"
    assert (failure.code, failure.metadata) == (
        grpc.StatusCode.OUT_OF_RANGE,
        {"first": "2", "last": "3"},
    )


async def test_a_caller_who_leaves_cancels_the_call_and_frees_its_place() -> None:
    held = Held()

    async with wired((AGENTS, held), (THREADS, held)) as found:
        unary = found.unary(GET_AGENT)(GET)
        stream = found.stream(WATCH_THREAD)(WATCH)
        await eventually(lambda: held.open == 2)
        admission = found.doorway.admission
        assert (admission.calls.count, admission.streams.count) == (1, 1)

        unary.cancel()
        stream.cancel()

        await eventually(lambda: held.cancelled == 2)
        await eventually(lambda: admission.calls.count == admission.streams.count == 0)


async def test_a_deadline_ends_the_call(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()

    async with wired((AGENTS, held)) as found:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await found.unary(GET_AGENT)(GET, timeout=0.05)
        await eventually(lambda: held.cancelled == 1)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert errors_in(caplog) == []


async def test_too_many_calls_are_refused_with_when_to_come_again() -> None:
    held = Held()
    admission = Admission(calls=LaneLimits(server=3, tenant=2), streams=LaneLimits(server=1, tenant=1))

    async with wired((AGENTS, held), (THREADS, held), admission=admission) as found:
        call = found.unary(GET_AGENT)
        held_calls = [asyncio.ensure_future(call(GET)) for _ in range(2)]
        await eventually(lambda: held.open == 2)

        by_tenant = await failure_of(call(GET))
        other = asyncio.ensure_future(call(GET, metadata=(("tenant", "2"),)))
        await eventually(lambda: held.open == 3)
        by_server = await failure_of(call(GET, metadata=(("tenant", "3"),)))

        for failure, limit in ((by_tenant, "2"), (by_server, "3")):
            assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (failure.reason, failure.metadata) == ("CONCURRENCY_LIMITED", {"limit": limit})
            assert failure.details["RetryInfo"].retry_delay.ToMicroseconds() > 0
            assert failure.details["QuotaFailure"].violations
        held.release.set()
        await asyncio.gather(*held_calls, other)
        assert await call(GET) == b""


async def test_calls_that_wait_count_as_streams_and_not_as_calls() -> None:
    held = Held()
    admission = Admission(calls=LaneLimits(server=9, tenant=9), streams=LaneLimits(server=1, tenant=1))
    execute = _threads.ExecuteAgentRequest(thread={"agent": "agents/a", "input": {"text": "x"}})

    async with wired((AGENTS, held), (THREADS, held), admission=admission) as found:
        waiting = asyncio.ensure_future(found.unary("ThreadService/ExecuteAgent")(execute))
        await eventually(lambda: held.open == 1)

        failure = await failure_of(drained(found.stream(WATCH_THREAD)(WATCH)))

        assert failure.reason == "CONCURRENCY_LIMITED"
        held.release.set()
        await waiting
        assert await found.unary(GET_AGENT)(GET) == b""


async def test_a_draining_server_takes_no_calls_and_lets_the_others_end() -> None:
    held = Held()

    async with wired((AGENTS, held)) as found:
        under_way = asyncio.ensure_future(found.unary(GET_AGENT)(GET))
        await eventually(lambda: held.open == 1)
        found.doorway.admission.draining = True

        failure = await failure_of(found.unary(GET_AGENT)(GET))

        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert failure.details["RetryInfo"].retry_delay.ToMicroseconds() > 0
        held.release.set()
        assert await under_way == b""


class Flood:
    """A stream without end, of chunks that count."""

    def __init__(self) -> None:
        self.closed = False
        self.sent = 0

    async def WatchThread(self, request: Any, call: Call) -> AsyncIterator[StreamChunk]:
        body = b"\x12" + b"\x80\x80\x04" + b"x" * 65_536  # WatchThreadResponse.cursor
        try:
            while True:
                self.sent += 1
                yield StreamChunk(body, self.sent)
        finally:
            self.closed = True


async def into(received: list[bytes], stream: Any) -> None:
    """Reads a stream to its end."""
    while message := await stream.read():
        received.append(message)


async def stalled(found: Wired, flood: Flood) -> Any:
    """A stream whose reader took one message and no more, until the server gave it up."""
    stream = found.stream(WATCH_THREAD)(WATCH)
    assert await stream.read()
    await eventually(lambda: flood.closed)
    return stream


async def test_a_reader_who_stays_behind_is_told_where_to_go_on_once_it_reads() -> None:
    flood = Flood()

    async with wired((THREADS, flood), stall_seconds=0.3) as found:
        stream = await stalled(found, flood)
        received = [b"the first"]
        failure = await failure_of(into(received, stream))
        await eventually(lambda: found.doorway.admission.streams.count == 0)

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SUBSCRIBER_TOO_SLOW")
    assert failure.metadata == {"last_sequence": str(len(received))}
    assert failure.details["RetryInfo"].retry_delay.ToMicroseconds() > 0


@pytest.mark.parametrize("leave", ["cancel", "close"])
async def test_a_reader_who_stays_behind_and_leaves_costs_nothing_more(
    leave: str, caplog: pytest.LogCaptureFixture
) -> None:
    flood = Flood()

    async with wired((THREADS, flood), stall_seconds=0.3) as found:
        stream = await stalled(found, flood)
        before = flood.sent

        if leave == "cancel":
            stream.cancel()
        else:
            await found.channel.close()

        await eventually(lambda: found.doorway.admission.streams.count == 0)
        assert flood.sent == before
    assert errors_in(caplog) == []


async def test_a_reader_who_reads_is_never_too_slow() -> None:
    flood = Flood()

    async with wired((THREADS, flood), stall_seconds=0.05) as found:
        stream = found.stream(WATCH_THREAD)(WATCH)
        for _ in range(300):
            assert await stream.read()
        assert not flood.closed
        stream.cancel()
        await eventually(lambda: flood.closed)


async def nothing_sent() -> AsyncIterator[bytes]:
    """Requests that never come."""
    await asyncio.get_running_loop().create_future()
    yield b""


async def none_sent() -> AsyncIterator[bytes]:
    """Requests that end before the first."""
    for data in ():
        yield data


@pytest.mark.parametrize("path", [GET_AGENT, WATCH_THREAD])
async def test_a_call_whose_request_does_not_come_is_counted_and_ended(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()

    async with wired((AGENTS, held), (THREADS, held), request_seconds=0.2) as found:
        call = found.channel.stream_stream(f"/treadle.v1.{path}")(nothing_sent())
        await eventually(lambda: len(found.doorway.arrivals) == 1)
        failure = await failure_of(call.read())
        await eventually(lambda: len(found.doorway.arrivals) == 0)

    assert (failure.code, failure.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        {"request": "did not come in time"},
    )
    assert errors_in(caplog) == []


async def test_calls_whose_request_does_not_come_take_no_place_from_the_others() -> None:
    admission = Admission(calls=LaneLimits(server=1, tenant=1), streams=LaneLimits(server=1, tenant=1))

    async with wired((AGENTS, Answering(b"")), (THREADS, Held()), admission=admission) as found:
        for path in (GET_AGENT, WATCH_THREAD) * 5:
            found.channel.stream_stream(f"/treadle.v1.{path}")(nothing_sent())
        await eventually(lambda: len(found.doorway.arrivals) == 10)

        assert await found.unary(GET_AGENT)(GET) == b""
        assert await found.stream(WATCH_THREAD)(WATCH).read() == b"\x0a\x00"


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Without what grpc's poller logs by itself when a process has had several event loops."""
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    return [error for error in errors if "PollerCompletionQueue._handle_events" not in error]


async def test_of_too_many_calls_without_a_request_the_oldest_gives_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with wired((AGENTS, Answering(b"")), arrivals_max=2) as found:
        calls = []
        for number in (1, 2, 2):
            calls.append(found.channel.stream_stream(f"/treadle.v1.{GET_AGENT}")(nothing_sent()))
            await eventually(lambda number=number: len(found.doorway.arrivals) == number)  # type: ignore[misc]
        oldest = await failure_of(calls[0].read())
        assert await found.unary(GET_AGENT)(GET) == b""
        second = await failure_of(calls[1].read())
        await eventually(lambda: len(found.doorway.arrivals) == 1)

    for failure in (oldest, second):
        assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (failure.reason, failure.metadata) == ("CONCURRENCY_LIMITED", {"limit": "2"})
        assert failure.details["RetryInfo"].retry_delay.ToMicroseconds() > 0
    assert errors_in(caplog) == []


@pytest.mark.parametrize("path", [GET_AGENT, WATCH_THREAD])
async def test_a_call_without_a_request_is_refused(path: str) -> None:
    held = Held()

    async with wired((AGENTS, held), (THREADS, held)) as found:
        call = found.channel.stream_stream(f"/treadle.v1.{path}")(none_sent())
        failure = await failure_of(call.read())

    assert failure.fields == {"request": "is not there, or not whole"}
