"""Floods of frames and calls on few connections: the others are served, and nothing piles up."""

import struct

import pytest

from tests.abuse import wire
from tests.abuse.guard import Guard
from tests.abuse.observed import MIB, faults_in
from tests.abuse.wire import CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Wire

GET_AGENT = "/treadle.v1.AgentService/GetAgent"
WATCH_THREADS = "/treadle.v1.ThreadService/WatchThreads"
DEAF_SECONDS = 2.0
"""A server that takes nothing for so long, because its answers are not read, has stopped the flood."""


def reset(stream: int) -> bytes:
    return wire.frame(RST_STREAM, struct.pack("!I", wire.CANCEL), stream=stream)


def poured(connection: Wire, data: bytes, bytes_max: int) -> int:
    """Bytes that the server took of the same data sent again and again, without reading what it says."""
    sent = 0
    while sent < bytes_max and connection.send(data):
        sent += len(data)
    return sent


@pytest.mark.parametrize("path", [wire.GET_SERVER_INFO, GET_AGENT, WATCH_THREADS, "/nothing"])
def test_streams_that_are_opened_and_reset_at_once(guard: Guard, path: str) -> None:
    headers = wire.request_fields(path)

    def flood() -> None:
        stream = 1
        for _ in range(5):
            with Wire(guard.address) as connection:
                for _ in range(40):
                    streams = range(stream, stream + 200, 2)
                    opened = (
                        wire.frame(HEADERS, headers, flags=END_HEADERS, stream=n) + reset(n) for n in streams
                    )
                    if not connection.send(b"".join(opened)):
                        break
                    stream += 200

    guard.during(flood)


def test_calls_that_are_reset_once_they_are_whole(guard: Guard) -> None:
    def flood() -> None:
        for _ in range(3):
            with Wire(guard.address) as connection:
                for begin in range(1, 20_000, 200):
                    calls = (wire.call(n) + reset(n) for n in range(begin, begin + 200, 2))
                    if not connection.send(b"".join(calls)):
                        break

    guard.during(flood)


def test_a_header_block_without_end(guard: Guard) -> None:
    part = wire.frame(CONTINUATION, wire.field("x", "y" * 16_000), stream=1)

    def flood() -> None:
        with Wire(guard.address) as connection:
            connection.send(wire.frame(HEADERS, wire.request_fields(), stream=1))
            poured(connection, part * 16, 100 * MIB)

    guard.during(flood)


def test_a_header_block_of_empty_frames_without_end(guard: Guard) -> None:
    part = wire.frame(CONTINUATION, stream=1)

    def flood() -> None:
        with Wire(guard.address) as connection:
            connection.send(wire.frame(HEADERS, wire.request_fields(), stream=1))
            poured(connection, part * 1_000, 20 * MIB)

    guard.during(flood)


def test_calls_with_immense_metadata(guard: Guard) -> None:
    """gRPC reads any number of header frames before the server sees the call and refuses it.

    What it takes for them meanwhile it keeps for the next ones.
    """
    guard.growth_bytes_max = 256 * MIB
    fields = [wire.field(f"x-{number}", "y" * 15_000) for number in range(60)]

    def flood() -> None:
        with Wire(guard.address) as connection:
            for stream in range(1, 200, 2):
                parts = [wire.frame(CONTINUATION, field, stream=stream) for field in fields]
                ended = wire.frame(CONTINUATION, flags=END_HEADERS, stream=stream)
                begun = wire.frame(HEADERS, wire.request_fields(), stream=stream)
                if not connection.send(b"".join([begun, *parts, ended]) + wire.body(stream, wire.message())):
                    return

    guard.during(flood)


def test_a_header_table_that_is_filled_and_referred_to(guard: Guard) -> None:
    """A field of 4,000 bytes that is remembered, and then named by one byte a thousand times."""
    remembered = b"\x40" + wire.field("x", "y" * 4_000)[1:]

    def flood() -> None:
        with Wire(guard.address) as connection:
            for stream in range(1, 400, 2):
                block = wire.request_fields() + (remembered if stream == 1 else b"") + b"\xbe" * 10_000
                connection.send(wire.frame(HEADERS, block, flags=END_HEADERS | END_STREAM, stream=stream))

    guard.during(flood)


@pytest.mark.parametrize("flags", [0, wire.ACK])
def test_pings_without_end(guard: Guard, flags: int) -> None:
    ping = wire.frame(PING, bytes(8), flags=flags)

    def flood() -> None:
        with Wire(guard.address, timeout=DEAF_SECONDS) as connection:
            poured(connection, ping * 1_000, 3 * MIB)

    guard.during(flood)


def test_settings_without_end(guard: Guard) -> None:
    change = wire.settings(_4=65_535) + wire.settings(_4=1)

    def flood() -> None:
        with Wire(guard.address, timeout=DEAF_SECONDS) as connection:
            poured(connection, change * 500, 5 * MIB)

    guard.during(flood)


def test_frames_of_no_kind_without_end(guard: Guard) -> None:
    def flood() -> None:
        with Wire(guard.address) as connection:
            poured(connection, wire.frame(99, b"x" * 16_000) * 10, 100 * MIB)

    guard.during(flood)


def test_data_for_no_stream_without_end(guard: Guard) -> None:
    def flood() -> None:
        with Wire(guard.address) as connection:
            poured(connection, wire.frame(wire.DATA, b"x" * 16_000, stream=1) * 10, 100 * MIB)

    guard.during(flood)


def test_empty_data_without_end(guard: Guard) -> None:
    def flood() -> None:
        with Wire(guard.address) as connection:
            connection.send(wire.frame(HEADERS, wire.request_fields(), flags=END_HEADERS, stream=1))
            poured(connection, wire.frame(wire.DATA, stream=1) * 1_000, 20 * MIB)

    guard.during(flood)


def test_malformed_calls_leave_few_lines_in_the_log(guard: Guard) -> None:
    refused = [wire.call(n, b"\xff", GET_AGENT) for n in range(1, 4_000, 2)]
    unreadable = [wire.call(n, grpc_timeout="soon") for n in range(4_001, 8_000, 2)]

    def flood() -> None:
        with Wire(guard.address) as connection:
            connection.send(b"".join(refused[:500]))
            assert connection.status(999) == "grpc 3"
            connection.send(b"".join(refused[500:] + unreadable))
            connection.status(7_999)

    guard.during(flood)
    assert faults_in(guard.server.log_path) == []


def test_calls_of_whose_message_a_part_comes(guard: Guard) -> None:
    """Each is half closed, so that nothing more can come: they must not stay as long as their connection."""

    def flood() -> None:
        for _ in range(3):
            with Wire(guard.address) as connection:
                for stream in range(1, 10_000, 2):
                    headers = wire.frame(HEADERS, wire.request_fields(), flags=END_HEADERS, stream=stream)
                    if not connection.send(headers + wire.body(stream, b"\x00\x00\x00\x00\x20abc")):
                        break

    guard.during(flood)
