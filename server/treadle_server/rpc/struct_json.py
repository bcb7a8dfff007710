"""`google.protobuf.Struct` as JSON text."""

import json
import math
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

from treadle_server.core.json_text import JsonTextError

DEPTH_MAX = 32
INTEGER_MAX = 2**53
"""Beyond it not every integer has a double of its own, so the one that was meant is lost already."""


def struct_json(struct: Struct) -> str:
    """The canonical JSON text of a Struct. Raises JsonTextError for what a Struct cannot have kept."""
    value = _object(struct, 1)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _object(struct: Struct, depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        raise JsonTextError(f"must be at most {DEPTH_MAX} levels deep")
    return {key: _value(value, depth) for key, value in struct.fields.items()}


def _value(value: Value, depth: int) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            return _number(value.number_value)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _object(value.struct_value, depth + 1)
        case "list_value":
            if depth >= DEPTH_MAX:
                raise JsonTextError(f"must be at most {DEPTH_MAX} levels deep")
            return [_value(item, depth + 1) for item in value.list_value.values]
    return None


def _number(number: float) -> int | float:
    if not math.isfinite(number):
        raise JsonTextError("must have only finite numbers")
    if abs(number) > INTEGER_MAX and number.is_integer():
        raise JsonTextError("must not have integers beyond 2^53")
    return int(number) if number.is_integer() else number
