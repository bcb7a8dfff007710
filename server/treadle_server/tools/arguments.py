"""Checks of the arguments that a model gave, in words that the model can act on."""

from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from treadle_server.core.text import clean

DEPTH_MAX = 64
_FAULTS_SHOWN = 3
_FAULT_CHARACTERS_MAX = 300


class SchemaError(ValueError):
    """A schema that cannot be used to check anything."""


@lru_cache(maxsize=1024)
def validator(schema_json: str) -> jsonschema_rs.Draft202012Validator:
    """Compiles a schema once. It fetches nothing, and its patterns run in linear time.

    Raises SchemaError.
    """
    try:
        return jsonschema_rs.Draft202012Validator(
            orjson.loads(schema_json),
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(),
            mask="this value",
        )
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise SchemaError(reason) from error


def arguments_problem(schema_json: str, arguments_json: str) -> str | None:
    """Why these arguments do not fit the schema, or None."""
    try:
        arguments = orjson.loads(arguments_json)
    except orjson.JSONDecodeError as error:
        return f"the arguments are not valid JSON: {clean(str(error))}"
    if not isinstance(arguments, dict):
        return "the arguments must be one JSON object"
    if _deeper_than(DEPTH_MAX, arguments):
        return f"the arguments are nested more than {DEPTH_MAX} levels deep"
    try:
        checks = validator(schema_json)
    except SchemaError as error:
        return f"this tool cannot be called, its schema is not valid: {error}"
    if checks.is_valid(arguments):
        return None
    return "the arguments do not fit the tool's schema: " + faults(checks, arguments)


def faults(checks: jsonschema_rs.Draft202012Validator, document: Any) -> str:
    """The first few faults of a document, each with its place."""
    texts: list[str] = []
    for fault in checks.iter_errors(document):
        if len(texts) == _FAULTS_SHOWN:
            texts.append("and more")
            break
        where = ".".join(map(str, fault.instance_path)) or "the whole"
        texts.append(f"{where}: {fault.message}"[:_FAULT_CHARACTERS_MAX])
    return "; ".join(texts)


def _deeper_than(limit: int, value: Any) -> bool:
    """Walks level by level, so that it needs no stack."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
