"""Checks a request before a servicer sees it: what is required by its proto, what is limited by our table.

A plan is made once per message type. Fields that only the server sets are cleared, as AIP-203 has it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.api import field_behavior_pb2, resource_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from treadle_server.core.errors import Refused
from treadle_server.rpc import limits
from treadle_server.rpc.faults import Faults
from treadle_server.rpc.names import PARENTS, PATTERNS, SHAPES
from treadle_server.rpc.rules import Items, Moment, Number, Object, Rule, Span, Text

_Check = Callable[[Message, Any, str, Faults], None]
"""Gets the message, the field's value, the message's path with a dot, and the faults."""


@dataclass(frozen=True, slots=True)
class Resource:
    """How a request holds the resource that it makes or changes."""

    field: str
    changes: bool
    """Its fields are then all optional but the name; else name and etag are not read."""
    only: frozenset[str] = frozenset()
    """What can be changed; empty = all. Other fields are not read."""


RESOURCES: Mapping[str, Resource] = {
    "treadle.v1.CreateAgentRequest": Resource("agent", changes=False),
    "treadle.v1.UpdateAgentRequest": Resource("agent", changes=True),
    "treadle.v1.CreateApiKeyRequest": Resource("api_key", changes=False),
    "treadle.v1.UpdateApiKeyRequest": Resource(
        "api_key", changes=True, only=frozenset({"display_name", "expire_time"})
    ),
    "treadle.v1.CreateTenantRequest": Resource("tenant", changes=False),
    "treadle.v1.UpdateTenantRequest": Resource(
        "tenant", changes=True, only=frozenset({"display_name", "thread_retention"})
    ),
    "treadle.v1.UpdateSessionRequest": Resource("session", changes=True, only=frozenset({"labels"})),
    "treadle.v1.ExecuteAgentRequest": Resource("thread", changes=False),
    "treadle.v1.ExecuteAgentStreamRequest": Resource("thread", changes=False),
    "treadle.v1.CreateThreadRequest": Resource("thread", changes=False),
    "treadle.v1.UpdateThreadRequest": Resource(
        "thread", changes=True, only=frozenset({"tags", "labels", "client_metadata"})
    ),
}
OVERRIDES: Mapping[str, str] = {"treadle.v1.ForkThreadRequest": "thread"}
"""Fields whose message says what is to be otherwise: nothing in it is required."""


def validate(request: Message) -> None:
    """Raises Refused with every faulty field; brings the request into its one form."""
    faults = Faults()
    name = request.DESCRIPTOR.full_name
    resource = RESOURCES.get(name)
    if resource is not None and request.HasField(resource.field):
        _prepare(request, resource, faults)
    plan_of(request.DESCRIPTOR).check(request, "", faults)
    faults.raise_if_any()


def validate_part(message: Message, path: str) -> None:
    """Checks one message as a part of a request: `path` is where it stands, `agent`."""
    faults = Faults()
    plan_of(message.DESCRIPTOR).check(message, f"{path}.", faults)
    faults.raise_if_any()


def problem_of(request: Message) -> Refused | None:
    """What `validate` raises."""
    try:
        validate(request)
    except Refused as refused:
        return refused
    return None


def _prepare(request: Message, resource: Resource, faults: Faults) -> None:
    """Clears what is not read of a resource that is made or changed."""
    message = getattr(request, resource.field)
    if not resource.changes:
        message.ClearField("name")
        message.ClearField("etag")
        return
    if not message.name:
        faults.invalid(f"{resource.field}.name", "is required")
    mask = getattr(request, "update_mask").paths  # noqa: B009 - every change has one
    wanted = {path.partition(".")[0] for path in mask}
    for field, _ in message.ListFields():
        masked = bool(wanted) and "*" not in wanted and field.name not in wanted
        barred = bool(resource.only) and field.name not in resource.only
        if (masked or barred) and field.name not in ("name", "etag"):
            message.ClearField(field.name)


class Plan:
    """What is checked of one type of message."""

    __slots__ = ("_checks", "_output_only", "_required", "_whole")

    def __init__(self, descriptor: Descriptor, *, partial: bool) -> None:
        self._checks: dict[int, _Check] = {}
        self._required: tuple[FieldDescriptor, ...] = ()
        self._output_only: frozenset[int] = frozenset()
        self._whole = None if partial else limits.WHOLES.get(descriptor.full_name)
        behaviors = {field: _behavior(field) for field in descriptor.fields}
        if not partial:
            self._required = tuple(
                f for f, found in behaviors.items() if field_behavior_pb2.REQUIRED in found
            )
        self._output_only = frozenset(
            field.number for field, found in behaviors.items() if field_behavior_pb2.OUTPUT_ONLY in found
        )
        for field in descriptor.fields:
            if field.number not in self._output_only:
                self._checks[field.number] = _check_of(descriptor, field)

    def check(self, message: Message, path: str, faults: Faults) -> None:
        """Looks only at what is set, then for what is required and is not."""
        found = message.ListFields()
        for field, value in found:
            if field.number in self._output_only:
                message.ClearField(field.name)
            elif not faults.full:
                self._checks[field.number](message, value, path, faults)
        for field in self._required:
            if not _is_set(message, field):
                faults.invalid(path + field.name, "is required")
        if self._whole is not None:
            self._whole(message, path, faults)


@cache
def plan_of(descriptor: Descriptor, partial: bool = False) -> Plan:
    return Plan(descriptor, partial=partial)


def _behavior(field: FieldDescriptor) -> frozenset[int]:
    return frozenset(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def _is_set(message: Message, field: FieldDescriptor) -> bool:
    return message.HasField(field.name) if field.has_presence else bool(getattr(message, field.name))


def _check_of(descriptor: Descriptor, field: FieldDescriptor) -> _Check:
    rule = limits.RULES.get(descriptor.full_name, {}).get(field.name) or limits.COMMON.get(field.name)
    reference = _reference(descriptor, field)
    checks: list[_Check] = []
    if rule is None and reference is None:
        rule = _default(field)
    if field.enum_type is not None:
        checks.append(_known_number(field, rule))
    elif rule is not None:
        checks.append(_by(rule, field.name))
    if reference is not None:
        checks.append(_by_reference(field, reference))
    if field.message_type is not None and (rule is None or isinstance(rule, Items)):
        checks.append(_nested(descriptor, field))
    if len(checks) == 1:
        return checks[0]
    return _all(tuple(checks))


def _reference(descriptor: Descriptor, field: FieldDescriptor) -> str | None:
    """The type of resource that a field names; None when any, or none."""
    options = field.GetOptions()
    if field_behavior_pb2.IDENTIFIER in _behavior(field):
        kind = descriptor.GetOptions().Extensions[resource_pb2.resource].type
    else:
        reference = options.Extensions[resource_pb2.resource_reference]
        kind = reference.type or PARENTS.get(reference.child_type, "")
    return kind if kind in PATTERNS else None


def _default(field: FieldDescriptor) -> Rule | None:
    kind = field.message_type.full_name if field.message_type is not None else ""
    if field.is_repeated:
        return Items(64, Text() if field.type == FieldDescriptor.TYPE_STRING else None) if not kind else None
    if kind:
        return _WELL_KNOWN.get(kind)
    if field.type == FieldDescriptor.TYPE_STRING:
        return Text()
    if field.cpp_type in _NUMBERS:
        return Number()
    return None


_NUMBERS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_DOUBLE,
        FieldDescriptor.CPPTYPE_FLOAT,
    }
)


class _Paths:
    """A FieldMask: what it names is for the method to judge."""

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        paths = getattr(message, field).paths
        if len(paths) > 64 or any(len(item) > 255 or "\x00" in item for item in paths):
            faults.invalid(path, "must have at most 64 paths of at most 255 characters")


_WELL_KNOWN: Mapping[str, Rule] = {
    "google.protobuf.Duration": Span(),
    "google.protobuf.Timestamp": Moment(),
    "google.protobuf.FieldMask": _Paths(),
    "google.protobuf.Struct": Object(64 * limits.KIB),
}


def _by(rule: Rule, name: str) -> _Check:
    check = rule.check
    return lambda message, _value, path, faults: check(message, name, path + name, faults)


def _all(checks: tuple[_Check, ...]) -> _Check:
    def check(message: Message, value: Any, path: str, faults: Faults) -> None:
        for each in checks:
            each(message, value, path, faults)

    return check


def _known_number(field: FieldDescriptor, rule: Rule | None) -> _Check:
    assert field.enum_type is not None
    numbers = frozenset(field.enum_type.values_by_number)
    name = field.name

    def check(message: Message, value: Any, path: str, faults: Faults) -> None:
        if value not in numbers:
            faults.invalid(path + name, "is a value that this server does not know")
        elif rule is not None:
            rule.check(message, name, path + name, faults)

    return check


def _by_reference(field: FieldDescriptor, kind: str) -> _Check:
    pattern, shape, name = PATTERNS[kind], SHAPES[kind], field.name

    def check(_message: Message, value: Any, path: str, faults: Faults) -> None:
        for index, item in enumerate(value if field.is_repeated else (value,)):
            if pattern.match(item) is None:
                place = f"{path}{name}[{index}]" if field.is_repeated else path + name
                faults.invalid(place, f"must be {shape}")

    return check


def _nested(descriptor: Descriptor, field: FieldDescriptor) -> _Check:
    resource = RESOURCES.get(descriptor.full_name)
    partial = (resource is not None and resource.changes and resource.field == field.name) or (
        OVERRIDES.get(descriptor.full_name) == field.name
    )
    name = field.name

    def check(_message: Message, value: Any, path: str, faults: Faults) -> None:
        plan = plan_of(field.message_type, partial)  # on first use: a message may hold itself
        if not field.is_repeated:
            plan.check(value, f"{path}{name}.", faults)
            return
        for index, item in enumerate(value):
            if faults.full:
                return
            plan.check(item, f"{path}{name}[{index}].", faults)

    return check
