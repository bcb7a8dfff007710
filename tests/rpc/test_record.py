"""What the record of a thread says besides its answer: the agent's list of tasks, and how it went."""

from pathlib import Path
from typing import Any

from google.protobuf import json_format

from tests.rpc.rig import Rig, running
from tests.rpc.runs import ADD, DONE, collected, create, get, kinds, make_agent, pb, run, taken, watch


def keeping(*tasks: tuple[str, str]) -> dict[str, Any]:
    """A turn that keeps a list."""
    items = [{"title": title, "state": state} for title, state in tasks]
    return {"calls": [{"name": "update_tasks", "arguments": {"tasks": items}}]}


FIRST = keeping(("Add", "IN_PROGRESS"), ("Tell", "PENDING"))
LAST = keeping(("Add", "DONE"), ("Tell", "IN_PROGRESS"))


def tasks(thread: Any) -> list[tuple[str, str]]:
    names = type(thread.tasks[0]).State if thread.tasks else None
    return [(task.title, names.Name(task.state)) for task in thread.tasks] if names else []


def runtime(thread: Any) -> Any:
    return json_format.MessageToDict(thread.extra_metadata).get("runtime")


async def test_a_thread_shows_the_list_that_its_agent_keeps(rig: Rig) -> None:
    await make_agent(rig, "helper", FIRST, ADD, LAST, DONE)

    thread = await run(rig)
    events = await collected(watch(rig, thread.name))

    assert tasks(thread) == [("Add", "DONE"), ("Tell", "IN_PROGRESS")]
    assert kinds(events).count("tasks_updated") == 2
    (first, _) = [event.tasks_updated for event in events if event.WhichOneof("payload") == "tasks_updated"]
    assert tasks(first) == [("Add", "IN_PROGRESS"), ("Tell", "PENDING")]


async def test_a_list_that_does_not_fit_is_told_to_the_model_and_changes_nothing(rig: Rig) -> None:
    await make_agent(rig, "helper", keeping(("", "DONE")), DONE)

    thread = await run(rig)

    assert (thread.success, tasks(thread)) == (True, [])
    assert runtime(thread)["tool_calls"] == {"INVALID": 1}


async def test_the_list_and_the_counts_are_the_same_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "treadle.db") as rig:
        await make_agent(rig, "helper", FIRST, DONE)
        before = await run(rig)

    async with running(tmp_path / "treadle.db") as rig:
        after = await get(rig, before.name)

    assert tasks(after) == [("Add", "IN_PROGRESS"), ("Tell", "PENDING")]
    assert after.extra_metadata == before.extra_metadata


async def test_extra_metadata_counts_how_it_went(rig: Rig) -> None:
    flaky = {"error": {"code": "UNAVAILABLE", "message": "busy", "retryable": True, "attempts": 1}, **ADD}
    await make_agent(rig, "helper", flaky, {"calls": [{"name": "recall", "arguments": {"key": "x"}}]}, DONE)

    thread = await run(rig)

    assert runtime(thread) == {
        "model_calls": 4,
        "model_calls_failed": 1,
        "tool_calls": {"SUCCEEDED": 1, "FAILED": 1},
        "inputs_received": 1,
    }


async def test_a_thread_that_has_not_begun_says_nothing_of_how_it_went(rig: Rig) -> None:
    await make_agent(rig, "helper", {"hang": True}, limits={"max_concurrent_threads": 1})
    for _ in range(2):
        waiting = await create(rig)

    assert not (await get(rig, waiting.name)).HasField("extra_metadata")


async def test_threads_are_found_by_their_object(rig: Rig) -> None:
    await make_agent(rig)
    for thread_id, parent_object in (("one", "account/17"), ("two", "account/18"), ("none", "")):
        await run(rig, thread_id, **({"parent_object": parent_object} if parent_object else {}))

    async def listed(text: str) -> list[str]:
        page = await rig.threads.ListThreads(pb.ListThreadsRequest(filter=text))
        return [thread.name.removeprefix("threads/") for thread in page.threads]

    assert await listed("parent_object = account/17") == ["one"]
    assert await listed("parent_object = account/17 OR parent_object = account/18") == ["two", "one"]
    assert await listed("parent_object != account/17") == ["none", "two"]


async def test_a_stream_is_narrowed_by_version_object_and_who_triggered(rig: Rig) -> None:
    await make_agent(rig)
    wanted = {"parent_object": "account/17", "trigger": {"triggered_by": "ann"}}
    text = "agent_version = agents/helper/versions/1 AND parent_object = account/17"
    request = pb.WatchThreadsRequest(filter=f"{text} AND trigger.triggered_by = ann")
    stream = rig.threads.WatchThreads(request)
    await stream.read()  # it begins with now

    await run(rig, "another-object", **{**wanted, "parent_object": "account/18"})
    await run(rig, "another-trigger", **{**wanted, "trigger": {"triggered_by": "bob"}})
    await run(rig, "wanted", **wanted)
    events = await taken(stream, lambda events: "thread_ended" in kinds(events))

    seen = {event.thread for event in events if event.sequence}
    assert seen == {"threads/wanted"}
