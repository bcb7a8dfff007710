"""What the arguments of a call become on the wire."""

from __future__ import annotations

import inspect
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tests.client.server import METHODS
from treadle import (
    Agent,
    AgentLimits,
    ApiKey,
    Approval,
    Client,
    Content,
    ExecuteAgentRequest,
    Input,
    SyncClient,
    Thread,
    ThreadContext,
)
from treadle.calls import admin, agents, approvals, backups, controls, streams, tenants, threads
from treadle.calls.call import Pages, Stream, Unary, path_of

# Methods of the client that are called otherwise than their RPC.
NAMES = {
    "execute_agent": "execute",
    "execute_agent_stream": "stream",
    "watch_thread": "watch",
    "list_thread_events": "list_events",
}
CALLS = {
    name: call
    for module in (admin, agents, approvals, backups, controls, streams, tenants, threads)
    for name, call in inspect.getmembers(module, inspect.isfunction)
    if call.__module__ == module.__name__ and not name.endswith("_of")
}
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "decide_approval": ("threads/t/approvals/a", Approval.APPROVE),
    "rollback_agent": ("a", 1),
    "get_agent_version": ("a", 1),
    "complete_thread": ("t", Thread.FAILED),
    "submit_tool_result": ("t", "call-1"),
}
NONE_NEEDED = {
    *("list_agents", "list_threads", "list_builtin_tools", "list_tenants"),
    *("get_server_info", "watch_approvals", "watch_threads"),
}


def made(name: str) -> Any:
    arguments = ARGUMENTS.get(name, () if name in NONE_NEEDED else ("x",))
    return CALLS[name](*arguments, **({"model": "demo:react"} if name == "create_agent" else {}))


def request_of(call: Unary[Any] | Pages[Any] | Stream[Any]) -> Any:
    return call.follower().request() if isinstance(call, Stream) else call.request


def test_every_rpc_has_its_method_in_both_clients() -> None:
    for path in METHODS:
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", path.rpartition("/")[2]).lower()
        name = NAMES.get(snake, snake)

        assert path_of(request_of(made(name)).DESCRIPTOR.full_name) == path
        for client in (Client, SyncClient):
            method = getattr(client, name)
            assert method.__doc__ == CALLS[name].__doc__
            assert [*inspect.signature(method).parameters][1:] == [*inspect.signature(CALLS[name]).parameters]


@pytest.mark.parametrize("name", sorted(CALLS))
def test_an_answer_is_read_as_what_the_rpc_gives(name: str) -> None:
    call = made(name)

    method = METHODS[path_of(request_of(call).DESCRIPTOR.full_name)]

    assert call.response.DESCRIPTOR is method.output_type
    if isinstance(call, Pages):
        assert list(call.items(call.response())) == []


@pytest.mark.parametrize("name", sorted(CALLS))
def test_whatever_can_be_repeated_by_request_id_has_one(name: str) -> None:
    request = request_of(made(name))

    if "request_id" in request.DESCRIPTOR.fields_by_name:
        assert 1 <= len(request.request_id) <= 128
        assert request_of(made(name)).request_id != request.request_id


def test_an_input_is_text_or_json_or_both() -> None:
    assert request_of(threads.execute("a", "hello")).thread.input == Input(text="hello")
    big = threads.create_thread("a", data={"n": 9007199254740993, "s": "ü"})
    assert request_of(big).thread.input == Input(data_json='{"n": 9007199254740993, "s": "ü"}')
    both = threads.create_thread("a", "sum these", data=[1, 2])
    assert request_of(both).thread.input == Input(text="sum these", data_json="[1, 2]")
    as_is = threads.create_thread("a", input=Input(data_json="null"))
    assert request_of(as_is).thread.input == Input(data_json="null")


@pytest.mark.parametrize("value", [math.nan, math.inf, object()], ids=["nan", "infinity", "an object"])
def test_what_json_does_not_have_is_refused_before_it_is_sent(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        threads.execute("a", data=value)


def test_client_metadata_that_would_change_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="2\\^53"):
        threads.create_thread("a", "x", client_metadata={"order": [9007199254740993]})

    kept = request_of(threads.create_thread("a", "x", client_metadata={"order": 17, "of": ["a", None, 1.5]}))
    assert dict(kept.thread.client_metadata) == {"order": 17, "of": ["a", None, 1.5]}


