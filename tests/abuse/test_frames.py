"""Frames, headers and messages that are not what they say: the server answers, or closes, and goes on."""

import gzip
import zlib

import pytest

from tests.abuse import wire
from tests.abuse.guard import Guard
from tests.abuse.observed import MIB
from tests.abuse.wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    Wire,
)

GET_AGENT = "/treadle.v1.AgentService/GetAgent"
WATCH = "/treadle.v1.ThreadService/WatchThread"
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE = "grpc 3", "grpc 8", "grpc 12", "grpc 14"


def answered(guard: Guard, data: bytes, *, greet: bool = True) -> str:
    """How the first stream of a new connection ends that sends this."""
    with Wire(guard.address, greet=greet) as connection:
        connection.send(data)
        return connection.status(1)


def posted(guard: Guard, payload: bytes, path: str = wire.GET_SERVER_INFO, **fields: str) -> str:
    """How a call with this body ends."""
    with Wire(guard.address) as connection:
        connection.send(wire.frame(HEADERS, wire.request_fields(path, **fields), flags=END_HEADERS, stream=1))
        connection.send_body(1, payload)
        return connection.status(1, 30)


def test_a_call_made_by_hand_is_answered(guard: Guard) -> None:
    assert answered(guard, wire.call(1)) == "grpc 0"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500,
        PREFACE[:-2] + b"XX" + wire.settings(),
        PREFACE + wire.call(1),
        b"\x00" * 70_000,
    ],
    ids=["http/1.1", "a TLS hello", "a preface with a fault", "no SETTINGS", "zeros"],
)
def test_what_is_no_http2_is_closed(guard: Guard, data: bytes) -> None:
    assert answered(guard, data, greet=False) == "closed"


@pytest.mark.parametrize(
    "data",
    [
        wire.frame(SETTINGS, b"abc"),
        wire.frame(PING, b"abc"),
        wire.frame(WINDOW_UPDATE, bytes(4)),
        wire.frame(wire.CONTINUATION, b"abc", flags=END_HEADERS, stream=1),
        wire.frame(DATA, b"", length=0xFFFFFF, stream=1) + b"x" * 70_000,
        wire.frame(HEADERS, wire.field("a", "b"), stream=1) + wire.frame(PING, bytes(8)),
    ],
    ids=[
        "SETTINGS of 3 bytes",
        "PING of 3 bytes",
        "a window of 0",
        "a lone CONTINUATION",
        "16 MiB",
        "no end",
    ],
)
def test_a_faulty_frame_ends_its_connection_and_no_other(guard: Guard, data: bytes) -> None:
    with Wire(guard.address) as connection:
        connection.send(data + wire.call(1))

        assert connection.status(1) in ("closed", "goaway 1", UNAVAILABLE)
        assert connection.frames() == [] or connection.ended


@pytest.mark.parametrize(
    "data",
    [
        wire.frame(77, b"abc"),
        wire.frame(HEADERS, wire.request_fields(), flags=END_HEADERS | END_STREAM, stream=0),
        wire.frame(DATA, b"abc", flags=END_STREAM, stream=9),
        wire.frame(wire.RST_STREAM, (8).to_bytes(4, "big"), stream=9),
        wire.settings(_99=1, _2=1),
    ],
    ids=["of no kind", "a call on stream 0", "DATA for no stream", "RST for no stream", "unknown SETTINGS"],
)
def test_a_frame_that_means_nothing_is_passed_over(guard: Guard, data: bytes) -> None:
    assert answered(guard, data + wire.call(1)) in ("grpc 0", "closed")


@pytest.mark.parametrize(
    "path", ["", "nothing", "/", "/\xff", "/treadle.v1.AgentService", "//x", "/" + "x" * 4_000]
)
def test_a_path_that_is_none_is_unimplemented(guard: Guard, path: str) -> None:
    assert answered(guard, wire.call(1, path=path)) == UNIMPLEMENTED


@pytest.mark.parametrize("fields", [{"_method": "GET"}, {"_path": None}, {"te": None}, {"_scheme": "ftp"}])
def test_headers_of_no_grpc_call_reset_their_stream(guard: Guard, fields: dict[str, str | None]) -> None:
    headers = wire.request_fields(**fields)  # type: ignore[arg-type]

    status = answered(guard, wire.frame(HEADERS, headers, flags=END_HEADERS | END_STREAM, stream=1))

    assert status.startswith(("reset", "http", "grpc 13"))


