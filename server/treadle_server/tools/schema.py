"""Tool definitions derived from the signatures of Python functions."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from treadle_server.core.json_text import canonical_json
from treadle_server.core.kinds import Effect
from treadle_server.core.spec import SECOND_MICROS, ToolSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TYPE_NAMES: dict[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}


def parameters_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """The JSON Schema of the arguments that a model gives.

    A parameter is `Annotated[T, "description"]`, with a dict of further keywords where T does not say
    enough. Positional-only parameters come from the runtime and are left out.
    """
    hints = get_type_hints(function, include_extras=True)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            continue
        properties[name] = _property(hints[name])
        if parameter.default is parameter.empty:
            required.append(name)
        else:
            properties[name]["default"] = parameter.default
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def tool_spec(
    function: Callable[..., Any],
    *,
    tool: str,
    effect: Effect,
    timeout_micros: int = 10 * SECOND_MICROS,
    attempts_max: int = 1,
    finishes: bool = False,
    keeps_tasks: bool = False,
) -> ToolSpec:
    """A tool that is called as the function is, and described by its docstring."""
    description = " ".join((inspect.getdoc(function) or "").split())
    assert description, f"{function} has no docstring for the model to choose by"
    return ToolSpec(
        name=function.__name__,
        tool=tool,
        description=description,
        parameters_schema_json=canonical_json(parameters_schema(function)),
        effect=effect,
        timeout_micros=timeout_micros,
        attempts_max=attempts_max,
        finishes=finishes,
        keeps_tasks=keeps_tasks,
    )


def _property(hint: Any) -> dict[str, Any]:
    if get_origin(hint) is not Annotated:
        return _type_schema(hint)
    inner, *notes = get_args(hint)
    schema = _type_schema(inner)
    for note in notes:
        schema.update({"description": note} if isinstance(note, str) else note)
    return schema


def _type_schema(hint: Any) -> dict[str, Any]:
    if isinstance(hint, type) and hint in _TYPE_NAMES:
        return {"type": _TYPE_NAMES[hint]}
    if get_origin(hint) is list:
        return {"type": "array", "items": _property(get_args(hint)[0])}
    if get_origin(hint) is dict:
        return {"type": "object"}
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    raise TypeError(f"a tool's parameter cannot be of type {hint}")