def test_fields_of_a_thread_keep_their_names() -> None:
    request = request_of(
        streams.stream(
            "agents/a",
            "hello",
            thread_id="t",
            session_key="user-7",
            context=ThreadContext(additional="be brief"),
            tags=["x"],
            labels={"team": "a"},
            busy_policy=Thread.REJECT,
            include_deltas=True,
            on_deadline=ExecuteAgentRequest.CANCEL,
        )
    )

    assert request.thread == Thread(
        agent="agents/a",
        input=Input(text="hello"),
        session_key="user-7",
        context=ThreadContext(additional="be brief"),
        tags=["x"],
        labels={"team": "a"},
        busy_policy=Thread.REJECT,
    )
    assert (request.thread_id, request.include_deltas, request.on_deadline) == ("t", True, 2)


def test_a_name_may_be_given_in_full_or_by_its_id() -> None:
    for given in ("a", "agents/a"):
        assert request_of(agents.get_agent(given)).name == "agents/a"
        assert request_of(agents.get_agent_version(given, 3)).name == "agents/a/versions/3"
    assert request_of(threads.get_thread("t")).name == "threads/t"
    assert request_of(admin.list_api_keys("acme")).parent == "tenants/acme"
    assert request_of(threads.get_thread("")).name == ""


def test_an_update_of_an_agent_names_what_was_given_even_if_empty() -> None:
    request = request_of(agents.update_agent("a", instructions="", limits=AgentLimits(max_iterations=3)))

    assert set(request.update_mask.paths) == {"instructions", "limits"}
    assert request.agent == Agent(name="agents/a", limits=AgentLimits(max_iterations=3))
    assert request_of(agents.update_agent("a", model="m:x", etag="e")).update_mask == FieldMask(
        paths=["model"]
    )


def test_an_update_of_a_thread_names_what_was_given_even_if_empty() -> None:
    request = request_of(threads.update_thread("t", tags=[], client_metadata={}))

    assert set(request.update_mask.paths) == {"tags", "client_metadata"}
    assert request.thread.HasField("client_metadata")


def test_an_update_of_a_key_names_what_was_given() -> None:
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    key = ApiKey(name="tenants/a/apiKeys/k")
    key.expire_time.FromDatetime(noon)

    request = request_of(admin.update_api_key("tenants/a/apiKeys/k", expire_time=noon))

    assert request.api_key == key
    assert list(request.update_mask.paths) == ["expire_time"]


def test_an_update_of_a_tenant_names_what_was_given_or_cleared() -> None:
    kept = request_of(tenants.update_tenant("acme", thread_retention=timedelta(days=1)))
    cleared = request_of(tenants.update_tenant("acme", display_name="", clear_thread_retention=True))

    assert (kept.tenant.name, kept.tenant.thread_retention.seconds) == ("tenants/acme", 86_400)
    assert list(kept.update_mask.paths) == ["thread_retention"]
    assert list(cleared.update_mask.paths) == ["display_name", "thread_retention"]
    assert not cleared.tenant.HasField("thread_retention")
    with pytest.raises(ValueError, match="either"):
        tenants.update_tenant("acme", thread_retention=timedelta(days=1), clear_thread_retention=True)


def test_a_cancel_waits_longer_than_its_grace() -> None:
    call = controls.cancel_thread("t", reason="enough", grace=timedelta(minutes=5))

    assert call.timeout is not None
    assert call.timeout > 300
    assert request_of(call).grace.seconds == 300
    assert not request_of(controls.cancel_thread("t")).HasField("grace")


def test_execute_waits_for_ever_unless_told_otherwise() -> None:
    assert threads.execute("a", "x").timeout == math.inf
    assert threads.execute("a", "x", timeout=5).timeout == 5
    assert threads.create_thread("a", "x").timeout is None


def test_a_tools_result_is_a_value_or_an_error() -> None:
    value = request_of(controls.submit_tool_result("t", "c", result={"n": 1}))
    nothing = request_of(controls.submit_tool_result("t", "c"))
    error = request_of(controls.submit_tool_result("t", "c", error="no such file"))

    assert (value.result_json, nothing.result_json) == ('{"n": 1}', "null")
    assert (error.WhichOneof("result"), error.error.message) == ("error", "no such file")


def test_a_fork_overrides_only_what_is_given() -> None:
    assert not request_of(controls.fork_thread("t", sequence=4)).HasField("thread")
    assert request_of(controls.fork_thread("t", text="go on")).thread == Thread(input=Input(text="go on"))
    given = request_of(
        controls.fork_thread("t", data={"a": 1}, agent_version="agents/a/versions/2", tags=["x"])
    )
    assert given.thread == Thread(
        input=Input(data_json='{"a": 1}'), agent_version="agents/a/versions/2", tags=["x"]
    )


def test_a_completion_carries_its_output() -> None:
    request = request_of(controls.complete_thread("t", Thread.COMPLETED, output=Content(text="done")))

    assert (request.state, request.output.text) == (Thread.COMPLETED, "done")
