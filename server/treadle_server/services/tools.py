"""The tools that agents can be given."""

import hashlib
import json
from dataclasses import dataclass

from treadle_server.core.kinds import Effect
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.tools import Toolbox

ACTIVE = 1
"""Number of `Tool.State.ACTIVE`."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as it is shown."""

    name: str
    description: str
    parameters_schema_json: str
    effect: Effect
    definition_digest: str
    state: int
    timeout_micros: int
    retries: int
    output_bytes_max: int


class Tools:
    """The use cases of ToolService."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._tools = tuple(_tool(spec) for spec in toolbox.builtins())

    def builtins(self) -> tuple[Tool, ...]:
        """The tools of `toolGroups/builtin`, in the server's order."""
        return self._tools


def _tool(spec: ToolSpec) -> Tool:
    return Tool(
        name=spec.tool,
        description=spec.description,
        parameters_schema_json=spec.parameters_schema_json,
        effect=spec.effect,
        definition_digest=_digest(spec),
        state=ACTIVE,
        timeout_micros=spec.timeout_micros,
        retries=spec.attempts_max - 1,
        output_bytes_max=spec.output_bytes_max,
    )


def _digest(spec: ToolSpec) -> str:
    """Of what an agent is promised: description, schema and effect."""
    text = json.dumps([spec.description, spec.parameters_schema_json, spec.effect.name])
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
