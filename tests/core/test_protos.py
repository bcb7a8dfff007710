"""The domain's values and the protos say the same, field by field and number by number."""

import dataclasses
import inspect
import re
import types
import typing
from enum import IntEnum

import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from treadle.v1 import (
    admin_service_pb2,
    agent_pb2,
    agent_service_pb2,
    approval_pb2,
    approval_service_pb2,
    error_reason_pb2,
    event_pb2,
    iteration_pb2,
    memory_service_pb2,
    session_pb2,
    session_service_pb2,
    thread_pb2,
    thread_service_pb2,
    tool_pb2,
    tool_service_pb2,
)
from treadle_server.core import events, kinds, spec, values
from treadle_server.core.errors import Reason
from treadle_server.record.v1 import record_pb2

PAYLOADS = [payload for payload in typing.get_args(events.Payload) if payload is not events.Unknown]
ARMS = event_pb2.ThreadEvent.DESCRIPTOR.oneofs_by_name["payload"].fields
ENUMS: dict[type[IntEnum], EnumDescriptor] = {
    kinds.ThreadState: thread_pb2.Thread.State.DESCRIPTOR,
    kinds.StopReason: thread_pb2.Thread.StopReason.DESCRIPTOR,
    kinds.Control: thread_pb2.Thread.Command.DESCRIPTOR,
    kinds.Effect: tool_pb2.Tool.Effect.DESCRIPTOR,
    kinds.Verdict: event_pb2.ToolCallRequested.Verdict.DESCRIPTOR,
    kinds.CallStatus: iteration_pb2.Action.Status.DESCRIPTOR,
    kinds.UnknownPolicy: agent_pb2.Agent.UnknownOutcomePolicy.DESCRIPTOR,
    kinds.Decision: approval_pb2.Approval.Decision.DESCRIPTOR,
    kinds.ApprovalKind: approval_pb2.Approval.Kind.DESCRIPTOR,
    kinds.ApprovalState: approval_pb2.Approval.State.DESCRIPTOR,
    kinds.TriggerType: thread_pb2.Trigger.Type.DESCRIPTOR,
    kinds.BusyPolicy: thread_pb2.Thread.BusyPolicy.DESCRIPTOR,
    kinds.Role: session_pb2.SessionMessage.Role.DESCRIPTOR,
    kinds.DeltaKind: event_pb2.MessageDelta.Kind.DESCRIPTOR,
    kinds.TaskState: thread_pb2.Task.State.DESCRIPTOR,
    kinds.MemoryAccess: agent_pb2.MemoryRule.Access.DESCRIPTOR,
}
# Stored for features that the core does not decide about.
PROTO_ONLY = {
    "treadle.v1.Content": {"parts"},
}
# Messages that no event of the core becomes.
ARMS_WITHOUT_VALUE = {
    "message_delta",
    "tool_call_progress",
    "budget_alert",
    "suggestions_offered",
    "context_compacted",
    "heartbeat",
    "snapshot",
}
RENAMED = {"from_state": "from", "to_state": "to"}
INT32 = {
    "approvers_needed",
    "attempt",
    "attempts_max",
    "code",
    "history_messages_max",
    "depth",
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
SCALARS = {
    str: FieldDescriptor.TYPE_STRING,
    bool: FieldDescriptor.TYPE_BOOL,
    float: FieldDescriptor.TYPE_DOUBLE,
}
SERVICES = [
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (admin_service_pb2, "AdminService"),
        (agent_service_pb2, "AgentService"),
        (session_service_pb2, "SessionService"),
        (approval_service_pb2, "ApprovalService"),
        (thread_service_pb2, "ThreadService"),
        (tool_service_pb2, "ToolService"),
        (memory_service_pb2, "MemoryService"),
    )
]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]


