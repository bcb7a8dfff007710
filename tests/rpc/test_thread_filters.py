"""Filters of ListThreads, over a real channel."""

from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig
from treadle.v1 import agent_service_pb2, thread_service_pb2

_agents: Any = agent_service_pb2
_threads: Any = thread_service_pb2


@pytest.fixture
async def filled(rig: Rig) -> Rig:
    """Threads t1 to t4 of two agents; all have ended but t4, which waits for ever."""
    for agent_id in ("one", "two"):
        agent = {"model": "scripted:"}
        await rig.agents.CreateAgent(_agents.CreateAgentRequest(agent=agent, agent_id=agent_id))
    done, hanging = '{"turns":[{"text":"done"}]}', '{"turns":[{"hang":true}]}'
    for thread_id, fields in {
        "t1": {"agent": "agents/one", "tags": ["a", "b"], "labels": {"team": "x"}},
        "t2": {"agent": "agents/two", "tags": ["a"], "subject": {"type": "ticket", "id": "17"}},
        "t3": {"agent": "agents/one", "labels": {"team": "y"}, "trigger": {"type": 1, "triggered_by": "ann"}},
        "t4": {"agent": "agents/two", "session_key": "s", "labels": {"team": "x"}},
    }.items():
        script = hanging if thread_id == "t4" else done
        thread = {**fields, "input": {"data_json": script}}
        await rig.threads.CreateThread(_threads.CreateThreadRequest(thread=thread, thread_id=thread_id))
        if thread_id != "t4":
            async for _ in rig.threads.WatchThread(_threads.WatchThreadRequest(name=f"threads/{thread_id}")):
                pass
    return rig


async def _listed(rig: Rig, text: str, order_by: str = "") -> str:
    page = await rig.threads.ListThreads(_threads.ListThreadsRequest(filter=text, order_by=order_by))
    return " ".join(thread.name.removeprefix("threads/") for thread in page.threads)


async def test_threads_are_found_by_what_a_filter_says(filled: Rig) -> None:
    expected = {
        "": "t4 t3 t2 t1",
        "state = COMPLETED": "t3 t2 t1",
        "state != COMPLETED": "t4",
        "(state = RUNNING OR state = PENDING)": "t4",
        "stop_reason = FINISHED AND tags:a": "t2 t1",
        'agent = "agents/one"': "t3 t1",
        "agent = agents/one OR agent = agents/two": "t4 t3 t2 t1",
        "agent != agents/one": "t4 t2",
        "agent = agents/nobody": "",
        "session = sessions/nobody": "",
        'tags:"b"': "t1",
        "tags:a AND tags:b": "t1",
        "labels.team = x": "t4 t1",
        "labels.team:*": "t4 t3 t1",
        "labels:team": "t4 t3 t1",
        'subject.type = "ticket" AND subject.id = "17"': "t2",
        "trigger.type = MANUAL": "t3",
        "trigger.triggered_by = ann": "t3",
        "create_time > 2020-01-01T00:00:00Z": "t4 t3 t2 t1",
        "end_time < 2020-01-01T00:00:00Z": "",
        "usage.total_tokens > 0": "t3 t2 t1",
        "cost.cost_micros >= 1000000": "",
        "agent_version = agents/one/versions/1": "t3 t1",
        "agent_version = agents/one/versions/2": "",
        "agent_version = agents/nobody/versions/1": "",
        "success = true": "t3 t2 t1",
        "success = false": "t4",
        "success != true": "t4",
        "success = true OR success = false": "t4 t3 t2 t1",
        "iteration_count >= 1 AND actions_taken = 0 AND state = COMPLETED": "t3 t2 t1",
        "actions_taken > 0": "",
        "trigger.triggered_by = ann OR trigger.triggered_by = bob": "t3",
        "parent_object = customer/42": "",
        "parent_object != customer/42": "t4 t3 t2 t1",
    }

    assert {text: await _listed(filled, text) for text in expected} == expected


async def test_threads_are_found_by_their_session(filled: Rig) -> None:
    thread = await filled.threads.GetThread(_threads.GetThreadRequest(name="threads/t4"))

    assert await _listed(filled, f"session = {thread.session}") == "t4"


async def test_threads_are_listed_in_the_order_that_is_asked_for(filled: Rig) -> None:
    assert await _listed(filled, "", "create_time") == "t1 t2 t3 t4"
    assert await _listed(filled, "state = COMPLETED", "end_time desc") == "t3 t2 t1"
    assert await _listed(filled, "state = COMPLETED", "iteration_count") == "t1 t2 t3"
    assert await _listed(filled, "state = COMPLETED", "actions_taken desc") == "t3 t2 t1"


@pytest.mark.parametrize(
    ("fields", "reason", "named"),
    [
        ({"filter": "state = SLEEPING"}, "FIELD_INVALID", "filter"),
        ({"filter": "tags = a"}, "FIELD_INVALID", "filter"),
        ({"filter": "agent = one"}, "FIELD_INVALID", "filter"),
        ({"filter": "labels.team != x"}, "FIELD_INVALID", "filter"),
        ({"filter": "success = yes"}, "FIELD_INVALID", "filter"),
        ({"filter": "agent_version != agents/a/versions/1"}, "FIELD_INVALID", "filter"),
        ({"filter": "agent_version = agents/a"}, "FIELD_INVALID", "filter"),
        (
            {"filter": "agent_version = agents/a/versions/1 OR agent_version = agents/a/versions/2"},
            "NOT_SUPPORTED",
            "filter",
        ),
        ({"filter": "tags:*"}, "NOT_SUPPORTED", "filter"),
        ({"order_by": "name"}, "FIELD_INVALID", "order_by"),
        ({"order_by": "state"}, "NOT_SUPPORTED", "order_by"),
        ({"order_by": "create_time, end_time"}, "NOT_SUPPORTED", "order_by"),
    ],
)
async def test_what_cannot_be_listed_is_refused_by_name(
    rig: Rig, fields: dict[str, str], reason: str, named: str
) -> None:
    failure = await failure_of(rig.threads.ListThreads(_threads.ListThreadsRequest(**fields)))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert failure.fields.keys() == {named}
