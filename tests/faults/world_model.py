"""The model of the world: plays scripts (`scripts.script`) over the Gemini API's streaming wire protocol.

The script is the last text of a user that is one, and its member `thread` names the ledger's notes. A turn
with a `gate` is begun and waits for it before it says anything. Every answer has another number of tokens,
so what a thread was charged tells which answers it took.
"""

import asyncio
import json
from typing import Any, Protocol

from tests.fakes.gemini import Fields, chunk, function_call, text, thought
from tests.faults.ledger import MODEL, Line

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PROMPT_TOKENS = 100
THOUGHT_TOKENS = 3


class Diary(Protocol):
    """Where the world writes what happened."""

    def begun(self, line: Line) -> None: ...
    def done(self, line: Line) -> None: ...
    def answered(self, line: Line) -> None: ...
    def answer_number(self) -> int: ...


class Gates(Protocol):
    """What turns wait for."""

    async def passed(self, name: str) -> None: ...


class ModelServer:
    """Serves `streamGenerateContent` to any number of connections."""

    def __init__(self, diary: Diary, gates: Gates) -> None:
        self._diary = diary
        self._gates = gates

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers requests one after the other until the server hangs up or is killed."""
        try:
            while True:
                await self._answer(await _body(reader), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _answer(self, body: Fields, writer: asyncio.StreamWriter) -> None:
        contents = body["contents"]
        script, place = _script(contents)
        turn, note = script["turns"][place], f"{script['thread']}/{place + 1}"
        self._diary.begun(Line(MODEL, note))
        if "gate" in turn:
            await self._gates.passed(turn["gate"])
        tokens = self._diary.answer_number()
        done = Line(MODEL, note, tokens=PROMPT_TOKENS + tokens + THOUGHT_TOKENS)
        writer.write(_HEAD)
        chunks = _chunks(turn, contents, tokens)
        for number, message in enumerate(chunks, start=1):
            await asyncio.sleep(turn.get("delay_ms", 0) / 1000 / len(chunks))
            if number == len(chunks):
                self._diary.done(done)
            data = f"data: {json.dumps(message)}\r\n\r\n".encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        self._diary.answered(done)


def _script(contents: list[Fields]) -> tuple[Fields, int]:
    """And how many of its turns were played. Before it there may be what a session remembers."""
    place = 0
    for content in reversed(contents):
        place += content["role"] == "model"
        told = content["parts"][0].get("text", "") if content["role"] == "user" else ""
        if told.startswith("{"):
            return json.loads(told), place
    raise AssertionError("nobody gave a script")


def _chunks(turn: Fields, contents: list[Fields], tokens: int) -> list[Fields]:
    """A thought, the text or the calls, and the end with the usage."""
    parts: list[Fields] = []
    if turn.get("text"):
        parts.append(text(turn["text"].replace("{observation}", _observation(contents))))
    parts += [function_call(call["name"], call["arguments"]) for call in turn.get("calls", [])]
    usage: dict[str, Any] = {
        "promptTokenCount": PROMPT_TOKENS,
        "candidatesTokenCount": tokens,
        "thoughtsTokenCount": THOUGHT_TOKENS,
        "totalTokenCount": PROMPT_TOKENS + tokens + THOUGHT_TOKENS,
    }
    thoughts = [chunk(thought(turn["thought"]))] if turn.get("thought") else []
    return [*thoughts, chunk(*parts), chunk(finish="STOP", usage=usage)]


def _observation(contents: list[Fields]) -> str:
    parts = contents[-1]["parts"]
    response: Fields = parts[-1].get("functionResponse", {}).get("response", {})
    return str(response.get("output", response.get("error", "")))


async def _body(reader: asyncio.StreamReader) -> Fields:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lengths = [
        line.partition(":")[2] for line in head.split("\r\n") if line.lower().startswith("content-length:")
    ]
    body: Fields = json.loads(await reader.readexactly(int(lengths[0])))
    return body
