"""Access by object: what threads and sessions are about, and which keys reach them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, bearer, make_key, running
from tests.rpc.runs import DEADLINE_SECONDS, HANG, Thread, create, get, make_agent, pb, run, thread_of
from treadle.v1 import agent_service_pb2, session_service_pb2

rpc: Any = session_service_pb2
agents: Any = agent_service_pb2
MINE, THEIRS = "account/17", "account/18"


@dataclass(slots=True)
class Scene:
    """A tenant with a key for everything, one for an account and one for all accounts."""

    rig: Rig
    all: Any
    one: Any
    any_account: Any


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Threads about two accounts and about nothing, each in a session of its own."""
    db = tmp_path / "t.db"
    async with running(db) as rig:
        keys = [
            await make_key(rig, "acme", object_patterns=patterns)
            for patterns in ([], [MINE], ["account/*", "order/1"])
        ]
    async with running(db, require_keys=True) as rig:
        whole, one, any_account = map(bearer, keys)
        await make_agent(rig, metadata=whole)
        await make_agent(rig, "hanging", HANG, metadata=whole)
        for name, parent in (("mine", MINE), ("theirs", THEIRS), ("nobodys", "")):
            fields = {"parent_object": parent} if parent else {}
            await run(rig, name, session_key=name, metadata=whole, **fields)
        yield Scene(rig, whole, one, any_account)


async def test_a_key_reaches_only_threads_about_its_objects(scene: Scene) -> None:
    rig = scene.rig

    async def reached(metadata: Any) -> list[str]:
        names = ("mine", "theirs", "nobodys")
        asked = [
            rig.threads.GetThread(pb.GetThreadRequest(name=f"threads/{name}"), metadata=metadata)
            for name in names
        ]
        codes = [await call.code() for call in asked]
        assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED}
        return [name for name, code in zip(names, codes, strict=True) if code is grpc.StatusCode.OK]

    assert await reached(scene.all) == ["mine", "theirs", "nobodys"]
    assert await reached(scene.one) == ["mine"]
    assert await reached(scene.any_account) == ["mine", "theirs"]


async def test_what_a_key_does_not_reach_is_refused_by_its_object(scene: Scene) -> None:
    rig, name = scene.rig, "threads/theirs"
    calls = [
        rig.threads.GetThread(pb.GetThreadRequest(name=name), metadata=scene.one),
        rig.threads.UpdateThread(
            pb.UpdateThreadRequest(thread={"name": name, "tags": ["x"]}), metadata=scene.one
        ),
        rig.threads.DeleteThread(pb.DeleteThreadRequest(name=name), metadata=scene.one),
        rig.threads.CancelThread(pb.CancelThreadRequest(name=name), metadata=scene.one),
        rig.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent=name), metadata=scene.one),
        rig.threads.ListIterations(pb.ListIterationsRequest(parent=name), metadata=scene.one),
        rig.threads.WatchThread(pb.WatchThreadRequest(name=name), metadata=scene.one).read(),
        rig.threads.PauseThread(pb.PauseThreadRequest(name=name), metadata=scene.one),
        rig.threads.ForkThread(pb.ForkThreadRequest(name=name, sequence=1), metadata=scene.one),
        rig.threads.RetryThread(pb.RetryThreadRequest(name=name), metadata=scene.one),
        rig.threads.SendThreadInput(
            pb.SendThreadInputRequest(name=name, input={"text": "x"}), metadata=scene.one
        ),
        rig.threads.CreateThread(
            pb.CreateThreadRequest(thread=thread_of(parent_object=THEIRS)), metadata=scene.one
        ),
        rig.threads.CreateThread(
            pb.CreateThreadRequest(thread=thread_of(session_key="theirs")), metadata=scene.one
        ),
        rig.sessions.LookupSession(rpc.LookupSessionRequest(session_key="theirs"), metadata=scene.one),
    ]

    failures = [await failure_of(call) for call in calls]

    told = {(each.code, each.reason, each.metadata.get("object_ids")) for each in failures}
    assert told == {(grpc.StatusCode.PERMISSION_DENIED, "PARENT_FORBIDDEN", THEIRS)}


async def test_a_key_for_objects_makes_no_threads_about_none(scene: Scene) -> None:
    requests = [thread_of(), thread_of(session_key="nobodys"), thread_of(session_key="new")]

    failures = [
        await failure_of(
            scene.rig.threads.CreateThread(pb.CreateThreadRequest(thread=thread), metadata=scene.one)
        )
        for thread in requests
    ]

    assert {(each.reason, each.metadata["object_ids"]) for each in failures} == {("PARENT_FORBIDDEN", "")}
    made = await run(scene.rig, parent_object=MINE, session_key="new", metadata=scene.one)
    assert made.parent_object == MINE


