"""The tools of this server, by tool group."""

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from treadle_server.core.errors import invalid
from treadle_server.core.kinds import Effect
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.tools import Notes, ToolCall, ToolError, ToolResult
from treadle_server.tools.arguments import arguments_problem
from treadle_server.tools.builtin.ask_user import ASK_USER, question_problem
from treadle_server.tools.builtin.calculator import calculator
from treadle_server.tools.builtin.current_time import current_time
from treadle_server.tools.builtin.finish import finish
from treadle_server.tools.builtin.json_query import json_query
from treadle_server.tools.builtin.notes import OwnNotes, recall, remember
from treadle_server.tools.builtin.update_tasks import update_tasks
from treadle_server.tools.calling import answered
from treadle_server.tools.schema import tool_spec

BUILTIN_GROUP = "toolGroups/builtin"
_STORE_ATTEMPTS_MAX = 3


@dataclass(frozen=True, slots=True)
class Builtin:
    """A function as a tool. A plain one runs in a thread, a coroutine function on the event loop."""

    spec: ToolSpec
    function: Callable[..., Any] | None
    """None for one that nobody runs: a question."""
    given: Callable[[ToolCall], Any] | None = None
    """Makes the function's first argument, which the model does not give."""


class ToolGroups:
    """Implements `ports.tools.Toolbox` for `toolGroups/builtin`, the only group so far."""

    def __init__(self, notes: Notes, now_micros: Callable[[], int]) -> None:
        self._builtins = {builtin.spec.name: builtin for builtin in _builtins(notes, now_micros)}

    def builtins(self) -> tuple[ToolSpec, ...]:
        return tuple(builtin.spec for builtin in self._builtins.values())

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        faults = [
            (f"agent.tool_groups[{index}]", f"{group} does not exist")
            for index, group in enumerate(tool_groups)
            if group != BUILTIN_GROUP
        ]
        offered = self.builtins() if BUILTIN_GROUP in tool_groups else ()
        known = {name for spec in offered for name in (spec.name, spec.tool)}
        faults += [
            (f"agent.enabled_tools[{index}]", f"{name} is not a tool of the agent's tool groups")
            for index, name in enumerate(enabled_tools)
            if name not in known
        ]
        if faults:
            raise invalid(*faults)
        if not enabled_tools:
            return offered
        return tuple(spec for spec in offered if spec.name in enabled_tools or spec.tool in enabled_tools)

    def problem(self, spec: ToolSpec, arguments_json: str) -> str | None:
        problem = arguments_problem(spec.parameters_schema_json, arguments_json)
        return question_problem(arguments_json) if problem is None and spec.asks else problem

    async def call(self, spec: ToolSpec, call: ToolCall) -> ToolResult:
        builtin = self._builtins.get(spec.tool.removeprefix("builtin/"))
        if builtin is None or builtin.function is None:
            raise ToolError(f"this server has no tool {spec.tool} to run", retryable=False)
        return await answered(spec, _run(builtin.function, builtin.given, call))


async def _run(function: Callable[..., Any], gives: Callable[[ToolCall], Any] | None, call: ToolCall) -> str:
    arguments: dict[str, Any] = json.loads(call.arguments_json)
    given = () if gives is None else (gives(call),)
    if inspect.iscoroutinefunction(function):
        return str(await function(*given, **arguments))
    return str(await asyncio.to_thread(function, *given, **arguments))


def _builtins(notes: Notes, now_micros: Callable[[], int]) -> tuple[Builtin, ...]:
    def now(_: ToolCall) -> int:
        return now_micros()

    def own_notes(call: ToolCall) -> OwnNotes:
        return OwnNotes(notes, call)

    return (
        _builtin(calculator, Effect.READ_ONLY),
        _builtin(current_time, Effect.READ_ONLY, now),
        _builtin(json_query, Effect.READ_ONLY),
        _builtin(remember, Effect.IDEMPOTENT, own_notes, attempts_max=_STORE_ATTEMPTS_MAX),
        _builtin(recall, Effect.READ_ONLY, own_notes, attempts_max=_STORE_ATTEMPTS_MAX),
        _builtin(update_tasks, Effect.READ_ONLY, keeps_tasks=True),
        Builtin(ASK_USER, None),
        _builtin(finish, Effect.READ_ONLY, finishes=True),
    )


def _builtin(
    function: Callable[..., Any],
    effect: Effect,
    given: Callable[[ToolCall], Any] | None = None,
    *,
    attempts_max: int = 1,
    finishes: bool = False,
    keeps_tasks: bool = False,
) -> Builtin:
    spec = tool_spec(
        function,
        tool=f"builtin/{function.__name__}",
        effect=effect,
        attempts_max=attempts_max,
        finishes=finishes,
        keeps_tasks=keeps_tasks,
    )
    return Builtin(spec, function, given)
