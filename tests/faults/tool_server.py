"""`python -m tests.faults.tool_server`: the server with tools that are played by the world.

`toolGroups/ledger` has one tool of each effect class: `look` READ_ONLY, `save` IDEMPOTENT, `send`
AT_MOST_ONCE; and `pay`, AT_MOST_ONCE, which agents of tests want people to approve. What they do stands in
`world_tools`. The world's address is in the environment.
"""

import argparse
import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop

from tests.faults.pace import PACE
from treadle_server import app, failpoints, logs
from treadle_server import config as configuration
from treadle_server.core.kinds import Effect
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.tools import Notes, Toolbox, ToolCall, ToolError, ToolResult
from treadle_server.tools.groups import ToolGroups

GROUP = "toolGroups/ledger"
WORLD_VARIABLE = "FAULTS_WORLD"
_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "note": {"type": "string"},
            "gate": {"type": "string"},
            "delay_ms": {"type": "integer"},
            "failing_attempts": {"type": "integer"},
        },
        "required": ["note"],
        "additionalProperties": False,
    }
)


def _spec(name: str, effect: Effect, attempts_max: int) -> ToolSpec:
    return ToolSpec(
        name=name,
        tool=f"ledger/{name}",
        description="Writes down that it was called.",
        parameters_schema_json=_SCHEMA,
        effect=effect,
        attempts_max=attempts_max,
    )


SPECS = (
    _spec("look", Effect.READ_ONLY, 3),
    _spec("save", Effect.IDEMPOTENT, 3),
    _spec("send", Effect.AT_MOST_ONCE, 1),
    _spec("pay", Effect.AT_MOST_ONCE, 1),
)


class World:
    """One connection to the world, made at the first call, for all calls of this process."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._connecting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def call(self, spec: ToolSpec, call: ToolCall) -> dict[str, Any]:
        writer = await self._connected()
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        message = {
            "id": number,
            "tool": spec.name,
            "call_id": call.tool_call_id,
            "key": call.idempotency_key,
            "attempt": call.attempt,
            "arguments_json": call.arguments_json,
            "sent_micros": time.monotonic_ns() // 1000,
        }
        try:
            writer.write(json.dumps(message).encode() + b"\n")
            return await answer
        finally:
            del self._waiting[number]

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await asyncio.open_connection(self._host, int(self._port))
                self._reading = asyncio.create_task(self._read(reader))
        return self._writer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            if "step" in message:
                _pass(message["step"])
            elif (answer := self._waiting.get(message["id"])) is not None and not answer.done():
                answer.set_result(message)


def _pass(step: str) -> None:
    if failpoints.ACTIVE:
        failpoints.hit("effect.before" if step == "begun" else "effect.after")


class WorldTools:
    """Implements `ports.tools.Toolbox`: the tools of the server, and those of the world."""

    def __init__(self, others: ToolGroups, world: World) -> None:
        self._others = others
        self._world = world

    def builtins(self) -> tuple[ToolSpec, ...]:
        return self._others.builtins()

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        others = self._others.resolve([group for group in tool_groups if group != GROUP], enabled_tools)
        return (*SPECS, *others) if GROUP in tool_groups else others

    def problem(self, spec: ToolSpec, arguments_json: str) -> str | None:
        return self._others.problem(spec, arguments_json)

    async def call(self, spec: ToolSpec, call: ToolCall) -> ToolResult:
        if not spec.tool.startswith("ledger/"):
            return await self._others.call(spec, call)
        answer = await self._world.call(spec, call)
        if "error" in answer:
            raise ToolError(answer["error"], retryable=True)
        return ToolResult(answer["result"])


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("db", "listen"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    config = configuration.load(db=Path(given.db), listen=given.listen)
    logs.configure(config.log_format, config.log_level)

    def toolbox(notes: Notes, now_micros: Callable[[], int]) -> Toolbox:
        return WorldTools(ToolGroups(notes, now_micros), World(os.environ[WORLD_VARIABLE]))

    return uvloop.run(app.serve(config, toolbox, PACE))


if __name__ == "__main__":
    raise SystemExit(main())
