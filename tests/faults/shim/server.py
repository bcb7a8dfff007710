"""`python -m tests.faults.shim.server`: the server, with tools that write down in its process what they do.

`toolGroups/marks` has one tool of each effect class: `look` READ_ONLY, `save` IDEMPOTENT, `send`
AT_MOST_ONCE. A call appends its line to the file named in MARKS_VARIABLE, through the shim, so that the line
has its place among what was asked of the disk. Then it waits for the file `gate`, if it names one.
"""

import argparse
import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from tests.faults.pace import PACE
from treadle_server import app, logs
from treadle_server import config as configuration
from treadle_server.core.kinds import Effect
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.tools import Notes, Toolbox, ToolCall, ToolResult
from treadle_server.tools.groups import ToolGroups

GROUP = "toolGroups/marks"
MARKS_VARIABLE = "STORAGE_SHIM_MARKS"
_LOOK_SECONDS = 0.01
_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"note": {"type": "string"}, "gate": {"type": "string"}},
        "required": ["note"],
        "additionalProperties": False,
    }
)
_EFFECTS = {"look": Effect.READ_ONLY, "save": Effect.IDEMPOTENT, "send": Effect.AT_MOST_ONCE}


def _spec(name: str, effect: Effect) -> ToolSpec:
    return ToolSpec(
        name=name,
        tool=f"marks/{name}",
        description="Writes down that it was called.",
        parameters_schema_json=_SCHEMA,
        effect=effect,
        attempts_max=1 if effect is Effect.AT_MOST_ONCE else 3,
    )


class MarkingTools:
    """Implements `ports.tools.Toolbox`: the tools of the server, and those that mark."""

    def __init__(self, others: ToolGroups, marks: Path) -> None:
        self._others = others
        self._marks = marks
        self._specs = tuple(_spec(name, effect) for name, effect in _EFFECTS.items())

    def builtins(self) -> tuple[ToolSpec, ...]:
        return self._others.builtins()

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        others = self._others.resolve([group for group in tool_groups if group != GROUP], enabled_tools)
        return (*self._specs, *others) if GROUP in tool_groups else others

    def problem(self, spec: ToolSpec, arguments_json: str) -> str | None:
        return self._others.problem(spec, arguments_json)

    async def call(self, spec: ToolSpec, call: ToolCall) -> ToolResult:
        if not spec.tool.startswith("marks/"):
            return await self._others.call(spec, call)
        arguments = json.loads(call.arguments_json)
        line = {"tool": spec.name, "note": arguments["note"], "call_id": call.tool_call_id}
        await asyncio.to_thread(self._mark, line)
        gate = self._marks.with_name(arguments.get("gate", self._marks.name))
        while not gate.exists():  # noqa: ASYNC110 - a test's sign to another process
            await asyncio.sleep(_LOOK_SECONDS)
        return ToolResult(f"{spec.name} {arguments['note']}")

    def _mark(self, line: dict[str, str]) -> None:
        descriptor = os.open(self._marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, json.dumps(line).encode() + b"\n")
        finally:
            os.close(descriptor)


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("db", "listen"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    config = configuration.load(db=Path(given.db), listen=given.listen)
    logs.configure(config.log_format, config.log_level)

    def toolbox(notes: Notes, now_micros: Callable[[], int]) -> Toolbox:
        return MarkingTools(ToolGroups(notes, now_micros), Path(os.environ[MARKS_VARIABLE]))

    return uvloop.run(app.serve(config, toolbox, PACE))


if __name__ == "__main__":
    raise SystemExit(main())
