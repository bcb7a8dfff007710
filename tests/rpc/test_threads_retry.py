"""RetryThread: a thread like one that has ended."""

from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig
from tests.rpc.runs import (
    ADD,
    HANG,
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
    until_event,
    watch,
)
from treadle.v1 import agent_service_pb2

_agents: Any = agent_service_pb2
FIRST = "threads/first"
FAILING: dict[str, Any] = {"error": {"code": "INVALID_ARGUMENT", "message": "no"}}


async def retry(rig: Rig, name: str = FIRST, **fields: Any) -> Any:
    return await rig.threads.RetryThread(pb.RetryThreadRequest(name=name, **fields))


async def retrying_fails(rig: Rig, name: str = FIRST, **fields: Any) -> Any:
    return await failure_of(retry(rig, name, **fields))


async def test_a_retry_has_the_input_and_settings_of_the_thread_and_a_log_of_its_own(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, {"text": "It is 42."})
    fields: dict[str, Any] = {
        "input": {"text": "Go.", "data_json": '{"a":1}'},
        "tags": ["t"],
        "labels": {"team": "x"},
        "subject": {"type": "ticket", "id": "7"},
        "client_metadata": {"a": 1},
        "session_key": "room",
    }
    first = await run(rig, "first", **fields)

    made = await retry(rig, thread_id="second")
    second = await ended(rig, made.name)

    assert (made.name, made.retried_from, made.forked_from) == ("threads/second", FIRST, "")
    for field in ("agent", "agent_version", "input", "tags", "labels", "subject", "client_metadata"):
        assert getattr(second, field) == getattr(first, field), field
    assert (second.session, second.session_key) == (first.session, "room")
    assert (second.state, second.output.text) == (Thread.COMPLETED, "It is 42.")
    events = await collected(watch(rig, made.name))
    assert events[0].thread_created.retried_from == FIRST
    own = [kind for kind in kinds(events) if kind != "history_recalled"]  # of the session, with the first try
    assert own == kinds(await collected(watch(rig, FIRST)))


async def test_a_retry_runs_the_version_that_the_thread_ran(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "Old."})
    await run(rig, "first")
    update = {"name": "agents/helper", "model": scripted({"text": "New."})}
    await rig.agents.UpdateAgent(_agents.UpdateAgentRequest(agent=update, update_mask={"paths": ["model"]}))

    again = await ended(rig, (await retry(rig)).name)

    assert (again.agent_version, again.output.text) == ("agents/helper/versions/1", "Old.")


async def test_a_thread_that_failed_is_retried(rig: Rig) -> None:
    await make_agent(rig, "helper", FAILING)
    failed = await run(rig, "first")

    again = await ended(rig, (await retry(rig)).name)

    assert (failed.state, again.state) == (Thread.FAILED, Thread.FAILED)
    assert again.iteration_count == 1


async def test_a_thread_that_has_not_ended_is_not_retried(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    await create(rig, "first")
    await until_event(rig, FIRST, "model_call_started")

    failure = await retrying_fails(rig)

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "THREAD_STATE_CONFLICT")
    assert failure.message.startswith("retrying is not possible while the thread is RUNNING; possible are ")
    assert failure.metadata["current_state"] == "RUNNING"
    assert "FORK" in failure.metadata["allowed"].split(",")
    assert "RETRY" not in failure.metadata["allowed"].split(",")


async def test_a_retry_of_a_fork_shares_what_it_shared_and_says_the_same(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, {"text": "It is 42."})
    await run(rig, "first")
    model = scripted({"text": "unused"}, {"text": "unused"}, {"text": "Sure."})
    forked = await rig.threads.ForkThread(
        pb.ForkThreadRequest(name=FIRST, thread={"input": {"text": "Sure?"}, "tags": ["x"]}, model=model)
    )
    fork = await ended(rig, forked.name)
    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name=FIRST))

    made = await retry(rig, fork.name)
    again = await ended(rig, made.name)

    assert (again.retried_from, again.forked_from) == (fork.name, FIRST)
    assert (fork.output.text, again.output.text) == ("Sure.", "Sure.")
    assert list(again.tags) == ["x"]
    before, after = await collected(watch(rig, fork.name)), await collected(watch(rig, made.name))
    assert kinds(before) == kinds(after)
    place = kinds(after).index("thread_forked")
    assert after[place].thread_forked.retried_from == fork.name
    assert after[place].thread_forked.forked_sequence == place
    assert after[place + 1].input_received.content.text == "Sure?"


async def test_the_same_request_id_makes_one_retry_also_when_the_thread_is_gone(rig: Rig) -> None:
    await make_agent(rig, "helper")
    await run(rig, "first")
    made = await retry(rig, request_id="r1")
    await ended(rig, made.name)
    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name=FIRST))

    again, gone = await retry(rig, request_id="r1"), await retrying_fails(rig)

    assert again.name == made.name
    assert gone.reason == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("threads/none", {}, "RESOURCE_NOT_FOUND"),
        (FIRST, {"thread_id": "first"}, "RESOURCE_EXISTS"),
        (FIRST, {"thread_id": "Not an id"}, "FIELD_INVALID"),
        ("first", {}, "FIELD_INVALID"),
    ],
)
async def test_a_retry_that_cannot_be_made_says_why(
    rig: Rig, name: str, fields: dict[str, Any], reason: str
) -> None:
    await make_agent(rig, "helper")
    await run(rig, "first")

    assert (await retrying_fails(rig, name, **fields)).reason == reason


async def test_a_retry_of_a_retry_is_made_of_that(rig: Rig) -> None:
    await make_agent(rig, "helper")
    await run(rig, "first")
    once = await ended(rig, (await retry(rig)).name)

    twice = await get(rig, (await retry(rig, once.name)).name)

    assert twice.retried_from == once.name
