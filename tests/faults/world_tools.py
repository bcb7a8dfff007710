"""The tools of the world: one JSON object a line, many calls at once over one connection.

A call appends BEGUN to the ledger, takes `delay_ms`, appends DONE, waits for the file `gate` if it names one,
and answers. Its first `failing_attempts` attempts are answered as if the answer had been lost. What is begun
is done, whether or not anybody still waits for it.
"""

import asyncio
import json
from typing import Any, Protocol

from tests.faults.ledger import Line

Message = dict[str, Any]


class Diary(Protocol):
    """Where the world writes what happened."""

    def begun(self, line: Line) -> None: ...
    def done(self, line: Line) -> None: ...
    def answered(self, line: Line) -> None: ...


class Gates(Protocol):
    """What calls wait for."""

    async def passed(self, name: str) -> None: ...


class ToolCalls:
    """Serves any number of connections, of one server after the other."""

    def __init__(self, diary: Diary, gates: Gates) -> None:
        self._diary = diary
        self._gates = gates
        self._calls: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads calls until the server hangs up or is killed."""
        try:
            while line := await reader.readline():
                task = asyncio.create_task(self._call(json.loads(line), writer))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
        except ConnectionError:
            return
        finally:
            writer.close()

    async def _call(self, call: Message, writer: asyncio.StreamWriter) -> None:
        arguments = json.loads(call["arguments_json"])
        line = Line(
            call["tool"],
            arguments["note"],
            call["call_id"],
            call["key"],
            call["attempt"],
            micros=call["sent_micros"],
        )
        self._diary.begun(line)
        _say(writer, call, step="begun")
        await asyncio.sleep(arguments.get("delay_ms", 0) / 1000)
        self._diary.done(line)
        _say(writer, call, step="done")
        if "gate" in arguments:
            await self._gates.passed(arguments["gate"])
        if call["attempt"] <= arguments.get("failing_attempts", 0):
            _say(writer, call, error="the answer was lost")
        else:
            _say(writer, call, result=f"{call['tool']} {arguments['note']}")
        self._diary.answered(line)


def _say(writer: asyncio.StreamWriter, call: Message, **more: str) -> None:
    if not writer.is_closing():
        writer.write(json.dumps({"id": call["id"], **more}).encode() + b"\n")
