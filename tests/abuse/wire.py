"""HTTP/2 by hand: frames as bytes on a socket, for what no client library would send."""

import socket
import struct
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
CANCEL = 8
GET_SERVER_INFO = "/treadle.v1.AdminService/GetServerInfo"
_WINDOW = 65_535
_STATIC = {8: (":status", "200")}
_STATIC_NAMES = {8: ":status", 31: "content-type"}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that was received."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(
    kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0, length: int | None = None
) -> bytes:
    """`length` is what the frame says of its payload, where that is to be a lie."""
    size = len(payload) if length is None else length
    return struct.pack("!I", size)[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def settings(**values: int) -> bytes:
    """By their numbers as in RFC 9113: `settings(_4=0)` sets the initial window."""
    pairs = b"".join(struct.pack("!HI", int(name[1:]), value) for name, value in values.items())
    return frame(SETTINGS, pairs)


def field(name: str, value: str | bytes) -> bytes:
    """A header field, spelled out and not to be remembered."""
    raw = value if isinstance(value, bytes) else value.encode()
    return b"\x00" + _text(name.encode()) + _text(raw)


def _text(raw: bytes) -> bytes:
    return _integer(len(raw), 7) + raw


def _integer(value: int, bits: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out, value = bytearray([most]), value - most
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def request_fields(path: str = GET_SERVER_INFO, **changes: str | bytes | None) -> bytes:
    """The header block of a gRPC request; `changes` by names with `_` for `-` and for the colon in front."""
    fields: dict[str, str | bytes | None] = {
        "_method": "POST",
        "_scheme": "http",
        "_path": path,
        "_authority": "localhost",
        "te": "trailers",
        "content_type": "application/grpc",
        **changes,
    }
    named = {(":" + n[1:] if n.startswith("_") else n).replace("_", "-"): v for n, v in fields.items()}
    return b"".join(field(name, value) for name, value in named.items() if value is not None)


def message(data: bytes = b"", *, compressed: bool = False) -> bytes:
    """A gRPC message as it stands in DATA frames."""
    return bytes([compressed]) + struct.pack("!I", len(data)) + data


def call(stream: int, data: bytes = b"", path: str = GET_SERVER_INFO, **changes: str | bytes | None) -> bytes:
    """A whole unary request."""
    headers = frame(HEADERS, request_fields(path, **changes), flags=END_HEADERS, stream=stream)
    return headers + body(stream, message(data))


def body(stream: int, payload: bytes, *, end: bool = True) -> bytes:
    """Bytes as DATA frames of the usual size."""
    parts = [payload[at : at + 16_384] for at in range(0, len(payload), 16_384)] or [b""]
    frames = [frame(DATA, part, stream=stream) for part in parts[:-1]]
    return b"".join([*frames, frame(DATA, parts[-1], flags=END_STREAM if end else 0, stream=stream)])


class Wire:
    """One TCP connection to a server, which writes what it is told.

    A polite one acknowledges SETTINGS and PING when it reads them. It never asks for more than the first
    window of what a stream sends.
    """

    def __init__(
        self, address: str, *, greet: bool = True, polite: bool = True, timeout: float = 10.0
    ) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self._windows = {0: _WINDOW}
        self._window = _WINDOW
        self._polite = polite
        self._kept: Frame | None = None
        self.ended = False
        """The server has closed its side."""
        if greet:
            self.send(PREFACE + settings(_1=0))

    def send(self, data: bytes) -> bool:
        """False when the server does not take it any more."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            return False
        return True

    def send_body(self, stream: int, payload: bytes, *, seconds: float = 30.0) -> bool:
        """DATA frames no faster than the server wants them; False when it wants no more."""
        deadline, at = time.monotonic() + seconds, 0
        while at < len(payload):
            size = min(
                16_384, len(payload) - at, self._windows[0], self._windows.setdefault(stream, self._window)
            )
            if size <= 0:
                received = self.next(deadline)
                if received is None or (received.stream == stream and received.kind in (HEADERS, RST_STREAM)):
                    self._kept = received
                    return False
                continue
            last = at + size == len(payload)
            part = payload[at : at + size]
            if not self.send(frame(DATA, part, flags=END_STREAM if last else 0, stream=stream)):
                return False
            at += size
            self._windows[0] -= size
            self._windows[stream] -= size
        return True

    def frames(self, seconds: float = 10.0) -> list[Frame]:
        """What comes until the server closes or the time is over."""
        found: list[Frame] = []
        deadline = time.monotonic() + seconds
        while (received := self.next(deadline)) is not None:
            found.append(received)
        return found

    def next(self, deadline: float) -> Frame | None:
        """The next frame; None at the end of the connection or of the time."""
        while len(self._unread) < 9 or len(self._unread) < 9 + int.from_bytes(self._unread[:3], "big"):
            if not self._receive(deadline):
                return None
        size = int.from_bytes(self._unread[:3], "big")
        head, payload = self._unread[:9], self._unread[9 : 9 + size]
        self._unread = self._unread[9 + size :]
        received = Frame(head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload)
        if self._polite:
            self._react(received)
        return received

    def _react(self, received: Frame) -> None:
        if received.kind == WINDOW_UPDATE:
            window = self._windows.get(received.stream, self._window)
            self._windows[received.stream] = window + int.from_bytes(received.payload, "big")
        elif received.kind == PING and not received.flags & ACK:
            self.send(frame(PING, received.payload, flags=ACK))
        elif received.kind == SETTINGS and not received.flags & ACK:
            self._take_settings(received.payload)
            self.send(frame(SETTINGS, flags=ACK))

    def _take_settings(self, payload: bytes) -> None:
        for number, value in struct.iter_unpack("!HI", payload):
            if number == INITIAL_WINDOW_SIZE:
                for stream in self._windows.keys() - {0}:
                    self._windows[stream] += value - self._window
                self._window = value

    def _receive(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0 or self.ended:
            return False
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65_536)
        except TimeoutError:
            return False
        except ConnectionResetError:
            data = b""
        self.ended = not data
        self._unread += data
        return bool(data)

    def status(self, stream: int, seconds: float = 10.0) -> str:
        """How a stream ends: `grpc 3`, `http 415`, `reset 1`, `goaway 11`, `closed` or `nothing`."""
        deadline = time.monotonic() + seconds
        while (received := self._kept or self.next(deadline)) is not None:
            self._kept = None
            if received.kind == GOAWAY and int.from_bytes(received.payload[4:8], "big"):
                return f"goaway {int.from_bytes(received.payload[4:8], 'big')}"
            if received.stream != stream:
                continue
            if received.kind == RST_STREAM:
                return f"reset {int.from_bytes(received.payload, 'big')}"
            if received.kind == HEADERS:
                fields = parse(received.payload)
                if "grpc-status" in fields:
                    return f"grpc {fields['grpc-status']}"
                if fields.get(":status", "200") != "200":
                    return f"http {fields[':status']}"
        return "closed" if self.ended else "nothing"

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parse(block: bytes) -> dict[str, str]:
    """The fields of a header block from a peer that may remember nothing, as our SETTINGS have it."""
    fields: dict[str, str] = {}
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            index, at = _read_integer(block, at, 7)
            name, value = _STATIC.get(index, (f"static {index}", ""))
        elif first & 0xE0 == 0x20:
            _, at = _read_integer(block, at, 5)
            continue
        else:
            index, at = _read_integer(block, at, 6 if first & 0x40 else 4)
            if index:
                name = _STATIC_NAMES.get(index, f"static {index}")
            else:
                name, at = _read_text(block, at)
            value, at = _read_text(block, at)
        fields[name] = value
    return fields


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while True:
        value += (block[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not block[at - 1] & 0x80:
            return value, at


def _read_text(block: bytes, at: int) -> tuple[str, int]:
    packed = bool(block[at] & 0x80)
    size, at = _read_integer(block, at, 7)
    text = "packed by Huffman's code" if packed else block[at : at + size].decode("latin-1")
    return text, at + size
