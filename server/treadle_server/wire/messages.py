"""Frozen dataclasses to messages and back, by field name, with a plan made once per class.

A field `x_micros` of a class is a Timestamp or Duration `x` of the message where the message has that; a
`Fault` is a `google.rpc.Status`; enums go by number; tuples are repeated fields; `None` is an absent message
or optional scalar; default values are not set, as in proto3. A field marked `apart` is not of the message.
"""

import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import IntEnum
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

T = TypeVar("T")

_Put = Callable[[Message, Any], None]
_Get = Callable[[Message], Any]

_RENAMED = {"from_state": "from", "to_state": "to"}
_TIMES = {"google.protobuf.Timestamp", "google.protobuf.Duration"}


class UnknownNumber(ValueError):  # noqa: N818 - it is not a fault but a sign of a newer release
    """A message holds an enum value that this release does not know."""


class Field:
    """How one field of a class goes to and from its message field."""

    __slots__ = ("default", "get", "name", "put")

    def __init__(self, name: str, default: Any, put: _Put, get: _Get) -> None:
        self.name = name
        self.default = default
        self.put = put
        self.get = get


def to_message(value: Any, message: Message, plan: tuple[Field, ...] | None = None) -> None:
    """Sets the fields of `message` from a dataclass value."""
    for field in plan or plan_of(type(value), message.DESCRIPTOR):
        item = getattr(value, field.name)
        if item is not None and item != field.default:
            field.put(message, item)


def from_message(cls: type[T], message: Message) -> T:
    """A value of `cls` from a message. Raises UnknownNumber for an enum value of a newer release."""
    plan = plan_of(cls, message.DESCRIPTOR)
    return cls(**{field.name: field.get(message) for field in plan})


def plan_of(cls: type[Any], descriptor: Any, private: bool | None = None) -> tuple[Field, ...]:
    """The fields of a class that its message has. `private` selects by the mark in the field's metadata."""
    key = (cls, descriptor.full_name, private)
    plan = _PLANS.get(key)
    if plan is None:
        plan = _PLANS[key] = _make_plan(cls, descriptor, private)
    return plan


_PLANS: dict[tuple[type[Any], str, bool | None], tuple["Field", ...]] = {}


def _make_plan(cls: type[Any], descriptor: Any, private: bool | None) -> tuple[Field, ...]:
    hints = typing.get_type_hints(cls)
    plan = []
    for field in fields(cls):
        marked = bool(field.metadata.get("private"))
        if not field.init or field.metadata.get("apart") or (private is not None and marked is not private):
            continue
        target = _target(field.name, descriptor)
        if target is None:
            raise TypeError(f"{cls.__name__}.{field.name} has no field in {descriptor.full_name}")
        put, get = _accessors(hints[field.name], target)
        plan.append(Field(field.name, _empty(field.default, hints[field.name]), put, get))
    return tuple(plan)


def _empty(default: Any, hint: Any) -> Any:
    """The value that need not be set, because an absent field reads as it."""
    hint, optional = _unwrap(hint)
    if optional or is_dataclass(hint):
        return MISSING
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return hint(0)
    if typing.get_origin(hint) in (tuple, dict):
        return ()
    return hint() if hint in (int, str, bool, bytes, float) else default


def _target(name: str, descriptor: Any) -> FieldDescriptor | None:
    by_name: dict[str, FieldDescriptor] = descriptor.fields_by_name
    name = _RENAMED.get(name, name)
    return by_name.get(name) or by_name.get(name.removesuffix("_micros"))


def _unwrap(hint: Any) -> tuple[Any, bool]:
    """A type without `| None`, and whether it had that."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        assert len(inner) == 1, hint
        return inner[0], True
    return hint, False


def _accessors(hint: Any, target: FieldDescriptor) -> tuple[_Put, _Get]:
    hint, optional = _unwrap(hint)
    name = target.name
    if typing.get_origin(hint) is tuple:
        return _repeated(typing.get_args(hint)[0], target)
    if typing.get_origin(hint) is dict:
        return _put_map(name), lambda message: dict(getattr(message, name))
    if target.message_type is None:
        return _scalar(hint, name, target.has_presence and optional)
    if target.message_type.full_name in _TIMES:
        return _time(name, target.message_type.full_name)
    return _nested(hint, name, optional)


def _scalar(hint: Any, name: str, optional: bool) -> tuple[_Put, _Get]:
    def put(message: Message, value: Any) -> None:
        setattr(message, name, value)

    if issubclass(hint, IntEnum):
        members = {int(member): member for member in hint}
        return put, lambda message: _member(members, getattr(message, name))
    if optional:
        return put, lambda message: getattr(message, name) if message.HasField(name) else None
    return put, lambda message: getattr(message, name)


def _member(members: dict[int, IntEnum], number: int) -> IntEnum:
    try:
        return members[number]
    except KeyError:
        raise UnknownNumber(number) from None


def _time(name: str, full_name: str) -> tuple[_Put, _Get]:
    def put(message: Message, micros: int) -> None:
        part = getattr(message, name)
        sign = -1 if micros < 0 and full_name.endswith("Duration") else 1
        seconds, rest = divmod(abs(micros), 1_000_000) if sign < 0 else divmod(micros, 1_000_000)
        part.seconds, part.nanos = sign * seconds, sign * rest * 1000
        part.SetInParent()

    def get(message: Message) -> int:
        part = getattr(message, name)
        return int(part.seconds) * 1_000_000 + int(part.nanos) // 1000

    return put, get


def _nested(hint: Any, name: str, optional: bool) -> tuple[_Put, _Get]:
    def put(message: Message, value: Any) -> None:
        part = getattr(message, name)
        part.SetInParent()
        to_message(value, part)

    def get(message: Message) -> Any:
        if optional and not message.HasField(name):
            return None
        return from_message(hint, getattr(message, name))

    return put, get


def _repeated(hint: Any, target: FieldDescriptor) -> tuple[_Put, _Get]:
    name = target.name
    if is_dataclass(hint):
        cls = typing.cast(type[Any], hint)

        def put_messages(message: Message, values: tuple[Any, ...]) -> None:
            part = getattr(message, name)
            for value in values:
                to_message(value, part.add())

        return put_messages, lambda message: tuple(from_message(cls, item) for item in getattr(message, name))

    def put(message: Message, values: tuple[Any, ...]) -> None:
        getattr(message, name).extend(values)

    return put, lambda message: tuple(getattr(message, name))


def _put_map(name: str) -> _Put:
    def put(message: Message, values: dict[str, str]) -> None:
        getattr(message, name).update(values)

    return put
