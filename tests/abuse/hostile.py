"""Requests for every method from the descriptors: plausible, hostile, damaged, and bytes that are none."""

import json
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from google.api import field_behavior_pb2, resource_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from treadle.v1 import (
    admin_service_pb2,
    agent_service_pb2,
    event_pb2,
    memory_service_pb2,
    thread_service_pb2,
    tool_service_pb2,
)

_MODULES = (
    admin_service_pb2,
    agent_service_pb2,
    memory_service_pb2,
    thread_service_pb2,
    tool_service_pb2,
)
METHODS: tuple[MethodDescriptor, ...] = tuple(
    method
    for module in _MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
DEPTH_MAX = 5
_REMEMBERED = 200
SURROGATE = "\ue000"
"""Stands for half a surrogate pair: strings of Python's protobuf cannot hold one, bytes can."""
_EVENT_TYPES = [field.name for field in event_pb2.ThreadEvent.DESCRIPTOR.oneofs_by_name["payload"].fields]

SCRIPT = {"turns": [{"text": "done"}]}
_CALL = {"name": "calculator", "arguments": {"expression": "6*7"}}
_SCRIPTS = [
    SCRIPT,
    {"turns": [{"thought": "a sum", "calls": [_CALL, _CALL]}, {"text": "{observation}"}]},
    {"turns": [{"calls": [{"name": "calculator", "raw_arguments": "{not json"}]}, {"text": "x"}]},
    {"turns": [{"calls": [{"name": "nothing_of_the_kind", "arguments": {}}]}, {"text": "y"}]},
    {"turns": [{"error": {"code": "INVALID_ARGUMENT", "message": "no", "retryable": False}}]},
    {"turns": [{"text": "late", "delay_ms": 20, "pieces": 3}]},
]
_TEXTS = (
    *("", "\x00", " ", "\n", "a", "-", "..", "../../etc/passwd", "%s%n%x", "{observation}", "' OR 1=1 --"),
    *("\u202e", "\ufeff", "\U0001f6f8" * 40, "e\u0301" * 300, SURROGATE, "x" * 64, "x" * 1_025, "x" * 5_000),
    *("NaN", "-Infinity", "1e999", "9" * 5_000, "-0", "null", "[" * 3_000, '{"a":' * 100, '"\\ud800"'),
    *('{"a":1,"a":2}', '{"":{"":[]}}', "[" * 64 + "]" * 64, "scripted:", "scripted:{", "google:x", "demo:"),
    *("agents/", "threads/a/b", "agents/-", "tenants/default/apiKeys/", "agents/nothing", "threads/nothing"),
    *("Bearer x", "\r\nx: y", "\u2028", "A", "a" * 63, "*", "a.b.c", "agent.model", "1" * 400),
)
_FILTERS = (
    *(
        "state=RUNNING",
        "state:COMPLETED OR state=FAILED",
        'agent="agents/plain"',
        "create_time>2020-01-01T00:00:00Z",
    ),
    *(
        "NOT state=PENDING",
        "(" * 60 + "a" + ")" * 60,
        "(" * 2_000,
        "labels.a=b",
        "a AND",
        "tags:x",
        "NOT " * 900,
    ),
    *("state=", "x" * 4_096, "a=b " * 500, '"', "model=scripted", "update_time<x", "-state=RUNNING"),
)
_PATHS = (
    *("tags", "labels", "client_metadata", "*", "agent", "model", "display_name", "limits", "name", "etag"),
    *("limits.max_iterations", "labels.a", "expire_time", "nothing", "tags.x", "", "..", "client_metadata.a"),
)
_INTEGERS = (0, 1, 2, 7, 50, -1, 1_000, 1_001, 2**31 - 1, -(2**31))
_LONG_INTEGERS = (*_INTEGERS, 2**53 + 1, 2**63 - 1, -(2**63))
_DOUBLES = (0.0, 0.5, 1.0, -0.0, -1.0, 2.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
_DESTROYING = ("DeleteAgent", "DeleteApiKey", "UpdateAgent", "UpdateApiKey")


_COSTLY = frozenset({"CreateBackup"})
"""Called more rarely: each may write a file as large as the store."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request on its way: the method and the bytes."""

    method: MethodDescriptor
    data: bytes

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


class Known:
    """Names, etags and tokens that exist or did: fixed ones that stay, and those that answers told of."""

    def __init__(self, names: Mapping[str, list[str]]) -> None:
        self._fixed = dict(names)
        self._seen: dict[str, deque[str]] = {}

    def one(self, kind: str, chance: random.Random, *, fixed: bool = True) -> str | None:
        seen = self._seen.get(kind)
        stay = self._fixed.get(kind) if fixed else None
        if seen and (not stay or chance.random() < 0.5):
            return seen[chance.randrange(len(seen))]
        return chance.choice(stay) if stay else None

    def learn(self, message: Message) -> None:
        """Takes what can be asked for from an answer."""
        kind = message.DESCRIPTOR.GetOptions().Extensions[resource_pb2.resource].type
        for field, value in message.ListFields():
            if field.name == "name" and kind:
                self._add(kind, value)
            elif field.name in ("etag", "next_page_token", "cursor", "session", "secret"):
                self._add(field.name, value)
            elif field.type == FieldDescriptor.TYPE_MESSAGE and _is_ours(field.message_type):
                for item in list(value)[:3] if field.is_repeated else [value]:
                    self.learn(item)

    def _add(self, kind: str, value: str) -> None:
        self._seen.setdefault(kind, deque(maxlen=_REMEMBERED)).append(value)


def _is_ours(descriptor: Any) -> bool:
    return descriptor.full_name.startswith("treadle.v1.") and not descriptor.GetOptions().map_entry


class Requests:
    """An endless supply of requests; the same seed and the same answers give the same ones."""

    def __init__(self, seed: int, known: Known) -> None:
        self._chance = random.Random(seed)
        self._known = known
        self._made: dict[str, deque[bytes]] = {method.full_name: deque(maxlen=50) for method in METHODS}
        self._hostility = 0.0

    def next(self) -> Ask:
        chance = self._chance
        method = chance.choice(METHODS)
        if method.name in _COSTLY and chance.random() < 0.98:
            method = chance.choice(METHODS)
        made = self._made[method.full_name]
        lot = chance.random()
        if lot < 0.1:
            return Ask(method, self._raw())
        if lot < 0.35 and made:
            return Ask(method, self._damaged(chance.choice(made)))
        message = self._message(method)
        data = message.SerializeToString().replace(SURROGATE.encode(), b"\xed\xa0\x80")
        made.append(data)
        return Ask(method, data)

    def _message(self, method: MethodDescriptor) -> Message:
        self._hostility = self._chance.choice((0.0, 0.0, 0.05, 0.4))
        message: Message = GetMessageClass(method.input_type)()
        fixed = method.name not in _DESTROYING
        self._fill(message, 0, lambda kind: self._known.one(kind, self._chance, fixed=fixed))
        return message

    def _raw(self) -> bytes:
        chance = self._chance
        kind = chance.randrange(6)
        if kind == 0:
            return chance.randbytes(chance.choice((0, 1, 2, 5, 30, 300, 9_000)))
        if kind == 1:
            return b"\x0b" * chance.choice((1, 99, 101, 5_000))  # groups within groups
        if kind == 2:
            return bytes([chance.randrange(1, 256)]) + b"\xff" * chance.choice((1, 9, 10, 11))
        if kind == 3:
            return bytes([8 * chance.randrange(1, 20) + 2]) + b"\xff\xff\xff\xff\x07" + b"x"
        if kind == 4:
            return b"".join(bytes([8 * chance.randrange(16) + chance.randrange(8), 1, 0]) for _ in range(9))
        inner = b""
        for _ in range(chance.choice((3, 60, 120))):
            inner = b"\x0a" + _varint(len(inner)) + inner
        return inner

    def _damaged(self, data: bytes) -> bytes:
        chance, changed = self._chance, bytearray(data)
        kind = chance.randrange(4)
        if kind == 0 and changed:
            for _ in range(chance.randint(1, 4)):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[chance.randint(0, len(changed)) :]
        elif kind == 2:
            place = chance.randint(0, len(changed))
            changed[place:place] = chance.randbytes(chance.randint(1, 8))
        else:
            changed += data
        return bytes(changed)

    def _fill(self, message: Message, depth: int, find: Callable[[str], str | None]) -> None:
        chance = self._chance
        for field, required, output_only in _fields(cast(Descriptor, message.DESCRIPTOR)):
            likely = 0.97 if required else 0.02 if output_only else 0.12 if depth < 2 else 0.06
            if field.name in _WORTH_SETTING:
                likely = max(likely, 0.6)
            if chance.random() >= likely or depth > DEPTH_MAX:
                continue
            if not field.is_repeated:
                self._set(message, field, depth, find)
                continue
            count = 70 if chance.random() < 0.02 else chance.choice((1, 1, 2, 3))
            for _ in range(count):
                self._add(message, field, depth, find)

    def _set(self, message: Any, field: FieldDescriptor, depth: int, find: Any) -> None:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            part = getattr(message, field.name)
            part.SetInParent()
            self._part(part, field, depth, find)
        else:
            setattr(message, field.name, self._value(message.DESCRIPTOR, field, find))

    def _add(self, message: Any, field: Any, depth: int, find: Any) -> None:
        many = getattr(message, field.name)
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            many.append(self._value(message.DESCRIPTOR, field, find))
        elif not field.message_type.GetOptions().map_entry:
            self._part(many.add(), field, depth, find)
        else:
            value = field.message_type.fields_by_name["value"]
            key = self._text() if self._chance.random() < 0.1 else self._chance.choice("abcdef")
            if value.type == FieldDescriptor.TYPE_MESSAGE:
                self._fill(many[key], depth + 1, find)
            else:
                many[key] = self._value(field.message_type, value, find)

    def _part(self, part: Any, field: Any, depth: int, find: Any) -> None:
        kind, chance = field.message_type.full_name, self._chance
        if kind == "google.protobuf.FieldMask":
            part.paths.extend(chance.choices(_PATHS, k=chance.choice((1, 1, 2, 3))))
        elif kind == "google.protobuf.Struct":
            _fill_struct(part, chance)
        elif kind in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            plausible = chance.random() > self._hostility
            part.seconds = 2_000_000_000 if plausible else chance.choice(_LONG_INTEGERS)
            part.nanos = 0 if plausible else chance.choice(_INTEGERS)
        elif kind == "google.protobuf.Any":
            part.type_url = chance.choice(("type.googleapis.com/google.rpc.ErrorInfo", "x", ""))
            part.value = self._raw()
        else:
            self._fill(part, depth + 1, find)

    def _value(self, owner: Descriptor, field: FieldDescriptor, find: Any) -> Any:
        chance = self._chance
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._string(owner, field, find)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return chance.random() < 0.5
        if field.type == FieldDescriptor.TYPE_BYTES:
            return chance.randbytes(chance.choice((0, 1, 100)))
        if field.enum_type is not None:
            if chance.random() < self._hostility:
                return chance.choice((-1, 99, 2**31 - 1))
            return chance.choice(field.enum_type.values).number
        if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return chance.choice(_DOUBLES)
        if chance.random() > self._hostility:
            return chance.choice((0, 1, 2, 10))
        return chance.choice(_INTEGERS if field.cpp_type in _SHORT else _LONG_INTEGERS)

    def _string(self, owner: Descriptor, field: FieldDescriptor, find: Any) -> str:
        chance = self._chance
        if chance.random() < self._hostility:
            return self._text()
        kind = _kind_of(owner, field)
        if kind:
            return find(kind) or "threads/nothing"
        make = _PLAUSIBLE.get(field.name)
        if make is not None:
            return make(chance)
        found = find(_ALSO_CALLED.get(field.name, field.name)) if field.name in _TOLD else None
        return found or chance.choice(("a", "plain", "text", "b c"))

    def _text(self) -> str:
        chance = self._chance
        text = chance.choice(_TEXTS)
        if chance.random() < 0.02:
            text *= chance.choice((40, 400))
        return text[:300_000]


_SHORT = frozenset({FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32})
_TOLD = frozenset({"etag", "page_token", "after_cursor", "session"})
_ALSO_CALLED = {"page_token": "next_page_token", "after_cursor": "cursor"}
_WORTH_SETTING = frozenset({"input", "text", "request_id", "page_size", "update_mask", "tool_groups"})
_SCHEMAS = (
    '{"type":"object"}',
    '{"type":"string","pattern":"(a+)+$"}',
    '{"$ref":"#"}',
    '{"type":"object","properties":{"a":{"type":"integer","minimum":1e400}}}',
    '{"type":"object","required":["a"]}',
    '{"allOf":[{"$ref":"#/allOf/0"}]}',
    '{"$ref":"file:///etc/passwd"}',
    "true",
)
_PLAUSIBLE: Mapping[str, Callable[[random.Random], str]] = {
    "filter": lambda chance: chance.choice(_FILTERS),
    "order_by": lambda chance: chance.choice(("create_time desc", "update_time", "name", "state, name")),
    "event_types": lambda chance: chance.choice(_EVENT_TYPES),
    "request_id": lambda chance: f"r{chance.randrange(100_000)}",
    "model": lambda chance: "scripted:" + json.dumps(chance.choice(_SCRIPTS)),
    "tool_groups": lambda chance: chance.choice(("toolGroups/builtin", "toolGroups/builtin", "toolGroups/x")),
    "enabled_tools": lambda chance: chance.choice(("builtin/calculator", "builtin/json_query")),
    "data_json": lambda chance: json.dumps(chance.choice(_SCRIPTS)),
    "result_json": lambda chance: json.dumps(chance.choice(_SCRIPTS)),
    "input_schema_json": lambda chance: chance.choice(_SCHEMAS),
    "output_schema_json": lambda chance: chance.choice(_SCHEMAS),
    "agent_id": lambda chance: f"a{chance.randrange(2_000)}",
    "thread_id": lambda chance: f"t{chance.randrange(100_000)}",
    "api_key_id": lambda chance: f"k{chance.randrange(2_000)}",
    "session_key": lambda chance: f"s{chance.randrange(50)}",
}


def _kind_of(owner: Descriptor, field: FieldDescriptor) -> str:
    """The type of resource that a string names; empty when none."""
    options = field.GetOptions()
    if field_behavior_pb2.IDENTIFIER in options.Extensions[field_behavior_pb2.field_behavior]:
        return str(owner.GetOptions().Extensions[resource_pb2.resource].type)
    reference = options.Extensions[resource_pb2.resource_reference]
    if reference.child_type:
        return {
            "treadle.dev/AgentVersion": "treadle.dev/Agent",
            "treadle.dev/Memory": "treadle.dev/MemoryNamespace",
        }.get(reference.child_type, "treadle.dev/Tenant")
    return str(reference.type) if reference.type not in ("", "*") else ""


_FIELDS: dict[Descriptor, tuple[tuple[FieldDescriptor, bool, bool], ...]] = {}


def _fields(descriptor: Descriptor) -> tuple[tuple[FieldDescriptor, bool, bool], ...]:
    """Each field, whether it must be given, and whether only the server sets it."""
    found = _FIELDS.get(descriptor)
    if found is None:
        behaviors = [f.GetOptions().Extensions[field_behavior_pb2.field_behavior] for f in descriptor.fields]
        found = _FIELDS[descriptor] = tuple(
            (field, field_behavior_pb2.REQUIRED in is_, field_behavior_pb2.OUTPUT_ONLY in is_)
            for field, is_ in zip(descriptor.fields, behaviors, strict=True)
        )
    return found


def _fill_struct(struct: Any, chance: random.Random) -> None:
    kind = chance.randrange(5)
    struct["plain"] = "value"
    if kind == 1:
        for depth in range(chance.choice((5, 30, 45))):
            struct = struct.get_or_create_struct(f"d{depth}")
    elif kind == 2:
        struct["number"] = chance.choice(_DOUBLES)
    elif kind == 3:
        struct["many"] = list(range(chance.choice((3, 2_000))))
    elif kind == 4:
        struct[SURROGATE] = chance.choice(_TEXTS)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
