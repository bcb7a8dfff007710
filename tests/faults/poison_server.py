"""`python -m tests.faults.poison_server`: the server with a tool that can kill it.

`toolGroups/poison` has one READ_ONLY tool, `taste`: with `{"deadly": true}` it kills the server's own
process, as a fault in native code would, and else answers.
"""

import argparse
import json
import os
import signal
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

GROUP = "toolGroups/poison"
_SCHEMA = {
    "type": "object",
    "properties": {"deadly": {"type": "boolean"}},
    "required": ["deadly"],
    "additionalProperties": False,
}
TASTE = ToolSpec(
    name="taste",
    tool="poison/taste",
    description="Tastes what may be deadly.",
    parameters_schema_json=json.dumps(_SCHEMA),
    effect=Effect.READ_ONLY,
)


class PoisonousTools:
    """Implements `ports.tools.Toolbox`: the tools of the server, and the one that may kill it."""

    def __init__(self, others: ToolGroups) -> None:
        self._others = others

    def builtins(self) -> tuple[ToolSpec, ...]:
        return self._others.builtins()

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        others = self._others.resolve([group for group in tool_groups if group != GROUP], enabled_tools)
        return (TASTE, *others) if GROUP in tool_groups else others

    def problem(self, spec: ToolSpec, arguments_json: str) -> str | None:
        return self._others.problem(spec, arguments_json)

    async def call(self, spec: ToolSpec, call: ToolCall) -> ToolResult:
        if spec.tool != TASTE.tool:
            return await self._others.call(spec, call)
        if json.loads(call.arguments_json)["deadly"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return ToolResult("bitter")


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("db", "listen"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    config = configuration.load(db=Path(given.db), listen=given.listen)
    logs.configure(config.log_format, config.log_level)

    def toolbox(notes: Notes, now_micros: Callable[[], int]) -> Toolbox:
        return PoisonousTools(ToolGroups(notes, now_micros))

    return uvloop.run(app.serve(config, toolbox, PACE))


if __name__ == "__main__":
    raise SystemExit(main())