async def test_lists_and_streams_leave_out_what_a_key_does_not_reach(scene: Scene) -> None:
    rig = scene.rig

    async def listed(metadata: Any, **fields: Any) -> list[str]:
        page = await rig.threads.ListThreads(pb.ListThreadsRequest(**fields), metadata=metadata)
        return [thread.name.removeprefix("threads/") for thread in page.threads]

    async def sessions(metadata: Any) -> list[str]:
        page = await rig.sessions.ListSessions(rpc.ListSessionsRequest(page_size=1), metadata=metadata)
        found = [each.session_key for each in page.sessions]
        while page.next_page_token:
            request = rpc.ListSessionsRequest(page_size=1, page_token=page.next_page_token)
            page = await rig.sessions.ListSessions(request, metadata=metadata)
            found += [each.session_key for each in page.sessions]
        return found

    assert await listed(scene.all) == ["nobodys", "theirs", "mine"]
    assert await listed(scene.one) == await listed(scene.one, filter="state = COMPLETED") == ["mine"]
    assert await listed(scene.any_account) == ["theirs", "mine"]
    assert await sessions(scene.all) == ["nobodys", "theirs", "mine"]
    assert await sessions(scene.one) == ["mine"]
    assert await sessions(scene.any_account) == ["theirs", "mine"]

    stream = rig.threads.WatchThreads(
        pb.WatchThreadsRequest(event_types=["thread_created"]), metadata=scene.one
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        await stream.read()
        await run(rig, "t1", parent_object=THEIRS, metadata=scene.all)
        await run(rig, "t2", parent_object=MINE, metadata=scene.all)
        answer = await stream.read()
    stream.cancel()
    assert [event.thread for event in answer.events] == ["threads/t2"]


async def test_a_session_keeps_the_object_that_it_began_with(scene: Scene) -> None:
    rig = scene.rig
    again = await run(rig, session_key="mine", metadata=scene.all)

    for key, parent in (("mine", THEIRS), ("nobodys", MINE)):
        thread = thread_of(session_key=key, parent_object=parent)
        failure = await failure_of(
            rig.threads.CreateThread(pb.CreateThreadRequest(thread=thread), metadata=scene.all)
        )
        assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PARENT_MISMATCH")
        assert failure.metadata["session"].startswith("sessions/")
        assert failure.metadata["parent_object"] == (MINE if key == "mine" else "")
    assert again.parent_object == MINE


async def test_threads_and_events_say_what_they_are_about(rig: Rig) -> None:
    await make_agent(rig)

    thread = await run(rig, "t1", parent_object="order/4711")

    assert thread.parent_object == "order/4711"
    events = await rig.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent=thread.name))
    assert events.events[0].thread_created.parent_object == "order/4711"
    assert (await get(rig, thread.name)).parent_object == "order/4711"


@pytest.mark.parametrize(
    "value", ["account", "account/", "/17", "account/1 7", "account/*", "a/\n", "x" * 300]
)
async def test_an_object_must_be_a_type_and_an_id(rig: Rig, value: str) -> None:
    await make_agent(rig)

    failure = await failure_of(create(rig, parent_object=value))

    assert failure.reason == "FIELD_INVALID"


@pytest.mark.parametrize(
    "patterns", [["account"], ["*"], ["account/1*"], ["*/17"], [f"a/{n}" for n in range(65)]]
)
async def test_a_pattern_is_an_object_or_all_of_a_type(rig: Rig, patterns: list[str]) -> None:
    failure = await failure_of(make_key(rig, "acme", object_patterns=patterns))

    assert failure.reason == "FIELD_INVALID"


async def test_a_key_shows_its_patterns_and_an_admin_has_none(rig: Rig) -> None:
    key = await make_key(rig, "acme", object_patterns=["account/*", MINE])

    assert list(key.object_patterns) == ["account/*", MINE]
    failure = await failure_of(make_key(rig, "acme", object_patterns=["account/*"], admin=True))
    assert failure.reason == "FIELD_INVALID"


async def test_a_key_for_some_objects_does_not_end_the_threads_of_an_agent(scene: Scene) -> None:
    rig = scene.rig
    thread = await create(rig, "running", agent="hanging", parent_object=THEIRS, metadata=scene.all)
    agent = {"name": "agents/hanging", "disabled": True, "display_name": "New"}

    def changing(*paths: str) -> Any:
        return agents.UpdateAgentRequest(agent=agent, update_mask={"paths": paths})

    for call in (
        rig.agents.DeleteAgent(
            agents.DeleteAgentRequest(name="agents/hanging", force=True), metadata=scene.one
        ),
        rig.agents.UpdateAgent(changing("disabled"), metadata=scene.one),
    ):
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PARENT_FORBIDDEN")
    await rig.agents.UpdateAgent(changing("display_name"), metadata=scene.one)

    found = await rig.threads.GetThread(pb.GetThreadRequest(name=thread.name), metadata=scene.all)
    assert found.state in (Thread.PENDING, Thread.RUNNING)
    await rig.agents.UpdateAgent(changing("disabled"), metadata=scene.all)
