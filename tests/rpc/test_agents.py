"""AgentService over a real channel."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, bearer, make_key, running
from treadle.v1 import agent_pb2, agent_service_pb2, thread_pb2, thread_service_pb2, tool_service_pb2

_pb: Any = agent_service_pb2
_Agent: Any = agent_pb2.Agent
_threads: Any = thread_service_pb2


def _agent(**fields: Any) -> Any:
    return _Agent(**{"model": "demo:react", "instructions": "Be brief.", **fields})


async def _create(rig: Rig, agent_id: str = "helper", **fields: Any) -> agent_pb2.Agent:
    created: agent_pb2.Agent = await rig.agents.CreateAgent(
        _pb.CreateAgentRequest(agent=_agent(**fields), agent_id=agent_id)
    )
    return created


def _update(agent: Any, *paths: str, **fields: Any) -> Any:
    return _pb.UpdateAgentRequest(agent=agent, update_mask={"paths": paths}, **fields)


async def test_a_created_agent_is_answered_with_its_effective_limits_and_read_back_the_same(rig: Rig) -> None:
    agent = _agent(
        display_name="Helper",
        labels={"team": "a"},
        tool_groups=["toolGroups/builtin"],
        enabled_tools=["builtin/calculator"],
        model_settings={"temperature": 0.0},
        limits={"max_iterations": 7, "timeout": {"seconds": 90}},
    )

    created = await rig.agents.CreateAgent(_pb.CreateAgentRequest(agent=agent, agent_id="helper"))

    assert created.name == "agents/helper"
    assert (created.version, created.etag) == (1, "1")
    assert created.display_name == "Helper"
    assert dict(created.labels) == {"team": "a"}
    assert created.model_settings.HasField("temperature")
    assert created.limits.max_iterations == 7
    assert created.limits.max_tool_calls == 100
    assert created.limits.timeout.seconds == 90
    assert created.limits.max_lifetime.seconds == 30 * 86_400
    assert created.on_unknown_outcome == _Agent.TELL_MODEL
    assert created.create_time == created.update_time
    assert not created.HasField("delete_time")
    assert await rig.agents.GetAgent(_pb.GetAgentRequest(name="agents/helper")) == created


async def test_an_agent_without_an_id_gets_one_that_rises_with_time(rig: Rig) -> None:
    first = await _create(rig, "")
    second = await _create(rig, "")

    assert len(first.name.removeprefix("agents/")) == 32
    assert first.name < second.name


async def test_what_the_caller_may_not_set_is_not_read(rig: Rig) -> None:
    agent = _agent(name="agents/other", version=9, etag="x", create_time={"seconds": 1}, delete_time={})

    created = await rig.agents.CreateAgent(_pb.CreateAgentRequest(agent=agent, agent_id="mine"))

    assert (created.name, created.version, created.etag) == ("agents/mine", 1, "1")
    assert not created.HasField("delete_time")


async def test_an_id_that_is_or_was_taken_is_refused(rig: Rig) -> None:
    await _create(rig)
    await rig.agents.DeleteAgent(_pb.DeleteAgentRequest(name="agents/helper"))

    failure = await failure_of(_create(rig))

    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")
    assert failure.details["ResourceInfo"].resource_name == "agents/helper"


async def test_every_faulty_field_of_an_agent_is_named_at_once(rig: Rig) -> None:
    failure = await failure_of(
        _create(
            rig,
            "Not An Id",
            model="nowhere:x",
            tool_groups=["toolGroups/absent"],
            output_schema_json='{"type": 5}',
        )
    )
    assert failure.fields.keys() == {"agent_id"}

    failure = await failure_of(
        _create(rig, model="nowhere:x", tool_groups=["toolGroups/absent"], output_schema_json='{"type": 5}')
    )

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert failure.fields.keys() == {
        "agent.model",
        "agent.tool_groups[0]",
        "agent.output_schema_json",
    }


async def test_an_agent_without_a_model_is_refused(rig: Rig) -> None:
    failure = await failure_of(rig.agents.CreateAgent(_pb.CreateAgentRequest(agent={"display_name": "x"})))

    assert failure.fields == {"agent.model": "is required"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("suggestions_enabled", True),
        ("evaluation_config", {}),
        ("limits", {"max_cost_micros": 1}),
        ("model_settings", {"fallback_models": ["demo:react"]}),
    ],
)
async def test_a_feature_that_is_not_built_is_refused_by_name(rig: Rig, field: str, value: Any) -> None:
    failure = await failure_of(_create(rig, **{field: value}))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NOT_SUPPORTED")
    named = failure.metadata["field"]
    assert named.startswith(f"agent.{field}")
    assert named in failure.fields


async def test_a_list_is_newest_first_in_pages_that_cover_it_once(rig: Rig) -> None:
    names = [(await _create(rig, f"a{number}")).name for number in range(7)]

    seen, token, totals = [], "", set()
    while True:
        page = await rig.agents.ListAgents(_pb.ListAgentsRequest(page_size=3, page_token=token))
        seen += [agent.name for agent in page.agents]
        totals.add(page.total_size)
        token = page.next_page_token
        if not token:
            break

    assert seen == list(reversed(names))
    assert totals == {7}


async def test_a_token_fits_only_the_request_that_it_came_from(rig: Rig) -> None:
    for number in range(3):
        await _create(rig, f"a{number}")
    page = await rig.agents.ListAgents(_pb.ListAgentsRequest(page_size=1))
    token = page.next_page_token
    await make_key(rig, "other")

    foreign = [
        rig.tools.ListBuiltinTools(tool_service_pb2.ListBuiltinToolsRequest(page_token=token)),
        rig.agents.ListAgents(
            _pb.ListAgentsRequest(page_token=token), metadata=(("treadle-tenant", "other"),)
        ),
        rig.agents.ListAgents(_pb.ListAgentsRequest(page_token=token, show_deleted=True)),
        rig.agents.ListAgents(_pb.ListAgentsRequest(page_token=token, filter='model = "x"')),
        rig.agents.ListAgents(_pb.ListAgentsRequest(page_token=token, order_by="display_name")),
        rig.agents.ListAgents(_pb.ListAgentsRequest(page_token=token[:-2])),
        rig.agents.ListAgents(_pb.ListAgentsRequest(page_token="~~~")),
        rig.agents.ListAgentVersions(_pb.ListAgentVersionsRequest(parent="agents/a0", page_token=token)),
    ]

    for call in foreign:
        failure = await failure_of(call)
        assert failure.fields.keys() == {"page_token"}
    assert await rig.agents.ListAgents(_pb.ListAgentsRequest(page_token=token, page_size=2))


async def test_a_negative_page_size_is_refused_and_a_great_one_is_cut(rig: Rig) -> None:
    await _create(rig)

    failure = await failure_of(rig.agents.ListAgents(_pb.ListAgentsRequest(page_size=-1)))

    assert failure.fields.keys() == {"page_size"}
    page = await rig.agents.ListAgents(_pb.ListAgentsRequest(page_size=2**31 - 1))
    assert len(page.agents) == 1


async def test_a_list_can_be_filtered_and_ordered(rig: Rig) -> None:
    await _create(rig, "one", display_name="B", labels={"team": "x"})
    await _create(rig, "two", display_name="C", labels={"team": "y"}, disabled=True)
    await _create(rig, "three", display_name="A", labels={"team": "x"}, model="scripted:")

    async def listed(**fields: Any) -> list[str]:
        page = await rig.agents.ListAgents(_pb.ListAgentsRequest(**fields))
        assert page.total_size == len(page.agents)
        return [agent.name.removeprefix("agents/") for agent in page.agents]

    assert await listed(filter='labels.team = "x"') == ["three", "one"]
    assert await listed(filter='labels.team = "x" AND model = "demo:react"') == ["one"]
    assert await listed(filter="disabled = true") == ["two"]
    assert await listed(filter='(display_name = "A" OR display_name = "C")') == ["three", "two"]
    assert await listed(filter="create_time > 2020-01-01T00:00:00Z", order_by="display_name") == [
        "three",
        "one",
        "two",
    ]
    assert await listed(order_by="display_name desc") == ["two", "one", "three"]


async def test_pages_of_a_filtered_and_ordered_list_cover_it_once(rig: Rig) -> None:
    for number in range(5):
        await _create(rig, f"a{number}", display_name=f"same {number % 2}")

    seen, token = [], ""
    while True:
        page = await rig.agents.ListAgents(
            _pb.ListAgentsRequest(
                page_size=2, page_token=token, order_by="display_name", filter="disabled = false"
            )
        )
        seen += [(agent.display_name, agent.name) for agent in page.agents]
        assert page.total_size == 5
        token = page.next_page_token
        if not token:
            break

    assert seen == sorted(seen)
    assert len(set(seen)) == 5


async def test_changing_what_behaviour_does_not_follow_from_keeps_the_version(rig: Rig) -> None:
    agent = await _create(rig)
    agent.display_name, agent.labels["team"] = "New", "b"

    updated = await rig.agents.UpdateAgent(_update(agent, "display_name", "labels"))

    assert (updated.version, updated.etag, updated.display_name) == (1, "2", "New")
    assert updated.update_time.ToMicroseconds() > agent.update_time.ToMicroseconds()
    assert updated.create_time == agent.create_time


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("model", {"model": "scripted:"}),
        ("instructions", {"instructions": "Be long."}),
        ("model_settings.temperature", {"model_settings": {"temperature": 1.5}}),
        ("tool_groups", {"tool_groups": ["toolGroups/builtin"]}),
        ("limits.max_iterations", {"limits": {"max_iterations": 3}}),
        ("output_schema_json", {"output_schema_json": '{"type":"object"}'}),
        ("on_unknown_outcome", {"on_unknown_outcome": _Agent.FAIL}),
    ],
)
async def test_changing_behaviour_makes_a_version_and_the_older_one_stays(
    rig: Rig, path: str, fields: dict[str, Any]
) -> None:
    agent = await _create(rig)

    updated = await rig.agents.UpdateAgent(_update(_Agent(name=agent.name, **fields), path))

    assert updated.version == 2
    versions = await rig.agents.ListAgentVersions(_pb.ListAgentVersionsRequest(parent=agent.name))
    assert [version.name for version in versions.agent_versions] == [
        f"{agent.name}/versions/2",
        f"{agent.name}/versions/1",
    ]
    assert versions.total_size == 2
    first = await rig.agents.GetAgentVersion(_pb.GetAgentVersionRequest(name=f"{agent.name}/versions/1"))
    assert first.snapshot.instructions == agent.instructions
    assert first.snapshot.limits == agent.limits
    assert first.snapshot.etag == ""


async def test_an_update_without_a_mask_changes_what_is_set(rig: Rig) -> None:
    await _create(rig, display_name="Old", description="kept")

    updated = await rig.agents.UpdateAgent(
        _pb.UpdateAgentRequest(agent=_Agent(name="agents/helper", display_name="New"))
    )

    assert (updated.display_name, updated.description, updated.model) == ("New", "kept", "demo:react")


async def test_a_star_mask_replaces_everything(rig: Rig) -> None:
    await _create(rig, display_name="Old", labels={"a": "b"}, limits={"max_iterations": 3})

    updated = await rig.agents.UpdateAgent(_update(_Agent(name="agents/helper", model="demo:react"), "*"))

    assert (updated.display_name, updated.instructions, dict(updated.labels)) == ("", "", {})
    assert updated.limits.max_iterations == 25


async def test_a_mask_with_an_unknown_path_is_refused(rig: Rig) -> None:
    agent = await _create(rig)

    for path in (
        "nonsense",
        "limits.nonsense",
        "labels.team",
        "display_name.x",
        "model_settings.temperature.x",
    ):
        failure = await failure_of(rig.agents.UpdateAgent(_update(agent, path)))
        assert failure.fields.keys() == {"update_mask"}, path
    assert (await rig.agents.UpdateAgent(_update(agent, "version", "display_name"))).version == 1


async def test_an_update_that_leaves_no_model_is_refused(rig: Rig) -> None:
    await _create(rig)

    failure = await failure_of(rig.agents.UpdateAgent(_update(_Agent(name="agents/helper"), "model")))

    assert failure.fields == {"agent.model": "is required"}


async def test_an_older_etag_is_refused_and_the_present_one_is_told(rig: Rig) -> None:
    agent = await _create(rig)
    await rig.agents.UpdateAgent(_update(_Agent(name=agent.name, display_name="x"), "display_name"))

    calls = [
        rig.agents.UpdateAgent(_update(agent, "display_name")),
        rig.agents.DeleteAgent(_pb.DeleteAgentRequest(name=agent.name, etag=agent.etag)),
        rig.agents.UndeleteAgent(_pb.UndeleteAgentRequest(name=agent.name, etag=agent.etag)),
        rig.agents.RollbackAgent(_pb.RollbackAgentRequest(name=agent.name, version=1, etag=agent.etag)),
    ]

    for call in calls:
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        assert failure.metadata == {"etag": "2"}


async def test_changes_at_one_time_without_etags_all_take_effect(rig: Rig) -> None:
    await _create(rig)

    await asyncio.gather(
        *(
            rig.agents.UpdateAgent(_update(_Agent(name="agents/helper", **{field: "x"}), field))
            for field in ("display_name", "description", "instructions")
        )
    )

    agent = await rig.agents.GetAgent(_pb.GetAgentRequest(name="agents/helper"))
    assert (agent.display_name, agent.description, agent.instructions) == ("x", "x", "x")
    assert (agent.version, agent.etag) == (2, "4")


async def test_a_rollback_behaves_as_before_and_keeps_what_people_read(rig: Rig) -> None:
    agent = await _create(rig, display_name="One")
    agent.instructions, agent.display_name = "Be long.", "Two"
    await rig.agents.UpdateAgent(_pb.UpdateAgentRequest(agent=agent))

    rolled = await rig.agents.RollbackAgent(_pb.RollbackAgentRequest(name=agent.name, version=1))

    assert (rolled.version, rolled.instructions, rolled.display_name) == (3, "Be brief.", "Two")


async def test_rolling_back_to_a_version_that_is_not_there_is_refused(rig: Rig) -> None:
    await _create(rig)

    failure = await failure_of(
        rig.agents.RollbackAgent(_pb.RollbackAgentRequest(name="agents/helper", version=9))
    )

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert failure.metadata == {"resource": "agents/helper/versions/9"}


async def test_a_deleted_agent_is_shown_only_to_who_asks_and_can_be_brought_back(rig: Rig) -> None:
    agent = await _create(rig)
    deleted = await rig.agents.DeleteAgent(_pb.DeleteAgentRequest(name=agent.name))

    assert deleted.HasField("delete_time")
    assert await rig.agents.GetAgent(_pb.GetAgentRequest(name=agent.name)) == deleted
    listed = await rig.agents.ListAgents(_pb.ListAgentsRequest())
    assert (list(listed.agents), listed.total_size) == ([], 0)
    shown = await rig.agents.ListAgents(_pb.ListAgentsRequest(show_deleted=True))
    assert list(shown.agents) == [deleted]
    for call in (
        rig.agents.DeleteAgent(_pb.DeleteAgentRequest(name=agent.name)),
        rig.agents.UpdateAgent(_update(_Agent(name=agent.name, display_name="x"))),
        rig.agents.RollbackAgent(_pb.RollbackAgentRequest(name=agent.name, version=1)),
    ):
        assert (await failure_of(call)).reason == "RESOURCE_NOT_FOUND"

    restored = await rig.agents.UndeleteAgent(_pb.UndeleteAgentRequest(name=agent.name))

    assert not restored.HasField("delete_time")
    failure = await failure_of(rig.agents.UndeleteAgent(_pb.UndeleteAgentRequest(name=agent.name)))
    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")


async def test_validate_only_checks_everything_and_changes_nothing(rig: Rig) -> None:
    checked = await rig.agents.CreateAgent(
        _pb.CreateAgentRequest(agent=_agent(), agent_id="ghost", validate_only=True, request_id="r")
    )
    assert (checked.name, checked.version) == ("agents/ghost", 1)
    assert (await failure_of(rig.agents.GetAgent(_pb.GetAgentRequest(name="agents/ghost")))).reason == (
        "RESOURCE_NOT_FOUND"
    )
    agent = await _create(rig)
    for faulty in (
        rig.agents.CreateAgent(_pb.CreateAgentRequest(agent=_agent(), agent_id="helper", validate_only=True)),
        rig.agents.CreateAgent(_pb.CreateAgentRequest(agent=_agent(model="no:x"), validate_only=True)),
        rig.agents.UpdateAgent(
            _update(_Agent(name="agents/helper", etag="7"), "display_name", validate_only=True)
        ),
    ):
        await failure_of(faulty)

    would_be = await rig.agents.UpdateAgent(
        _update(_Agent(name=agent.name, instructions="x"), "instructions", validate_only=True)
    )

    assert (would_be.version, would_be.instructions) == (2, "x")
    assert await rig.agents.GetAgent(_pb.GetAgentRequest(name=agent.name)) == agent


async def test_a_repeated_call_gets_the_first_answer_and_does_nothing(rig: Rig) -> None:
    request = _pb.CreateAgentRequest(agent=_agent(), request_id="make-1")
    first = await rig.agents.CreateAgent(request)

    assert await rig.agents.CreateAgent(request) == first
    assert (await rig.agents.ListAgents(_pb.ListAgentsRequest())).total_size == 1

    update = _update(
        _Agent(name=first.name, instructions="x", etag=first.etag), "instructions", request_id="change-1"
    )
    changed = await rig.agents.UpdateAgent(update)
    assert await rig.agents.UpdateAgent(update) == changed

    delete = _pb.DeleteAgentRequest(name=first.name, request_id="delete-1")
    assert await rig.agents.DeleteAgent(delete) == await rig.agents.DeleteAgent(delete)

    undelete = _pb.UndeleteAgentRequest(name=first.name, request_id="undelete-1")
    assert await rig.agents.UndeleteAgent(undelete) == await rig.agents.UndeleteAgent(undelete)

    rollback = _pb.RollbackAgentRequest(name=first.name, version=1, request_id="rollback-1")
    assert await rig.agents.RollbackAgent(rollback) == await rig.agents.RollbackAgent(rollback)


async def test_a_request_id_with_another_request_is_refused(rig: Rig) -> None:
    await rig.agents.CreateAgent(_pb.CreateAgentRequest(agent=_agent(), request_id="r"))

    for other in (
        rig.agents.CreateAgent(_pb.CreateAgentRequest(agent=_agent(display_name="x"), request_id="r")),
        rig.agents.DeleteAgent(_pb.DeleteAgentRequest(name="agents/any", request_id="r")),
    ):
        failure = await failure_of(other)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert failure.metadata == {"request_id": "r"}


async def test_a_refused_call_leaves_its_request_id_free(rig: Rig) -> None:
    await failure_of(
        rig.agents.CreateAgent(_pb.CreateAgentRequest(agent=_agent(model="no:x"), request_id="r"))
    )

    assert await rig.agents.CreateAgent(_pb.CreateAgentRequest(agent=_agent(), request_id="r"))


async def test_a_hundred_repeated_calls_at_once_act_once(rig: Rig) -> None:
    create = _pb.CreateAgentRequest(agent=_agent(), agent_id="one", request_id="r")
    answers = await asyncio.gather(*(rig.agents.CreateAgent(create) for _ in range(100)))
    assert all(answer == answers[0] for answer in answers)

    update = _update(_Agent(name="agents/one", display_name="x", etag="1"), "display_name", request_id="u")
    answers = await asyncio.gather(*(rig.agents.UpdateAgent(update) for _ in range(100)))
    assert {answer.etag for answer in answers} == {"2"}

    delete = _pb.DeleteAgentRequest(name="agents/one", request_id="d")
    answers = await asyncio.gather(*(rig.agents.DeleteAgent(delete) for _ in range(100)))
    assert {answer.etag for answer in answers} == {"3"}


async def _start(rig: Rig, agent: str) -> thread_pb2.Thread:
    script = '{"turns":[{"hang":true}]}'
    request = _threads.CreateThreadRequest(thread={"agent": agent, "input": {"data_json": script}})
    started: thread_pb2.Thread = await rig.threads.CreateThread(request)
    return started


async def _ended(rig: Rig, thread: str) -> thread_pb2.Thread:
    """The thread once it has ended, by its own stream."""
    async for _ in rig.threads.WatchThread(_threads.WatchThreadRequest(name=thread)):
        pass
    found: thread_pb2.Thread = await rig.threads.GetThread(_threads.GetThreadRequest(name=thread))
    return found


async def test_an_agent_with_threads_is_deleted_only_by_force_which_ends_them(rig: Rig) -> None:
    agent = await _create(rig, model="scripted:")
    thread = await _start(rig, agent.name)

    failure = await failure_of(rig.agents.DeleteAgent(_pb.DeleteAgentRequest(name=agent.name)))

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "THREAD_STATE_CONFLICT")
    assert failure.details["PreconditionFailure"].violations[0].subject == thread.name
    assert not (await rig.agents.GetAgent(_pb.GetAgentRequest(name=agent.name))).HasField("delete_time")

    await rig.agents.DeleteAgent(_pb.DeleteAgentRequest(name=agent.name, force=True))

    ended = await _ended(rig, thread.name)
    assert (ended.state, ended.stop_reason) == (thread_pb2.Thread.CANCELLED, thread_pb2.Thread.AGENT_DISABLED)
    failure = await failure_of(_start(rig, agent.name))
    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "AGENT_DISABLED")


async def test_disabling_an_agent_ends_its_threads_and_starts_none(rig: Rig) -> None:
    agent = await _create(rig, model="scripted:")
    other = await _create(rig, "other", model="scripted:")
    threads = [await _start(rig, agent.name) for _ in range(3)]
    kept = await _start(rig, other.name)

    await rig.agents.UpdateAgent(_update(_Agent(name=agent.name, disabled=True), "disabled"))

    for thread in threads:
        assert (await _ended(rig, thread.name)).stop_reason == thread_pb2.Thread.AGENT_DISABLED
    still = await rig.threads.GetThread(_threads.GetThreadRequest(name=kept.name))
    assert still.state in (thread_pb2.Thread.PENDING, thread_pb2.Thread.RUNNING)
    assert (await failure_of(_start(rig, agent.name))).reason == "AGENT_DISABLED"


async def test_another_tenants_agent_looks_like_an_absent_one(tmp_path: Path) -> None:
    async with running(tmp_path / "treadle.db") as rig:
        red, blue = bearer(await make_key(rig, "red")), bearer(await make_key(rig, "blue"))
        create = _pb.CreateAgentRequest(agent=_agent(), agent_id="mine", request_id="r")
        await rig.agents.CreateAgent(create, metadata=red)

        def calls(name: str) -> list[Any]:
            agents = rig.agents
            version = _pb.GetAgentVersionRequest(name=f"{name}/versions/1")
            return [
                agents.GetAgent(_pb.GetAgentRequest(name=name), metadata=blue),
                agents.UpdateAgent(_update(_Agent(name=name), "labels"), metadata=blue),
                agents.DeleteAgent(_pb.DeleteAgentRequest(name=name), metadata=blue),
                agents.UndeleteAgent(_pb.UndeleteAgentRequest(name=name), metadata=blue),
                agents.GetAgentVersion(version, metadata=blue),
                agents.ListAgentVersions(_pb.ListAgentVersionsRequest(parent=name), metadata=blue),
                agents.RollbackAgent(_pb.RollbackAgentRequest(name=name, version=1), metadata=blue),
            ]

        for theirs, absent in zip(calls("agents/mine"), calls("agents/none"), strict=True):
            one, other = await failure_of(theirs), await failure_of(absent)
            assert one.reason == other.reason == "RESOURCE_NOT_FOUND"
            assert one.message == other.message.replace("none", "mine")
        assert (await rig.agents.ListAgents(_pb.ListAgentsRequest(), metadata=blue)).total_size == 0
        created = await rig.agents.CreateAgent(create, metadata=blue)
        assert created.name == "agents/mine"