@pytest.mark.parametrize(
    "fault", [b"\xff" * 9, b"\x80", b"\x00\x7f", wire.field("UPPER", "x"), wire.field("", "x")]
)
def test_a_header_block_that_cannot_be_read_ends_its_call_or_its_connection(
    guard: Guard, fault: bytes
) -> None:
    headers = wire.frame(HEADERS, wire.request_fields() + fault, flags=END_HEADERS, stream=1)

    status = answered(guard, headers + wire.body(1, wire.message()))

    assert status.partition(" ")[0] in ("grpc", "reset", "goaway", "closed")
    assert status != "grpc 0" or fault == wire.field("", "x")


@pytest.mark.parametrize("timeout", ["", "S", "-1S", "1Y", "1.5S", "1S1S", "x" * 100, "0n", "1n"])
def test_an_absurd_timeout_ends_its_call(guard: Guard, timeout: str) -> None:
    assert answered(guard, wire.call(1, grpc_timeout=timeout)).startswith("grpc")


@pytest.mark.parametrize("timeout", ["99999999H", "999999999H", "18446744073709551616S"])
def test_an_immense_timeout_is_none(guard: Guard, timeout: str) -> None:
    assert answered(guard, wire.call(1, grpc_timeout=timeout)) == "grpc 0"


@pytest.mark.parametrize("path", [GET_AGENT, WATCH])
@pytest.mark.parametrize(
    "data", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xed\xa0", b"\x0b" * 5_000, b"\x0a\x03\xed\xa0\x80"]
)
def test_bytes_that_are_no_message_are_an_invalid_argument(guard: Guard, path: str, data: bytes) -> None:
    assert answered(guard, wire.call(1, data, path)) == INVALID_ARGUMENT


def test_a_message_over_four_mebibytes_is_refused_and_one_below_is_read(guard: Guard) -> None:
    assert posted(guard, wire.message(b"\xff" * (4 * MIB - 1)), GET_AGENT) == INVALID_ARGUMENT
    assert posted(guard, wire.message(b"\xff" * (4 * MIB + 1)), GET_AGENT) == RESOURCE_EXHAUSTED


def test_a_message_that_says_it_has_four_gibibytes_is_refused_before_it_comes(guard: Guard) -> None:
    assert posted(guard, b"\x00\xff\xff\xff\xff" + b"x" * 100) == RESOURCE_EXHAUSTED


def test_a_compressed_message_is_read(guard: Guard) -> None:
    assert posted(guard, wire.message(gzip.compress(b""), compressed=True), grpc_encoding="gzip") == "grpc 0"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_bomb_is_refused_and_not_unpacked(guard: Guard, encoding: str) -> None:
    bomb = wire.message(_zeros(256, encoding), compressed=True)

    guard.during(lambda: _refuses(guard, bomb, encoding))


@pytest.mark.soak
def test_a_bomb_of_four_gibibytes_is_refused_and_not_unpacked(guard: Guard) -> None:
    bomb = wire.message(_zeros(4_020, "gzip"), compressed=True)

    guard.during(lambda: _refuses(guard, bomb, "gzip"))


def _refuses(guard: Guard, bomb: bytes, encoding: str) -> None:
    assert len(bomb) < 4 * MIB
    assert posted(guard, bomb, grpc_encoding=encoding) == RESOURCE_EXHAUSTED


def _zeros(mebibytes: int, encoding: str) -> bytes:
    """Compressed to a thousandth."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    block = bytes(MIB)
    return b"".join([*(pack.compress(block) for _ in range(mebibytes)), pack.flush()])


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "zstd"])
def test_a_compressed_message_that_cannot_be_unpacked_is_refused(guard: Guard, encoding: str) -> None:
    status = posted(guard, wire.message(b"no such thing", compressed=True), grpc_encoding=encoding)

    assert status in (UNIMPLEMENTED, "grpc 13")


@pytest.mark.parametrize(
    "payload", [b"", b"\x00", b"\x00\x00\x00\x00\x20abc"], ids=["none", "a byte", "a part"]
)
def test_a_call_without_a_whole_message_waits_for_nobody(guard: Guard, payload: bytes) -> None:
    with Wire(guard.address) as connection:
        connection.send(wire.frame(HEADERS, wire.request_fields(WATCH), flags=END_HEADERS, stream=1))
        connection.send(wire.body(1, payload))
        connection.send(wire.call(3))

        assert connection.status(3) == "grpc 0"


def test_the_type_of_the_content_is_not_looked_at(guard: Guard) -> None:
    """grpc answers whoever speaks as gRPC does; what is no message is refused all the same."""
    assert answered(guard, wire.call(1, b"\xff", GET_AGENT, content_type="text/html")) == INVALID_ARGUMENT
