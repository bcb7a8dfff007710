"""`python -m tests.faults.tool_server`: the server with tools that write down what they do.

`toolGroups/ledger` has one tool of each effect class: `look` READ_ONLY, `save` IDEMPOTENT, `send`
AT_MOST_ONCE. A call appends its line to the ledger first. Then it waits for the file `gate`, if it names one,
and then its first `failing_attempts` attempts fail as if the answer had been lost.
"""

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from tests.faults.ledger import Ledger, Line
from treadle_server import app, logs
from treadle_server import config as configuration
from treadle_server.core.kinds import Effect
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.tools import Notes, Toolbox, ToolCall, ToolError, ToolResult
from treadle_server.tools.groups import ToolGroups

GROUP = "toolGroups/ledger"
_LOOK_SECONDS = 0.02
_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "note": {"type": "string"},
            "gate": {"type": "string"},
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
)


class Gates:
    """Files that calls wait for: a test opens a gate by making its file. One look serves all that wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looks: dict[str, asyncio.Task[None]] = {}

    async def passed(self, name: str) -> None:
        look = self._looks.get(name)
        if look is None:
            look = self._looks[name] = asyncio.create_task(self._look(self._folder / name))
        await asyncio.shield(look)

    async def _look(self, path: Path) -> None:
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - a test's sign to another process
            await asyncio.sleep(_LOOK_SECONDS)


class RecordingTools:
    """Implements `ports.tools.Toolbox`: the tools of the server, and those of the ledger."""

    def __init__(self, others: ToolGroups, ledger: Ledger, gates: Gates) -> None:
        self._others = others
        self._ledger = ledger
        self._gates = gates

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
        arguments = json.loads(call.arguments_json)
        line = Line(spec.name, arguments["note"], call.tool_call_id, call.idempotency_key, call.attempt)
        await asyncio.to_thread(self._ledger.append, line)
        if "gate" in arguments:
            await self._gates.passed(arguments["gate"])
        if call.attempt <= arguments.get("failing_attempts", 0):
            raise ToolError("the answer was lost", retryable=True)
        return ToolResult(f"{spec.name} {arguments['note']}")


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("db", "listen", "ledger", "gates"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    config = configuration.load(db=Path(given.db), listen=given.listen)
    logs.configure(config.log_format, config.log_level)

    def toolbox(notes: Notes, now_micros: Callable[[], int]) -> Toolbox:
        return RecordingTools(
            ToolGroups(notes, now_micros), Ledger(Path(given.ledger)), Gates(Path(given.gates))
        )

    return uvloop.run(app.serve(config, toolbox))


if __name__ == "__main__":
    raise SystemExit(main())
