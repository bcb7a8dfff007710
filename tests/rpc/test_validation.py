"""What a request must be, before any servicer sees it."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from treadle.v1 import (
    admin_service_pb2,
    agent_pb2,
    agent_service_pb2,
    approval_service_pb2,
    thread_pb2,
    thread_service_pb2,
    tool_service_pb2,
)
from treadle_server.core.errors import Reason, Refused
from treadle_server.rpc.validation import validate

_admin: Any = admin_service_pb2
_agents: Any = agent_service_pb2
_threads: Any = thread_service_pb2
_Thread: Any = thread_pb2.Thread
_MODULES: tuple[Any, ...] = (
    admin_service_pb2,
    agent_service_pb2,
    approval_service_pb2,
    thread_service_pb2,
    tool_service_pb2,
)
_SERVICES = [service for module in _MODULES for service in module.DESCRIPTOR.services_by_name.values()]


def _refusal(request: Message) -> Refused:
    with pytest.raises(Refused) as caught:
        validate(request)
    return caught.value


def _fields(request: Message) -> dict[str, str]:
    return {fault.field: fault.description for fault in _refusal(request).violations}


def _create(**agent: Any) -> Any:
    return _agents.CreateAgentRequest(agent={"model": "demo:react", **agent})


def _thread(**thread: Any) -> Any:
    return _threads.CreateThreadRequest(thread={"agent": "agents/a", "input": {"text": "hi"}, **thread})


def _client_tool(**tool: Any) -> dict[str, Any]:
    return {"name": "t", "description": "does it", **tool}


def _tool_error(**error: Any) -> Any:
    return _threads.SubmitToolResultRequest(name="threads/t", tool_call_id="c", error=error)


def _string_fields(descriptor: Any, depth: int) -> Iterator[tuple[str, ...]]:
    """Paths to every string of a message, through messages but not through lists of them."""
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            yield (field.name,)
        elif depth and not field.is_repeated and _is_ours(field):
            for rest in _string_fields(field.message_type, depth - 1):
                yield (field.name, *rest)


def _is_ours(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name.startswith("treadle.")


_STRINGS = [
    (method.input_type, path)
    for service in _SERVICES
    for method in service.methods
    for path in _string_fields(method.input_type, 3)
]


@pytest.mark.parametrize(
    ("descriptor", "path"), _STRINGS, ids=[f"{d.name}.{'.'.join(p)}" for d, p in _STRINGS]
)
def test_no_string_of_a_request_may_be_endless_or_hold_nul(
    descriptor: Descriptor, path: tuple[str, ...]
) -> None:
    cls = _message_class(descriptor)
    outcomes = []
    for text in ("a\x00b", "x" * 2_000_000):
        request = cls()
        part: Any = request
        for step in path[:-1]:
            part = getattr(part, step)
        setattr(part, path[-1], text)
        try:
            validate(request)
            outcomes.append("taken")
        except Refused as refused:
            named = any(fault.field.startswith(".".join(path)) for fault in refused.violations)
            outcomes.append("named" if named else "not named")
        if not _still_set(request, path):
            outcomes[-1] = "cleared"  # a field that only the server sets

    assert set(outcomes) in ({"named"}, {"cleared"}) or _hidden(descriptor, path), outcomes


def _hidden(descriptor: Descriptor, path: tuple[str, ...]) -> bool:
    """A message above it is refused or dropped as a whole."""
    return any(step == "evaluation_config" for step in path[:-1])


def _still_set(request: Message, path: tuple[str, ...]) -> bool:
    part: Any = request
    for step in path[:-1]:
        if not part.HasField(step):
            return False
        part = getattr(part, step)
    return bool(getattr(part, path[-1]))


def _message_class(descriptor: Descriptor) -> Any:
    for module in _MODULES:
        found = getattr(module, descriptor.name, None)
        if found is not None:
            return found
    raise AssertionError(descriptor.full_name)


def test_every_required_field_that_is_missing_is_named() -> None:
    assert _fields(_agents.CreateAgentRequest()) == {"agent": "is required"}
    assert _fields(_threads.CreateThreadRequest(thread={"subject": {"type": "t"}})) == {
        "thread.agent": "is required",
        "thread.input": "is required",
        "thread.subject.id": "is required",
    }
    assert _fields(_agents.RollbackAgentRequest(name="agents/a")) == {"version": "is required"}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (_agents.GetAgentRequest(name="agents/A"), "name"),
        (_agents.GetAgentRequest(name="agents/-a"), "name"),
        (_agents.GetAgentRequest(name=f"agents/{'a' * 64}"), "name"),
        (_agents.GetAgentRequest(name="threads/a"), "name"),
        (_agents.GetAgentRequest(name="agents/a\n"), "name"),
        (_agents.GetAgentVersionRequest(name="agents/a/versions/0"), "name"),
        (_agents.GetAgentVersionRequest(name="agents/a/versions/9999999999"), "name"),
        (_agents.ListAgentVersionsRequest(parent="agents/a/versions/1"), "parent"),
        (_admin.ListApiKeysRequest(parent="default"), "parent"),
        (_create(name="x", labels={"": "v"}), "agent.labels"),
        (_create(labels={str(n): "" for n in range(65)}), "agent.labels"),
        (_create(labels={"k" * 64: ""}), "agent.labels (a key)"),
        (_create(labels={"k": "v" * 256}), "agent.labels (a value)"),
        (_create(display_name="d" * 256), "agent.display_name"),
        (_create(image_uri="no uri"), "agent.image_uri"),
        (_create(model="react"), "agent.model"),
        (_create(model_settings={"temperature": 2.1}), "agent.model_settings.temperature"),
        (_create(model_settings={"temperature": float("nan")}), "agent.model_settings.temperature"),
        (_create(model_settings={"top_p": 0.0}), "agent.model_settings.top_p"),
        (_create(model_settings={"max_output_tokens": 0}), "agent.model_settings.max_output_tokens"),
        (_create(model_settings={"stop_sequences": [""]}), "agent.model_settings.stop_sequences[0]"),
        (_create(limits={"max_iterations": -1}), "agent.limits.max_iterations"),
        (_create(limits={"timeout": {"seconds": -1}}), "agent.limits.timeout"),
        (_create(limits={"timeout": {"seconds": 1, "nanos": -1}}), "agent.limits.timeout"),
        (_create(limits={"timeout": {}}), "agent.limits.timeout"),
        (_create(limits={"timeout": {"seconds": 2**62}}), "agent.limits.timeout"),
        (_create(on_unknown_outcome=77), "agent.on_unknown_outcome"),
        (_create(tool_groups=["toolGroups/"]), "agent.tool_groups[0]"),
        (_create(tool_groups=[f"toolGroups/g{n}" for n in range(33)]), "agent.tool_groups"),
        (_create(enabled_tools=["calculator"]), "agent.enabled_tools[0]"),
        (_create(output_schema_json="{"), "agent.output_schema_json"),
        (_thread(agent_version="agents/a"), "thread.agent_version"),
        (_thread(session="s"), "thread.session"),
        (_thread(tags=[""]), "thread.tags[0]"),
        (_thread(tags=[str(n) for n in range(51)]), "thread.tags"),
        (_thread(trigger={"type": 9}), "thread.trigger.type"),
        (_thread(busy_policy=1), "thread.busy_policy"),
        (_thread(input={}), "thread.input"),
        (_thread(input={"data_json": "NaN"}), "thread.input.data_json"),
        (_thread(input={"data_json": '{"a":1,"a":2}'}), "thread.input.data_json"),
        (_thread(input={"data_json": '"\\ud800"'}), "thread.input.data_json"),
        (_thread(input={"data_json": "1e999"}), "thread.input.data_json"),
        (_thread(input={"data_json": "[" * 65 + "]" * 65}), "thread.input.data_json"),
        (_thread(input={"data_json": "[" * 60_000}), "thread.input.data_json"),
        (_thread(input={"data_json": "9" * 5_000}), "thread.input.data_json"),
        (_thread(input={"data_json": "1", "data": {"a": 1}}), "thread.input.data"),
        (_thread(input={"data": {"a": 2.0**53 + 2}}), "thread.input.data"),
        (_thread(input={"data": {"a": float("inf")}}), "thread.input.data"),
        (_thread(client_tools=[{"name": "t"}]), "thread.client_tools[0].description"),
        (_thread(client_tools=[_client_tool(name="")]), "thread.client_tools[0].name"),
        (_thread(client_tools=[_client_tool(name="a b")]), "thread.client_tools[0].name"),
        (_thread(client_tools=[_client_tool(name="9")]), "thread.client_tools[0].name"),
        (_thread(client_tools=[_client_tool(name="t" * 65)]), "thread.client_tools[0].name"),
        (
            _thread(client_tools=[_client_tool(), _client_tool(description="d" * 4_097)]),
            "thread.client_tools[1].description",
        ),
        (
            _thread(client_tools=[_client_tool(parameters_schema_json="{")]),
            "thread.client_tools[0].parameters_schema_json",
        ),
        (
            _thread(client_tools=[_client_tool(result_schema_json="x")]),
            "thread.client_tools[0].result_schema_json",
        ),
        (_thread(client_tools=[_client_tool()] * 65), "thread.client_tools"),
        (_threads.CancelThreadRequest(name="threads/t", grace={"seconds": 301}), "grace"),
        (_threads.CompleteThreadRequest(name="threads/t", state=2), "state"),
        (_threads.WatchThreadRequest(name="threads/t", after_sequence=-1), "after_sequence"),
        (_threads.SubmitToolResultRequest(name="threads/t", tool_call_id="c"), "result_json"),
        (_tool_error(message="no such file"), "error.code"),
        (_tool_error(code=17), "error.code"),
        (_tool_error(code=-1), "error.code"),
        (tool_service_pb2.ListBuiltinToolsRequest(page_size=-5), "page_size"),
        (
            _admin.CreateApiKeyRequest(parent="tenants/a", api_key={"principal": "a\nb"}),
            "api_key.principal",
        ),
        (
            _admin.CreateApiKeyRequest(parent="tenants/a", api_key={"expire_time": {"seconds": 2**40}}),
            "api_key.expire_time",
        ),
        (_agents.CreateAgentRequest(agent={"model": "demo:react"}, request_id="é"), "request_id"),
        (_agents.CreateAgentRequest(agent={"model": "demo:react"}, request_id="r" * 129), "request_id"),
        (_agents.CreateAgentRequest(agent={"model": "demo:react"}, agent_id="a-"), "agent_id"),
        (_agents.UpdateAgentRequest(agent={"display_name": "x"}), "agent.name"),
    ],
)
def test_a_faulty_field_is_named(request_: Message, field: str) -> None:
    refusal = _refusal(request_)

    assert refusal.reason is Reason.FIELD_INVALID
    assert [fault.field for fault in refusal.violations] == [field]


@pytest.mark.parametrize(
    ("request_", "field", "bytes_max"),
    [
        (_thread(input={"text": "x" * 65_537}), "thread.input.text", 65_536),
        (_thread(input={"text": "\u00e9" * 32_769}), "thread.input.text", 65_536),
        (_thread(input={"data_json": '"' + "x" * 65_536 + '"'}), "thread.input.data_json", 65_536),
        (_thread(client_metadata={"a": "x" * 16_384}), "thread.client_metadata", 16_384),
        (_create(instructions="x" * 65_537), "agent.instructions", 65_536),
        (
            _thread(client_tools=[_client_tool(result_schema_json='"' + "x" * 16_384 + '"')]),
            "thread.client_tools[0].result_schema_json",
            16_384,
        ),
        (
            _thread(client_tools=[_client_tool(result_schema_json='"' + "x" * 10_000 + '"')] * 27),
            "thread.client_tools",
            131_072,
        ),
    ],
)
def test_a_field_that_is_too_large_tells_how_large_it_may_be(
    request_: Message, field: str, bytes_max: int
) -> None:
    refusal = _refusal(request_)

    assert refusal.reason is Reason.REQUEST_TOO_LARGE
    assert refusal.metadata == {"field": field, "max_bytes": str(bytes_max)}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (_thread(input={"text": "x", "parts": [{}]}), "thread.input.parts"),
        (
            _threads.WatchThreadRequest(name="threads/t", include_children=True, include_deltas=True),
            "include_deltas",
        ),
    ],
)
def test_a_feature_that_is_not_built_is_refused(request_: Message, field: str) -> None:
    refusal = _refusal(request_)

    assert refusal.reason is Reason.NOT_SUPPORTED
    assert refusal.metadata == {"field": field}


def test_webhooks_and_event_sources_are_refused_as_not_supported() -> None:
    for field, name in (("webhook_targets", "webhooks/w"), ("event_source_targets", "eventSources/e")):
        assert _refusal(_thread(**{field: [name]})).metadata == {"field": f"thread.{field}"}


def test_limits_themselves_are_allowed() -> None:
    validate(_thread(input={"text": "x" * 65_536}, tags=["t" * 63] * 2, labels={"k" * 63: "v" * 255}))
    validate(_thread(input={"data_json": "[" * 64 + "]" * 64}))
    validate(_create(display_name="d" * 255, model_settings={"temperature": 2.0, "top_p": 1.0}))
    validate(_threads.CancelThreadRequest(name="threads/t", grace={"seconds": 300}))
    validate(_create(model='scripted:{"turns": []}'))
    validate(_create(model="scripted:"))


def test_json_is_brought_into_its_one_form_without_losing_digits() -> None:
    request = _thread(input={"data_json": ' {"b": 9007199254740993, "a": [1.50, "\\u00e9"]} '})

    validate(request)

    assert request.thread.input.data_json == '{"a":[1.5,"é"],"b":9007199254740993}'


def test_an_object_becomes_the_json_text_that_it_stands_for() -> None:
    request = _thread(input={"data": {"b": 2.5, "a": [1, True, None, {"c": "d"}]}})

    validate(request)

    assert request.thread.input.data_json == '{"a":[1,true,null,{"c":"d"}],"b":2.5}'
    assert not request.thread.input.HasField("data")


def test_an_object_deeper_than_32_levels_is_refused_naming_the_text_field() -> None:
    deep = Struct()
    inner = deep
    for _ in range(31):
        inner = inner.fields["a"].struct_value
    request = _thread(input={"data": deep})
    validate(request)
    inner.fields["a"].list_value.SetInParent()

    assert "data_json" in _fields(_thread(input={"data": deep}))["thread.input.data"]


def test_fields_that_only_the_server_sets_are_dropped() -> None:
    request = _thread(state=2, parent_thread="threads/x", last_sequence=-4, name="bad name", etag="e")

    validate(request)

    assert request == _thread()


def test_a_changed_resource_is_read_only_where_its_mask_says() -> None:
    request = _agents.UpdateAgentRequest(
        agent=agent_pb2.Agent(name="agents/a", display_name="x", model="faulty", suggestions_enabled=True),
        update_mask={"paths": ["display_name"]},
    )

    validate(request)

    assert request.agent == agent_pb2.Agent(name="agents/a", display_name="x")


def test_a_thread_that_was_read_can_be_sent_back_to_change_its_tags() -> None:
    read = _Thread(
        name="threads/t", agent="agents/a", input={"text": "x"}, state=6, tags=["new"], parent_object="a/1"
    )
    request = _threads.UpdateThreadRequest(thread=read)

    validate(request)

    assert request.thread == thread_pb2.Thread(name="threads/t", tags=["new"])


def test_many_faults_are_counted_out() -> None:
    request = _thread(tags=[""] * 50, labels={f"{n}{'k' * 63}": "v" * 300 for n in range(64)})

    assert 50 < len(_refusal(request).violations) <= 100


_BYTES = st.binary(max_size=200)


@given(data=_BYTES, which=st.sampled_from(_SERVICES), index=st.integers(0, 30))
def test_no_bytes_make_validation_fail_otherwise_than_by_refusing(
    data: bytes, which: Any, index: int
) -> None:
    methods = list(which.methods)
    request = _message_class(methods[index % len(methods)].input_type)()
    try:
        request.MergeFromString(data)
    except Exception:
        return

    named = True
    try:
        validate(request)
    except Refused as refused:
        named = bool(refused.violations)

    assert named


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=_JSON)
def test_canonical_json_says_the_same_and_stays_as_it_is(value: Any) -> None:
    request = _thread(input={"data_json": json.dumps(value)})
    validate(request)
    once = request.thread.input.data_json

    assert json.loads(once) == value
    again = _thread(input={"data_json": once})
    validate(again)
    assert again.thread.input.data_json == once


def test_every_service_of_the_api_is_looked_at() -> None:
    names = sorted(service.name for service in _SERVICES)

    assert names == ["AdminService", "AgentService", "ApprovalService", "ThreadService", "ToolService"]
    assert len(list(itertools.chain.from_iterable(service.methods for service in _SERVICES))) > 30