def arm_name(payload: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", payload.__name__).lower()


def proto_name(name: str, *, public: bool) -> str:
    """The proto's name of a dataclass field. Private records keep micros as they are."""
    if public and name.endswith("_micros") and name != "cost_micros":
        return name.removesuffix("_micros")
    return RENAMED.get(name, name)


def message_of(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None, field.full_name
    return field.message_type


def public_fields(cls: type) -> dict[str, typing.Any]:
    hints = typing.get_type_hints(cls)
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(cls)
        if field.init and not field.metadata.get("private")
    }


def assert_alike(cls: type, message: Descriptor, *, public: bool = True) -> None:
    """Every field of the value is a field of the message, of the right type, and there are no others."""
    hints = public_fields(cls)
    expected = {proto_name(name, public=public) for name in hints}
    assert set(message.fields_by_name) == expected | PROTO_ONLY.get(message.full_name, set())
    for name, hint in hints.items():
        assert_field_alike(name, hint, message.fields_by_name[proto_name(name, public=public)], public=public)


def assert_field_alike(name: str, hint: typing.Any, field: FieldDescriptor, *, public: bool) -> None:
    if typing.get_origin(hint) is tuple:
        assert field.is_repeated, field.full_name
        hint = typing.get_args(hint)[0]
    else:
        assert not field.is_repeated, field.full_name
    if isinstance(hint, types.UnionType):
        assert field.has_presence, field.full_name
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if hint in SCALARS:
        assert field.type == SCALARS[hint], field.full_name
    elif hint is int:
        assert_integer_alike(name, field, public=public)
    elif issubclass(hint, IntEnum):
        assert field.enum_type is not None
        assert field.enum_type.full_name == ENUMS[hint].full_name
    elif hint is values.Fault:
        message = message_of(field)
        assert message.full_name == "google.rpc.Status"
        assert {part.name for part in dataclasses.fields(hint)} <= set(message.fields_by_name)
    else:
        assert_alike(hint, message_of(field), public=public)


def assert_integer_alike(name: str, field: FieldDescriptor, *, public: bool) -> None:
    if public and name.endswith("_time_micros"):
        assert message_of(field).full_name == "google.protobuf.Timestamp"
    elif public and name.endswith("_micros") and name != "cost_micros":
        assert message_of(field).full_name == "google.protobuf.Duration"
    else:
        wanted = FieldDescriptor.TYPE_INT32 if name in INT32 else FieldDescriptor.TYPE_INT64
        assert field.type == wanted, field.full_name


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.__name__)
def test_a_payload_has_the_fields_of_its_arm(payload: type) -> None:
    (arm,) = (arm for arm in ARMS if arm.name == arm_name(payload))

    assert_alike(payload, message_of(arm))


def test_every_arm_is_a_payload_or_known_to_have_none() -> None:
    assert {arm.name for arm in ARMS} - {arm_name(payload) for payload in PAYLOADS} == ARMS_WITHOUT_VALUE


def test_arms_are_numbered_one_after_another_from_ten() -> None:
    assert [arm.number for arm in ARMS] == list(range(10, 10 + len(ARMS)))


def test_what_every_event_has_stands_before_its_payload() -> None:
    fields = event_pb2.ThreadEvent.DESCRIPTOR.fields
    common = {field.name: field.number for field in fields if field.containing_oneof is None}

    assert common == {"thread": 1, "sequence": 2, "event_time": 3, "iteration": 4}


def test_private_fields_and_no_others_are_in_the_private_record() -> None:
    private: dict[str, typing.Any] = {}
    for payload in PAYLOADS:
        hints = typing.get_type_hints(payload)
        fields = [field.name for field in dataclasses.fields(payload) if field.metadata.get("private")]
        private |= {name: hints[name] for name in fields}

    record = record_pb2.PrivateRecord.DESCRIPTOR
    assert set(record.fields_by_name) == set(private)
    for name, hint in private.items():
        assert_field_alike(name, hint, record.fields_by_name[name], public=False)


def test_a_stored_spec_has_the_fields_of_the_value() -> None:
    assert_alike(spec.Spec, record_pb2.Spec.DESCRIPTOR, public=False)


def test_agent_settings_and_limits_can_say_what_a_spec_holds() -> None:
    settings = {field.name for field in dataclasses.fields(spec.ModelSettings)}
    limits = {proto_name(field.name, public=True) for field in dataclasses.fields(spec.Limits)}

    assert settings <= set(agent_pb2.ModelSettings.DESCRIPTOR.fields_by_name)
    assert limits <= set(agent_pb2.AgentLimits.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("kind", ENUMS, ids=lambda kind: kind.__name__)
def test_an_enum_has_the_names_and_numbers_of_the_proto(kind: type[IntEnum]) -> None:
    first, *others = ENUMS[kind].values

    assert (first.number, first.name.endswith("_UNSPECIFIED")) == (0, True)
    assert kind(0).name == "UNSPECIFIED"
    assert {value.name: value.number for value in others} == {
        member.name: member.value for member in kind if member
    }


def test_every_closed_set_of_the_domain_has_its_proto_enum() -> None:
    declared = {
        kind
        for _, kind in inspect.getmembers(kinds, inspect.isclass)
        if issubclass(kind, IntEnum) and kind is not IntEnum
    }

    assert declared == set(ENUMS)


def test_every_reason_of_a_refusal_is_documented() -> None:
    assert {reason.value for reason in Reason} <= set(error_reason_pb2.ErrorReason.keys())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_a_method_that_changes_something_takes_a_request_id(method: MethodDescriptor) -> None:
    reads = method.name.startswith(("Get", "Lookup", "List", "Watch", "Search"))

    assert ("request_id" in method.input_type.fields_by_name) is not reads


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_field_of_a_request_says_whether_it_is_required(method: MethodDescriptor) -> None:
    behaviour = field_behavior_pb2.field_behavior
    words = {field_behavior_pb2.REQUIRED, field_behavior_pb2.OPTIONAL}

    silent = [
        field.name
        for field in method.input_type.fields
        if field.containing_oneof is None and not words & set(field.GetOptions().Extensions[behaviour])
    ]

    assert silent == []
