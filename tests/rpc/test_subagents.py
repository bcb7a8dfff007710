"""Agents that call agents, through the whole server."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, running
from tests.rpc.runs import (
    HANG,
    Event,
    HeldTool,
    Thread,
    collected,
    create,
    create_request,
    ended,
    get,
    kinds,
    make_agent,
    pb,
    run,
    taken,
    until_event,
    watch,
)
from tests.waiting import eventually
from treadle.v1 import agent_pb2, agent_service_pb2

Agent = agent_pb2.Agent

ANSWER: dict[str, Any] = {"text": "All done."}


def calling(*agents: str, **arguments: Any) -> dict[str, Any]:
    """A turn that calls these agents."""
    given = arguments or {"input": "Do your part."}
    return {"text": "I ask.", "calls": [{"name": name, "arguments": given} for name in agents]}


async def make_pair(rig: Rig, *turns: Any, **boss: Any) -> None:
    """An expert that plays these turns, and a boss that calls it once."""
    await make_agent(rig, "expert", *turns)
    await make_agent(rig, "boss", calling("expert"), ANSWER, subagents=["agents/expert"], **boss)


async def child_of(rig: Rig, parent: str) -> Any:
    """The first child of a thread, once that is recorded."""
    events = await taken(watch(rig, parent), lambda seen: "child_thread_started" in kinds(seen))
    (started,) = (event.child_thread_started for event in events if event.HasField("child_thread_started"))
    return await get(rig, started.child_thread)


def of(events: Sequence[Event], thread: str) -> list[Event]:
    return [event for event in events if event.thread == thread and event.sequence]


async def test_an_agent_calls_another_and_goes_on_with_its_answer(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_pair(rig, {"text": "It is 42."})

        thread = await run(rig, "t", agent="boss", client_metadata={"case": "7"})
        events = await collected(watch(rig, thread.name))

        assert (thread.state, thread.output.text) == (Thread.COMPLETED, "All done.")
        started = next(
            event.child_thread_started for event in events if event.HasField("child_thread_started")
        )
        over = next(event.child_thread_ended for event in events if event.HasField("child_thread_ended"))
        child = await get(rig, started.child_thread)
        done = next(event.tool_call_completed for event in events if event.HasField("tool_call_completed"))
        assert (done.observation, over.output.text) == ("It is 42.", "It is 42.")
        assert (over.child_thread, over.state) == (child.name, Thread.COMPLETED)
        assert (child.parent_thread, child.agent) == ("threads/t", "agents/expert")
        assert child.trigger.triggered_by == "threads/t"
        assert dict(child.client_metadata) == {"case": "7"}
        assert child.input.text == "Do your part."
        created = (await collected(watch(rig, child.name)))[0].thread_created
        assert (created.parent_call.tool_call_id, created.parent_call.depth) == ("call-1-1", 1)


async def test_several_children_work_at_the_same_time(tmp_path: Path) -> None:
    held = HeldTool()
    hold = {"text": "I hold.", "calls": [{"name": "hold"}]}
    async with running(tmp_path / "t.db", make_toolbox=held) as rig:
        await make_agent(rig, "expert", hold, {"text": "It is 42."})
        turn = calling("expert", "expert", "expert")
        await make_agent(rig, "boss", turn, ANSWER, subagents=["agents/expert"])

        thread = await create(rig, "t", agent="boss")
        await eventually(lambda: held.calls == 3)
        waiting = await get(rig, thread.name)
        held.opening.set()
        over = await ended(rig, thread.name)

        assert waiting.state == Thread.RUNNING
        assert [entry.kind for entry in waiting.waiting_for] == [4, 4, 4]  # CHILDREN
        assert len({entry.resource for entry in waiting.waiting_for}) == 3
        assert over.state == Thread.COMPLETED


async def test_parents_that_wait_leave_room_for_their_children(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", running_threads_max=1, tenant_running_threads_max=1) as rig:
        limits = {"max_concurrent_threads": 1}
        await make_agent(rig, "expert", {"text": "It is 42."}, limits=limits)
        await make_agent(
            rig, "boss", calling("expert", "expert"), ANSWER, subagents=["agents/expert"], limits=limits
        )

        made = [await create(rig, agent="boss") for _ in range(4)]
        over = [await ended(rig, thread.name) for thread in made]

        assert [thread.state for thread in over] == [Thread.COMPLETED] * 4


async def test_a_parent_that_waits_is_not_counted_as_running(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_pair(rig, HANG)
        thread = await create(rig, agent="boss")
        await child_of(rig, thread.name)

        await eventually(lambda: rig.server._engine.running_count == 1)  # the child alone


async def test_an_agent_with_a_schema_is_called_by_it(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig, "expert", {"text": "It is 42."}, input_schema_json=json.dumps(schema))
        turns = (calling("expert", n="x"), calling("expert", n=6), ANSWER)
        await make_agent(rig, "boss", *turns, subagents=["agents/expert"])

        thread = await run(rig, agent="boss")
        events = await collected(watch(rig, thread.name))

        statuses = [
            event.tool_call_completed.status for event in events if event.HasField("tool_call_completed")
        ]
        child = await child_of(rig, thread.name)
        assert statuses == [4, 1]  # INVALID, SUCCEEDED
        assert child.input.data_json == '{"n":6}'


async def test_the_call_of_an_agent_that_was_disabled_meanwhile_fails(tmp_path: Path) -> None:
    held = HeldTool()
    hold = {"text": "I hold.", "calls": [{"name": "hold"}]}
    async with running(tmp_path / "t.db", make_toolbox=held) as rig:
        await make_agent(rig, "expert")
        await make_agent(rig, "boss", hold, calling("expert"), ANSWER, subagents=["agents/expert"])
        thread = await create(rig, agent="boss")
        await eventually(lambda: held.calls == 1)

        await rig.agents.UpdateAgent(
            agent_service_pb2.UpdateAgentRequest(agent=Agent(name="agents/expert", disabled=True))
        )
        held.opening.set()
        over = await ended(rig, thread.name)
        events = await collected(watch(rig, thread.name))

        last = [event.tool_call_completed for event in events if event.HasField("tool_call_completed")][-1]
        assert over.state == Thread.COMPLETED
        assert (last.status, last.observation) == (2, "agents/expert is disabled")


@pytest.mark.parametrize(
    ("subagents", "problem"),
    [
        (["agents/expert", "agents/nobody"], "agents/nobody does not exist"),
        (["agents/calculator"], "calculator is the name of a tool already"),
    ],
)
async def test_an_agent_that_cannot_be_called_is_refused(
    tmp_path: Path, subagents: list[str], problem: str
) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig, "expert")
        await make_agent(rig, "calculator")

        failure = await failure_of(make_agent(rig, "boss", subagents=subagents))

        assert failure.reason == "FIELD_INVALID"
        assert failure.fields == {f"agent.subagents[{len(subagents) - 1}]": problem}


async def test_an_agent_may_call_itself_as_deep_as_its_limit(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        own: dict[str, Any] = {"subagents": ["agents/loop"], "limits": {"max_depth": 2}}
        await make_agent(rig, "loop", calling("loop"), ANSWER, **own)

        thread = await run(rig, "t", agent="loop")
        listed = await rig.threads.ListThreads(pb.ListThreadsRequest())

        assert thread.state == Thread.COMPLETED
        assert len(listed.threads) == 3
        deepest = listed.threads[0]
        events = await collected(watch(rig, deepest.name))
        (refused,) = (event.tool_call_completed for event in events if event.HasField("tool_call_completed"))
        assert refused.status == 4  # INVALID
        assert "at most 2 deep" in refused.observation


async def test_cancel_goes_down_the_tree_and_waits_for_it(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig, "worker", HANG)
        await make_agent(rig, "expert", calling("worker"), ANSWER, subagents=["agents/worker"])
        await make_agent(rig, "boss", calling("expert"), ANSWER, subagents=["agents/expert"])
        thread = await create(rig, agent="boss")
        child = await child_of(rig, thread.name)
        grandchild = await child_of(rig, child.name)
        await until_event(rig, grandchild.name, "model_call_started")

        over = await rig.threads.CancelThread(pb.CancelThreadRequest(name=thread.name))

        assert (over.state, over.stop_reason) == (Thread.CANCELLED, Thread.CANCELLED_BY_CALLER)
        for name in (child.name, grandchild.name):
            found = await get(rig, name)
            assert (found.state, found.stop_reason) == (Thread.CANCELLED, Thread.PARENT_ENDED)
        events = await collected(watch(rig, thread.name))
        assert "child_thread_ended" in kinds(events)


async def test_a_child_that_is_cancelled_answers_its_parent(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_pair(rig, HANG)
        thread = await create(rig, agent="boss")
        child = await child_of(rig, thread.name)

        await rig.threads.CancelThread(pb.CancelThreadRequest(name=child.name))
        over = await ended(rig, thread.name)

        events = await collected(watch(rig, thread.name))
        (done,) = (event.tool_call_completed for event in events if event.HasField("tool_call_completed"))
        assert over.state == Thread.COMPLETED
        assert done.status == 6  # CANCELLED
        assert done.observation.startswith("The agent ended CANCELLED (CANCELLED_BY_CALLER)")


async def test_children_of_a_thread_whose_time_is_over_are_stopped(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_pair(rig, HANG, limits={"timeout": {"nanos": 300_000_000}})

        thread = await run(rig, agent="boss")
        child = await ended(rig, (await child_of(rig, thread.name)).name)

        assert (thread.state, child.state) == (Thread.TIMED_OUT, Thread.CANCELLED)
        assert child.stop_reason == Thread.PARENT_ENDED
        assert not thread.tree_cost.known


async def test_threads_are_found_by_their_parent(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_pair(rig, {"text": "It is 42."})
        await run(rig, "first", agent="boss")
        await run(rig, "second", agent="boss")

        first = (await child_of(rig, "threads/first")).name
        second = (await child_of(rig, "threads/second")).name

        assert await _listed(rig, 'parent_thread = "threads/first"') == [first]
        both = 'parent_thread = "threads/first" OR parent_thread = "threads/second"'
        assert sorted(await _listed(rig, both)) == sorted([first, second])
        assert await _listed(rig, 'parent_thread = "threads/nobody"') == []
        assert await _listed(rig, f'parent_thread = "{first}" AND state = COMPLETED') == []


async def _listed(rig: Rig, filter_text: str) -> list[str]:
    listed = await rig.threads.ListThreads(pb.ListThreadsRequest(filter=filter_text))
    return [thread.name for thread in listed.threads]


# Streams of trees


async def test_a_tree_is_streamed_to_the_end_of_its_last_thread(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig, "worker", {"text": "Dug."})
        await make_agent(rig, "expert", calling("worker"), ANSWER, subagents=["agents/worker"])
        await make_agent(rig, "boss", calling("expert"), ANSWER, subagents=["agents/expert"])
        await run(rig, "other", agent="worker")

        request = pb.ExecuteAgentStreamRequest(
            thread=create_request("boss").thread, thread_id="t", include_children=True
        )
        live = await collected(rig.threads.ExecuteAgentStream(request))
        again = await collected(watch(rig, "threads/t", include_children=True))
        child = await child_of(rig, "threads/t")
        below = await collected(watch(rig, child.name, include_children=True))

        threads = {event.thread for event in live if event.sequence}
        assert len(threads) == 3
        for name in threads:
            alone = await collected(watch(rig, name))
            assert of(live, name) == of(again, name) == alone
        assert {event.thread for event in below if event.sequence} == threads - {"threads/t"}


async def test_a_stream_of_a_tree_goes_on_after_any_cursor(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_pair(rig, {"text": "It is 42."})
        await run(rig, "t", agent="boss")
        whole, cursors = await _by_cursor(rig, "threads/t", "")

        for place, cursor in enumerate(cursors):
            rest, _ = await _by_cursor(rig, "threads/t", cursor)
            assert [event for part in whole[place + 1 :] for event in part] == [
                event for part in rest for event in part
            ]


async def _by_cursor(rig: Rig, name: str, after: str) -> tuple[list[list[Event]], list[str]]:
    """The stored events of each response, and its cursor."""
    parts, cursors = [], []
    async with asyncio.timeout(20):
        async for response in watch(rig, name, include_children=True, after_cursor=after):
            parts.append([event for event in response.events if event.sequence])
            cursors.append(response.cursor)
    return parts, cursors


async def test_a_stream_of_a_tree_outlives_its_first_thread(tmp_path: Path) -> None:
    held = HeldTool(stubborn=True)
    hold = {"text": "I hold.", "calls": [{"name": "hold"}]}
    async with running(tmp_path / "t.db", make_toolbox=held) as rig:
        await make_agent(rig, "expert", hold, ANSWER)
        await make_agent(rig, "boss", calling("expert"), ANSWER, subagents=["agents/expert"])
        thread = await create(rig, "t", agent="boss")
        await eventually(lambda: held.calls == 1)
        stream = asyncio.create_task(collected(watch(rig, thread.name, include_children=True)))

        cancel = pb.CancelThreadRequest(name=thread.name, grace={"nanos": 200_000_000})
        await rig.threads.CancelThread(cancel)
        held.opening.set()
        events = await stream

        child = await child_of(rig, thread.name)
        assert kinds(of(events, thread.name))[-1] == "thread_ended"
        assert kinds(of(events, child.name))[-1] == "thread_ended"


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"include_children": True, "after_sequence": 1}, "FIELD_INVALID", "after_sequence"),
        ({"include_children": True, "include_deltas": True}, "NOT_SUPPORTED", "include_deltas"),
        ({"after_cursor": "x"}, "FIELD_INVALID", "after_cursor"),
        ({"include_children": True, "after_cursor": "x"}, "FIELD_INVALID", "after_cursor"),
    ],
)
async def test_places_in_a_tree_are_cursors(
    tmp_path: Path, fields: dict[str, Any], reason: str, field: str
) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig)
        await run(rig, "t")

        failure = await failure_of(
            collected(watch(rig, "threads/t", fields.pop("after_sequence", 0), **fields))
        )

        assert failure.reason == reason
        assert field in failure.fields


async def test_a_cursor_of_one_tree_is_none_of_another(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await make_agent(rig)
        await run(rig, "t")
        await run(rig, "u")
        _, cursors = await _by_cursor(rig, "threads/t", "")

        failure = await failure_of(_by_cursor(rig, "threads/u", cursors[-1]))

        assert failure.fields.keys() == {"after_cursor"}


async def test_a_tree_that_was_interrupted_goes_on_on_the_next_server(tmp_path: Path) -> None:
    held = HeldTool()
    hold = {"text": "I hold.", "calls": [{"name": "hold"}]}
    async with running(tmp_path / "t.db", make_toolbox=held, drain_seconds=0) as rig:
        await make_agent(rig, "expert", hold, {"text": "It is 42."})
        await make_agent(rig, "boss", calling("expert"), ANSWER, subagents=["agents/expert"])
        await create(rig, "t", agent="boss")
        await eventually(lambda: held.calls == 1)

    async with running(tmp_path / "t.db", make_toolbox=held) as rig:
        held.opening.set()
        over = await ended(rig, "threads/t")

        assert over.state == Thread.COMPLETED
