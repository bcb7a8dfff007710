"""ForkThread: a thread that shares another's first events and goes on by itself."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, running
from tests.rpc.runs import (
    ADD,
    HOLD,
    HeldTool,
    Thread,
    collected,
    create,
    ended,
    get,
    kinds,
    make_agent,
    pb,
    run,
    scripted,
    sequences,
    taken,
    until_event,
    watch,
)
from tests.stores.kit import execute
from tests.waiting import eventually
from treadle.v1 import agent_service_pb2
from treadle_server.services.file_check import FileCheck
from treadle_server.stores.sqlite.checking import open_inspection
from treadle_server.wire.codec import ProtoCodec

_agents: Any = agent_service_pb2
FIRST = "threads/first"


async def fork(rig: Rig, name: str = FIRST, **fields: Any) -> Any:
    return await rig.threads.ForkThread(pb.ForkThreadRequest(name=name, **fields))


async def forking_fails(rig: Rig, name: str = FIRST, **fields: Any) -> Any:
    return await failure_of(fork(rig, name, **fields))


async def recorded(rig: Rig, *turns: Any, **fields: Any) -> list[Any]:
    """The events of thread `first`, which used a tool and answered."""
    await make_agent(rig, "helper", *(turns or (ADD, {"text": "It is 42."})))
    await run(rig, "first", **fields)
    return await collected(watch(rig, FIRST))


def without_names(events: list[Any]) -> list[bytes]:
    stripped = []
    for event in events:
        copy = type(event)()
        copy.CopyFrom(event)
        copy.ClearField("thread")
        stripped.append(copy.SerializeToString(deterministic=True))
    return stripped


async def test_a_fork_shares_events_and_goes_on_by_itself(rig: Rig) -> None:
    original = await recorded(rig)
    before = await get(rig, FIRST, full=True)

    cut = kinds(original).index("tool_call_started") + 1
    made = await fork(rig, sequence=cut, thread_id="second")
    second = await ended(rig, "threads/second")
    events = await collected(watch(rig, "threads/second"))

    assert (made.name, made.forked_from, made.agent) == ("threads/second", FIRST, "agents/helper")
    assert without_names(events[:cut]) == without_names(original[:cut])
    assert {event.thread for event in events} == {"threads/second"}
    assert sequences(events) == list(range(1, len(events) + 1))
    begun_again = ["thread_forked", "state_changed", "tool_call_started"]
    assert kinds(events)[cut:] == begun_again + kinds(original)[cut:]
    forked = events[cut].thread_forked
    assert (forked.forked_from, forked.forked_sequence) == (FIRST, cut)
    assert forked.spec.agent_version == "agents/helper/versions/1"
    assert (second.state, second.output.text) == (Thread.COMPLETED, "It is 42.")
    assert await get(rig, FIRST, full=True) == before


async def test_a_fork_at_each_event_ends_as_the_original_did(rig: Rig) -> None:
    original = await recorded(rig)

    for sequence in range(2, len(original) + 1):
        made = await fork(rig, sequence=sequence)
        found = await ended(rig, made.name)
        events = await collected(watch(rig, made.name))
        shared = min(sequence, len(original) - 1)
        assert without_names(events[:shared]) == without_names(original[:shared])
        assert events[shared].thread_forked.forked_sequence == shared
        assert (found.state, found.output.text) == (Thread.COMPLETED, "It is 42.")
        assert kinds(events).count("thread_ended") == 1


async def test_a_fork_without_a_sequence_shares_all_but_the_end(rig: Rig) -> None:
    original = await recorded(rig)

    made = await fork(rig, thread={"input": {"text": "Sure?"}})
    await ended(rig, made.name)
    events = await collected(watch(rig, made.name))

    assert events[len(original) - 1].HasField("thread_forked")
    assert events[len(original)].input_received.content.text == "Sure?"
    found = await get(rig, made.name, full=True)
    assert found.input.text == "Go."
    assert [turn.number for turn in found.iterations] == [1, 2, 3]


async def test_a_fork_of_an_answer_without_a_further_input_has_ended_with_it(rig: Rig) -> None:
    await recorded(rig)

    made = await fork(rig)

    assert (made.state, made.output.text) == (Thread.COMPLETED, "It is 42.")
    assert made.usage.total_tokens == 0


async def test_usage_and_cost_of_a_fork_are_its_own(rig: Rig) -> None:
    spent = {"usage": {"input_tokens": 10, "output_tokens": 5}, "cost_micros": 7}
    original = await recorded(rig, {**ADD, **spent}, {"text": "It is 42.", **spent})
    whole = await get(rig, FIRST)

    made = await fork(rig, sequence=kinds(original).index("tool_call_started") + 1)
    found = await ended(rig, made.name)

    assert whole.usage.total_tokens == 30
    assert found.usage.total_tokens == 15
    assert (whole.cost.cost_micros, found.cost.cost_micros) == (14, 7)
    page = await rig.threads.ListThreads(pb.ListThreadsRequest(filter="usage.total_tokens > 15"))
    assert [thread.name for thread in page.threads] == [FIRST]


async def test_what_a_fork_takes_over_and_what_it_is_given(rig: Rig) -> None:
    fields: dict[str, Any] = {
        "tags": ["old"],
        "labels": {"team": "x"},
        "subject": {"type": "ticket", "id": "7"},
        "client_metadata": {"a": 1},
        "trigger": {"type": 2, "triggered_by": "nightly"},
        "session_key": "room",
    }
    await recorded(rig, **fields)

    plain = await ended(rig, (await fork(rig, sequence=2)).name)
    tagged = await ended(rig, (await fork(rig, sequence=2, thread={"tags": ["new"]})).name)

    assert (list(plain.tags), list(tagged.tags)) == (["old"], ["new"])
    assert dict(plain.labels) == {"team": "x"}
    assert (plain.subject.type, plain.subject.id) == ("ticket", "7")
    assert dict(plain.client_metadata) == {"a": 1}
    assert plain.trigger.type == 4
    assert plain.trigger.triggered_by not in ("", "nightly")
    assert (plain.session, plain.session_key) == ("", "")
    page = await rig.threads.ListThreads(pb.ListThreadsRequest(filter="tags:new AND labels.team = x"))
    assert [thread.name for thread in page.threads] == [tagged.name]


async def test_another_version_of_the_agent_goes_on(rig: Rig) -> None:
    await recorded(rig)
    update = {"name": "agents/helper", "model": scripted({"text": "unused"}, {"text": "Otherwise."})}
    mask = {"paths": ["model"]}
    await rig.agents.UpdateAgent(_agents.UpdateAgentRequest(agent=update, update_mask=mask))

    old = await ended(rig, (await fork(rig, sequence=12)).name)
    made = await fork(rig, sequence=12, thread={"agent_version": "agents/helper/versions/2"})
    new = await ended(rig, made.name)

    assert (old.output.text, old.agent_version) == ("It is 42.", "agents/helper/versions/1")
    assert (new.output.text, new.agent_version) == ("Otherwise.", "agents/helper/versions/2")


async def test_another_model_goes_on_with_the_shared_conversation(rig: Rig) -> None:
    await recorded(rig)

    made = await fork(rig, sequence=12, model=scripted({"text": "unused"}, {"text": "Otherwise."}))
    found = await ended(rig, made.name)

    assert found.output.text == "Otherwise."
    assert found.agent_version == "agents/helper/versions/1"
    assert "Otherwise." in found.model_used


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sequence": -1}, "sequence"),
        ({"model": "no-such"}, "model"),
        ({"model": "nobody:x"}, "model"),
        ({"thread_id": "Not an id"}, "thread_id"),
        ({"thread": {"agent_version": "agents/other/versions/1"}}, "thread.agent_version"),
        ({"thread": {"agent": "agents/helper"}}, "thread.agent"),
        ({"thread": {"labels": {"a": "b"}}}, "thread.labels"),
        ({"thread": {"session_key": "room"}}, "thread.session_key"),
        ({"thread": {"trigger": {"type": 1}}}, "thread.trigger"),
        ({"thread": {"input": {}}}, "thread.input"),
        ({"thread": {"tags": [""]}}, "thread.tags[0]"),
        ({"sequence": 1}, "thread.input"),
    ],
)
async def test_a_faulty_field_is_named_and_nothing_is_made(
    rig: Rig, fields: dict[str, Any], field: str
) -> None:
    await recorded(rig)

    failure = await forking_fails(rig, **fields)

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert field in failure.fields
    page = await rig.threads.ListThreads(pb.ListThreadsRequest())
    assert [thread.name for thread in page.threads] == [FIRST]


async def test_a_model_of_a_provider_to_come_is_not_supported(rig: Rig) -> None:
    await recorded(rig)

    failure = await forking_fails(rig, model="anthropic:claude")

    assert (failure.reason, failure.metadata["field"]) == ("NOT_SUPPORTED", "model")


async def test_a_fork_of_the_first_event_alone_begins_with_an_input_of_its_own(rig: Rig) -> None:
    await recorded(rig)

    made = await fork(rig, sequence=1, thread={"input": {"text": "Another."}})

    assert (await ended(rig, made.name)).input.text == "Another."


async def test_the_first_input_of_a_fork_must_fit_the_agents_schema(rig: Rig) -> None:
    schema = '{"type":"object","required":["a"]}'
    await make_agent(rig, "strict", {"text": "Yes."}, input_schema_json=schema)
    await run(rig, "first", "strict", input={"data_json": '{"a":1}'})

    failure = await forking_fails(rig, sequence=1, thread={"input": {"data_json": "{}"}})

    assert failure.reason == "FIELD_INVALID"
    assert "thread.input.data_json" in failure.fields


async def test_a_sequence_beyond_the_log_is_out_of_range(rig: Rig) -> None:
    events = await recorded(rig)

    failure = await forking_fails(rig, sequence=len(events) + 1)

    assert (failure.code, failure.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")
    assert failure.metadata == {"first": "1", "last": str(len(events))}


async def test_a_fork_of_nothing_or_to_a_taken_id_is_refused(rig: Rig) -> None:
    await recorded(rig)

    absent, taken_id = await forking_fails(rig, "threads/none"), await forking_fails(rig, thread_id="first")

    assert (absent.reason, taken_id.reason) == ("RESOURCE_NOT_FOUND", "RESOURCE_EXISTS")


async def test_a_fork_of_a_deleted_thread_is_refused_and_an_older_fork_stays(rig: Rig) -> None:
    await recorded(rig)
    made = await fork(rig, sequence=8, request_id="r1")
    await ended(rig, made.name)
    before = await collected(watch(rig, made.name))
    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name=FIRST))

    failure = await forking_fails(rig)
    again = await fork(rig, sequence=8, request_id="r1")

    assert failure.reason == "RESOURCE_NOT_FOUND"
    assert again.name == made.name
    assert await collected(watch(rig, made.name)) == before


async def test_a_disabled_agents_threads_are_not_forked(rig: Rig) -> None:
    await recorded(rig)
    update = {"name": "agents/helper", "disabled": True}
    await rig.agents.UpdateAgent(
        _agents.UpdateAgentRequest(agent=update, update_mask={"paths": ["disabled"]})
    )

    assert (await forking_fails(rig)).reason == "AGENT_DISABLED"


async def test_the_same_request_id_makes_one_fork(rig: Rig) -> None:
    await recorded(rig)

    made = await asyncio.gather(*(fork(rig, sequence=8, request_id="r1") for _ in range(8)))
    other = await forking_fails(rig, sequence=9, request_id="r1")

    assert len({thread.name for thread in made}) == 1
    assert other.reason == "REQUEST_ID_REUSED"
    page = await rig.threads.ListThreads(pb.ListThreadsRequest())
    assert len(page.threads) == 2


async def test_the_name_of_a_fork_is_told_before_the_answer(rig: Rig) -> None:
    await recorded(rig)

    call = rig.threads.ForkThread(pb.ForkThreadRequest(name=FIRST, thread_id="second"))
    metadata = await call.initial_metadata()
    await call

    assert ("treadle-thread", "threads/second") in [(key, value) for key, value in metadata]


async def test_a_running_thread_is_forked_and_goes_on_untouched(tmp_path: Path) -> None:
    tool = HeldTool()
    async with running(tmp_path / "t.db", make_toolbox=tool) as rig:
        await make_agent(rig, "helper", HOLD, {"text": "After it."})
        await create(rig, "first")
        await until_event(rig, FIRST, "tool_call_started")
        await eventually(lambda: tool.calls == 1)

        made = await fork(rig, thread_id="second")
        second = await ended(rig, made.name)
        events = await collected(watch(rig, made.name))
        still = await get(rig, FIRST)
        tool.opening.set()
        first = await ended(rig, FIRST)

    assert tool.calls == 1, "the fork does not repeat a call at most once"
    (unknown,) = [e.tool_call_completed for e in events if e.HasField("tool_call_completed")]
    assert unknown.status == 8
    assert (second.state, second.output.text) == (Thread.COMPLETED, "After it.")
    assert (still.state, first.state) == (Thread.RUNNING, Thread.COMPLETED)


async def test_a_file_with_forks_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with running(path) as rig:
        original = await recorded(rig, {**ADD, "cost_micros": 7}, {"text": "It is 42."}, tags=["a"])
        for sequence in range(2, len(original), 3):
            await ended(rig, (await fork(rig, sequence=sequence)).name)
        await fork(rig, thread={"input": {"text": "Sure?"}, "tags": ["b"]})
    inspection = open_inspection(path)

    problems = list(FileCheck(inspection, ProtoCodec()).problems())

    inspection.close()
    assert problems == []


async def test_a_fork_shares_what_is_before_damage_and_refuses_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with running(path) as rig:
        await recorded(rig)
    execute(path, "UPDATE events SET body = x'00' WHERE sequence = 9")
    async with running(path) as rig:
        failure = await forking_fails(rig, sequence=9)
        made = await ended(rig, (await fork(rig, sequence=8)).name)

    assert (failure.code, failure.reason) == (grpc.StatusCode.DATA_LOSS, "RECORD_CORRUPT")
    assert failure.metadata == {"resource": FIRST, "sequence": "9"}
    assert made.state == Thread.COMPLETED


async def test_all_events_of_a_fork_come_to_who_watches_the_tenant(rig: Rig) -> None:
    await recorded(rig)
    stream = rig.threads.WatchThreads(pb.WatchThreadsRequest())
    await stream.read()

    made = await fork(rig, sequence=8)
    events = await taken(stream, lambda events: "thread_ended" in kinds(events))

    mine = [event for event in events if event.sequence]
    assert mine == await collected(watch(rig, made.name))


async def test_a_fork_of_a_fork_names_what_it_was_made_of(rig: Rig) -> None:
    await recorded(rig)
    once = await ended(rig, (await fork(rig, sequence=8)).name)

    twice = await ended(rig, (await fork(rig, once.name, thread={"input": {"text": "Sure?"}})).name)

    assert (once.forked_from, twice.forked_from) == (FIRST, once.name)
    events = await collected(watch(rig, twice.name))
    assert kinds(events).count("thread_forked") == 2
