"""Messages from the plain Python values that callers have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from treadle.v1.content_pb2 import Input


def json_of(value: Any) -> str:
    """JSON text of a value; ValueError for NaN, infinities and what JSON does not have."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def input_of(text: str, data: Any, given: Input | None) -> Input:
    """The input that a caller described by text, by a JSON value, or as it is to be."""
    if not isinstance(text, str):
        raise TypeError("the text of an input is a str; give JSON as data=...")
    made = Input(text=text)
    if given is not None:
        made.MergeFrom(given)
    if data is not None:
        made.data_json = json_of(data)
    return made


def struct_of(values: Mapping[str, Any]) -> Struct:
    """A JSON object as protobuf's own; ValueError when its numbers could not hold a value exactly."""
    plain, struct = json.loads(json_of(values)), Struct()
    struct.update(plain)
    if MessageToDict(struct) != plain:
        raise ValueError("client_metadata cannot hold integers beyond 2^53: send them as strings")
    return struct
