"""Tools that the caller of a thread runs itself."""

import json
from collections.abc import Sequence
from dataclasses import replace

from treadle_server.core.errors import invalid
from treadle_server.core.spec import Spec, ToolSpec
from treadle_server.ports.schemas import Schemas


def with_client_tools(spec: Spec, tools: Sequence[ToolSpec], schemas: Schemas) -> Spec:
    """The spec with a caller's tools after the agent's own.

    Raises Refused(FIELD_INVALID) with every name that is taken and every schema that is none.
    """
    if not tools:
        return spec
    faults: list[tuple[str, str]] = []
    taken = dict.fromkeys(spec.tool_by_name, "a tool of the agent")
    for index, tool in enumerate(tools):
        field = f"thread.client_tools[{index}]"
        if tool.name in taken:
            faults.append((f"{field}.name", f"is the name of {taken[tool.name]}"))
        taken.setdefault(tool.name, "another client tool")
        faults += _schema_faults(field, tool, schemas)
    if faults:
        raise invalid(*faults)
    return replace(spec, tools=(*spec.tools, *tools))


def _schema_faults(field: str, tool: ToolSpec, schemas: Schemas) -> list[tuple[str, str]]:
    faults = []
    for name in ("parameters_schema_json", "result_schema_json"):
        text = getattr(tool, name)
        problem = schemas.schema_problem(text) if text else None
        if problem is not None:
            faults.append((f"{field}.{name}", problem))
    if not faults and not _is_of_objects(tool.parameters_schema_json):
        faults.append((f"{field}.parameters_schema_json", 'must have "type": "object"'))
    return faults


def _is_of_objects(schema_json: str) -> bool:
    """Arguments are named, and providers take no other schema."""
    schema = json.loads(schema_json)
    return isinstance(schema, dict) and schema.get("type") == "object"
