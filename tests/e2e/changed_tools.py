"""`python -m tests.e2e.changed_tools`: the server with the builtin tools under other names, or altered.

Every variant is a tool group of its own, so that one server has them all.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop

from treadle_server import app, logs
from treadle_server import config as configuration
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.tools import Notes, Toolbox, ToolCall, ToolError, ToolResult
from treadle_server.tools.groups import BUILTIN_GROUP, ToolGroups

PREFIX = "toolGroups/"
OUT_OF_ORDER = "this tool is out of order until Monday"
OTHER_NOTE = "heliotrope"
OTHER_TIME = "04:05"

Alteration = Callable[[str], ToolResult]


@dataclass(frozen=True, slots=True)
class Wording:
    """How a tool is put to the model: what is empty stays as it is."""

    name: str = ""
    description: str = ""
    arguments: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Other name and description of an argument, by its own name."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A group of the builtin tools in other words, or with other answers."""

    wordings: Mapping[str, Wording] = field(default_factory=dict)
    alterations: Mapping[str, Alteration] = field(default_factory=dict)

    def name_of(self, builtin: str) -> str:
        return self.wordings.get(builtin, Wording()).name or builtin


def _one_more(answer: str) -> ToolResult:
    return ToolResult(f"{float(answer) + 1:g}")


def _another_time(answer: str) -> ToolResult:
    told = json.loads(answer)
    told |= {"iso": f"2001-02-03T{OTHER_TIME}:06{told['utc_offset']}", "weekday": "Saturday"}
    return ToolResult(json.dumps(told))


def _tenfold(answer: str) -> ToolResult:
    return ToolResult(json.dumps(_times_ten(json.loads(answer))))


def _times_ten(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _times_ten(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_times_ten(part) for part in value]
    return value if isinstance(value, bool | str) or value is None else value * 10


def _out_of_order(_: str) -> ToolResult:
    return ToolResult(OUT_OF_ORDER, ok=False)


def _no_answer(_: str) -> ToolResult:
    raise ToolError("the connection was lost", retryable=False)


def _named(**names: str) -> Variant:
    return Variant({builtin: Wording(name) for builtin, name in names.items()})


_TOOLS = ("calculator", "current_time", "json_query", "remember", "recall")
VARIANTS = {
    "neutral": _named(
        calculator="tool_a",
        current_time="tool_b",
        json_query="tool_c",
        remember="tool_d",
        recall="tool_e",
        finish="tool_f",
    ),
    "fanciful": _named(
        calculator="abacus",
        current_time="sundial",
        json_query="magnifier",
        remember="shelve",
        recall="unshelve",
        finish="bow",
    ),
    "misleading": _named(
        calculator="current_time",
        current_time="calculator",
        json_query="remember",
        remember="json_query",
    ),
    "reworded": Variant(
        {
            "calculator": Wording(
                "tool_5",
                "Works out a formula of numbers, such as (3 + 4) * 12, and gives its value.",
                {"expression": ("formula", "The formula to evaluate, with + - * / ** and parentheses.")},
            ),
            "current_time": Wording(
                "tool_4",
                "Tells today's date and what the clock shows at this moment in a part of the world.",
                {"time_zone": ("zone", "Zone in the IANA database, for example Asia/Kolkata.")},
            ),
            "json_query": Wording(
                "tool_3",
                "Extracts values from a JSON text by means of a JMESPath query.",
                {
                    "document": ("json", "The JSON text."),
                    "query": ("jmespath", "What to extract, in JMESPath."),
                },
            ),
            "remember": Wording(
                "tool_2",
                "Stores a text under a key, to be read again later.",
                {"key": ("label", "Key to store it under."), "text": ("content", "The text to store.")},
            ),
            "recall": Wording(
                "tool_1",
                "Reads a stored text by its key. Without a key it lists the keys of everything stored.",
                {"key": ("label", "Key of the stored text.")},
            ),
            "finish": Wording("tool_0", "Hands the final answer to the user and ends the task."),
        }
    ),
    "one-more": Variant(alterations={"calculator": _one_more}),
    "another-time": Variant(alterations={"current_time": _another_time}),
    "another-note": Variant(alterations={"recall": lambda _: ToolResult(OTHER_NOTE)}),
    "tenfold": Variant(alterations={"json_query": _tenfold}),
    "refusing": Variant(alterations=dict.fromkeys(_TOOLS, _out_of_order)),
    "broken": Variant(alterations=dict.fromkeys(_TOOLS, _no_answer)),
}


def _worded(spec: ToolSpec, group: str) -> ToolSpec:
    wording = VARIANTS[group].wordings.get(spec.name, Wording())
    schema = json.loads(spec.parameters_schema_json)
    for own, (other, description) in wording.arguments.items():
        schema["properties"][other] = {**schema["properties"].pop(own), "description": description}
        if own in schema.get("required", ()):
            schema["required"] = [other if name == own else name for name in schema["required"]]
    return replace(
        spec,
        name=wording.name or spec.name,
        tool=f"{group}/{spec.name}",
        description=wording.description or spec.description,
        parameters_schema_json=json.dumps(schema),
    )


class ChangedTools:
    """Implements `ports.tools.Toolbox`: the tools of the server, and every variant of them."""

    def __init__(self, others: ToolGroups) -> None:
        self._others = others
        self._own = {spec.name: spec for spec in others.builtins()}

    def builtins(self) -> tuple[ToolSpec, ...]:
        return self._others.builtins()

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        group = tool_groups[0].removeprefix(PREFIX) if tool_groups else ""
        if group not in VARIANTS:
            return self._others.resolve(tool_groups, enabled_tools)
        offered = self._others.resolve([BUILTIN_GROUP], enabled_tools)
        return tuple(_worded(spec, group) for spec in offered)

    def problem(self, spec: ToolSpec, arguments_json: str) -> str | None:
        return self._others.problem(spec, arguments_json)

    async def call(self, spec: ToolSpec, call: ToolCall) -> ToolResult:
        group, _, builtin = spec.tool.partition("/")
        if group not in VARIANTS:
            return await self._others.call(spec, call)
        wording = VARIANTS[group].wordings.get(builtin, Wording())
        own = {other: name for name, (other, _) in wording.arguments.items()}
        arguments = {own.get(name, name): value for name, value in json.loads(call.arguments_json).items()}
        result = await self._others.call(
            self._own[builtin], replace(call, arguments_json=json.dumps(arguments))
        )
        alter = VARIANTS[group].alterations.get(builtin)
        return alter(result.observation) if alter is not None and result.ok else result


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("db", "listen"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    config = configuration.load(db=Path(given.db), listen=given.listen)
    logs.configure(config.log_format, config.log_level)

    def toolbox(notes: Notes, now_micros: Callable[[], int]) -> Toolbox:
        return ChangedTools(ToolGroups(notes, now_micros))

    return uvloop.run(app.serve(config, toolbox))


if __name__ == "__main__":
    raise SystemExit(main())
