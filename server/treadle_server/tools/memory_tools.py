"""The tools of memories, beside those of a toolbox: an agent gets them by its memory rules."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from treadle_server.core.json_text import canonical_json
from treadle_server.core.kinds import Effect
from treadle_server.core.memory import MemoryRule
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.tools import Memories, Toolbox, ToolCall, ToolResult
from treadle_server.tools.arguments import arguments_problem
from treadle_server.tools.builtin.memories import OwnMemories, save_memory, search_memory
from treadle_server.tools.calling import answered
from treadle_server.tools.schema import tool_spec

_STORE_ATTEMPTS_MAX = 3


def _spec(function: Any, effect: Effect) -> ToolSpec:
    return tool_spec(
        function, tool=f"builtin/{function.__name__}", effect=effect, attempts_max=_STORE_ATTEMPTS_MAX
    )


_SEARCH = _spec(search_memory, Effect.READ_ONLY)
_SAVE = _spec(save_memory, Effect.IDEMPOTENT)


class MemoryTools:
    """Implements `ports.tools.Toolbox` and `ports.tools.MemoryTools`; all else is the others'."""

    def __init__(self, others: Toolbox, memories: Memories) -> None:
        self._others = others
        self._memories = memories

    def builtins(self) -> tuple[ToolSpec, ...]:
        """Without its own, which no tool group has."""
        return self._others.builtins()

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        return self._others.resolve(tool_groups, enabled_tools)

    def of_memory(self, rules: Sequence[MemoryRule]) -> tuple[ToolSpec, ...]:
        writable = [rule for rule in rules if rule.writable]
        several = len(rules) > 1
        found = [_for_rules(_SEARCH, rules, named=several)] if rules else []
        if writable:
            found.append(_for_rules(_SAVE, writable, named=several, required=len(writable) > 1))
        return tuple(found)

    def problem(self, spec: ToolSpec, arguments_json: str) -> str | None:
        if spec.memory:
            return arguments_problem(spec.parameters_schema_json, arguments_json)
        return self._others.problem(spec, arguments_json)

    async def call(self, spec: ToolSpec, call: ToolCall) -> ToolResult:
        if not spec.memory:
            return await self._others.call(spec, call)
        own = OwnMemories(self._memories, call, spec.memory)
        arguments = json.loads(call.arguments_json)
        function = save_memory if spec.tool == _SAVE.tool else search_memory
        return await answered(spec, function(own, **arguments))


def _for_rules(
    spec: ToolSpec, rules: Sequence[MemoryRule], *, named: bool, required: bool = False
) -> ToolSpec:
    """The tool as an agent with these rules sees it: it names memories only where there are several."""
    schema = json.loads(spec.parameters_schema_json)
    choice = schema["properties"].pop("memory")
    described = spec.description
    about = "; ".join(f"{rule.alias}: {rule.description}" for rule in rules if rule.description)
    if named:
        text = f"{choice['description']}. {about}" if about else choice["description"]
        schema["properties"]["memory"] = {"enum": [rule.alias for rule in rules], "description": text}
        schema["required"] += ["memory"] if required else []
    elif about:
        described = f"{described} What it is for: {rules[0].description}"
    return replace(
        spec, description=described, parameters_schema_json=canonical_json(schema), memory=tuple(rules)
    )
