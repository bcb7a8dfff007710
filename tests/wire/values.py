"""Any value of a domain class, made from its fields."""

import dataclasses
import types
import typing
from enum import IntEnum
from functools import cache
from typing import Any

from hypothesis import strategies as st

# Fields that are 32 bits wide on the wire; all other numbers have 64.
_INT32 = {
    "approvers_needed",
    "attempt",
    "attempts_max",
    "code",
    "depth",
    "history_messages_max",
    "max_children",
    "max_concurrent_threads",
    "max_depth",
    "max_iterations",
    "max_output_tokens",
    "max_starts",
    "max_tool_calls",
    "number",
    "output_bytes_max",
    "thinking_tokens",
}
_MICROS_MAX = 253_402_300_799 * 1_000_000
"""The end of the year 9999, beyond which there is no Timestamp."""


@cache
def values(cls: type[Any], *, full: bool = False) -> st.SearchStrategy[Any]:
    """Values of a dataclass. With `full` no field is left at what an absent one reads as."""
    hints = typing.get_type_hints(cls)
    given = {
        field.name: _field(field.name, hints[field.name], full=full)
        for field in dataclasses.fields(cls)
        if field.init
    }
    return st.builds(cls, **given)


def _field(name: str, hint: Any, *, full: bool) -> st.SearchStrategy[Any]:
    if isinstance(hint, types.UnionType):
        (inner,) = (part for part in typing.get_args(hint) if part is not type(None))
        some = _field(name, inner, full=full)
        return some if full else st.none() | some
    if typing.get_origin(hint) is tuple:
        item = _field(name, typing.get_args(hint)[0], full=full)
        return st.lists(item, min_size=int(full), max_size=3).map(tuple)
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return values(hint, full=full)
    return _scalar(name, hint, full=full)


def _scalar(name: str, hint: type[Any], *, full: bool) -> st.SearchStrategy[Any]:
    if issubclass(hint, IntEnum):
        return st.sampled_from([member for member in hint if member or not full])
    if hint is bool:
        return st.just(True) if full else st.booleans()
    if hint is str:
        return st.text(min_size=int(full), max_size=20)
    if hint is float:
        return st.floats(allow_nan=False, min_value=0.001 if full else None)
    assert hint is int, (name, hint)
    if name.endswith("_micros") and name != "cost_micros":
        return st.integers(int(full), _MICROS_MAX)
    bits = 31 if name in _INT32 else 63
    return st.integers(1 if full else -(2**bits), 2**bits - 1)
