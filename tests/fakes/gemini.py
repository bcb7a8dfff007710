"""A server on loopback that speaks the Gemini API's `generateContent` as it is told to.

    async with FakeGemini() as gemini:
        gemini.will(Stream([chunk(text("Hello"), finish="STOP")]))
        ...  # with GOOGLE_GEMINI_BASE_URL=gemini.base_url
        assert gemini.requests[0].body["contents"]

It answers requests in order of arrival, each with the next answer it was given, and keeps all it was asked.
"""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

Fields = dict[str, Any]


def text(words: str, **more: Any) -> Fields:
    return {"text": words, **more}


def thought(words: str, **more: Any) -> Fields:
    return {"text": words, "thought": True, **more}


def function_call(name: str, arguments: Fields, *, call_id: str = "", **more: Any) -> Fields:
    call: Fields = {"name": name, "args": arguments}
    if call_id:
        call["id"] = call_id
    return {"functionCall": call, **more}


def chunk(*parts: Fields, finish: str = "", usage: Fields | None = None) -> Fields:
    """One message of the stream; the last one has a finish reason."""
    candidate: Fields = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    message: Fields = {"candidates": [candidate], "modelVersion": "fake"}
    if usage is not None:
        message["usageMetadata"] = usage
    return message


@dataclass(frozen=True, slots=True)
class Stream:
    """Chunks, and then what `ending` says: END, STALL (nothing more comes) or RESET."""

    chunks: Sequence[Fields | str]
    """A str is sent as it is, as the data of a message."""
    ending: str = "END"
    bytes_at_once: int = 0
    """Drips: so many bytes a write. 0 writes each chunk whole."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP error."""

    status: int
    message: str = "no"
    details: Sequence[Fields] = ()
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Silence:
    """The request is read and never answered."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset instead of an answer."""


Answer = Stream | Failure | Silence | Reset


@dataclass(slots=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    """By lower-case name."""
    body: Fields
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """The client closed the connection while it was waiting for more."""


class FakeGemini:
    """Answers 500 when it was not told what to answer."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self._answers: deque[Answer] = deque()
        self._arrival = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def will(self, *answers: Answer) -> None:
        """Adds the answers to the next requests."""
        self._answers.extend(answers)

    async def received(self, count: int) -> Received:
        """Waits for so many requests and returns the last of them."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection ended with it."""
        received = await _read_request(reader)
        answer = self._answers.popleft() if self._answers else Failure(500, "no answer was given to the fake")
        async with self._arrival:
            self.requests.append(received)
            self._arrival.notify_all()
        match answer:
            case Failure():
                _write_failure(writer, answer)
            case Stream():
                await _write_stream(writer, answer, streamed="streamGenerateContent" in received.path)
        await writer.drain()
        match answer:
            case Silence() | Stream(ending="STALL"):
                await reader.read()
                received.hung_up.set()
                return False
            case Reset() | Stream(ending="RESET"):
                writer.transport.abort()
                return False
        return True


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(first.split(" ")[1], headers, json.loads(body))


def _write_failure(writer: asyncio.StreamWriter, failure: Failure) -> None:
    error = {"code": failure.status, "message": failure.message, "status": "FAKE"}
    if failure.details:
        error["details"] = list(failure.details)
    _write_whole(writer, failure.status, {"error": error}, failure.headers)


def _write_whole(
    writer: asyncio.StreamWriter, status: int, message: Fields, headers: Sequence[tuple[str, str]] = ()
) -> None:
    body = json.dumps(message).encode()
    lines = [f"HTTP/1.1 {status} Fake", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)


async def _write_stream(writer: asyncio.StreamWriter, stream: Stream, *, streamed: bool) -> None:
    if not streamed:
        _write_whole(writer, 200, _joined(stream))
        return
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for message in stream.chunks:
        data = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
        event = f"data: {data}\r\n\r\n".encode()
        step = stream.bytes_at_once or len(event)
        for start in range(0, len(event), step):
            piece = event[start : start + step]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
    if stream.ending == "END":
        writer.write(b"0\r\n\r\n")


def _joined(stream: Stream) -> Fields:
    """What `generateContent` answers: the chunks as one message."""
    messages = [message for message in stream.chunks if isinstance(message, dict)]
    parts = [part for message in messages for part in message["candidates"][0]["content"]["parts"]]
    candidate = {**messages[-1]["candidates"][0], "content": {"role": "model", "parts": parts}}
    return {**messages[-1], "candidates": [candidate]}
