"""UpdateThread and DeleteThread."""

import asyncio
from typing import Any

import grpc
import pytest

from tests.rpc.failures import Failure, failure_of
from tests.rpc.rig import Rig
from tests.rpc.runs import (
    HANG,
    Thread,
    collected,
    create,
    ended,
    get,
    make_agent,
    pb,
    run,
    until_event,
    watch,
)
from tests.stores.kit import Gate
from tests.waiting import eventually

T1 = "threads/t1"


async def update(rig: Rig, *paths: str, request_id: str = "", **fields: Any) -> Any:
    request = pb.UpdateThreadRequest(
        thread={"name": T1, **fields}, update_mask={"paths": paths}, request_id=request_id
    )
    return await rig.threads.UpdateThread(request)


async def delete(rig: Rig, name: str = T1, **fields: Any) -> None:
    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name=name, **fields))


@pytest.fixture
async def ran(rig: Rig) -> Rig:
    """A server with a thread that has ended."""
    await make_agent(rig)
    await run(rig, "t1", tags=["a"], labels={"team": "x"}, client_metadata={"case": "7"})
    return rig


async def names(rig: Rig, text: str) -> list[str]:
    page = await rig.threads.ListThreads(pb.ListThreadsRequest(filter=text))
    return [thread.name for thread in page.threads]


async def test_a_mask_says_what_changes(ran: Rig) -> None:
    tagged = await update(ran, "tags", tags=["b", "c"], labels={"team": "y"})
    assert (list(tagged.tags), dict(tagged.labels)) == (["b", "c"], {"team": "x"})

    labelled = await update(ran, "labels", "client_metadata", labels={"size": "l"})
    assert (list(labelled.tags), dict(labelled.labels)) == (["b", "c"], {"size": "l"})
    assert not labelled.HasField("client_metadata")

    set_only = await update(ran, tags=["d"], client_metadata={"n": 1})
    assert (list(set_only.tags), dict(set_only.labels)) == (["d"], {"size": "l"})
    assert dict(set_only.client_metadata) == {"n": 1}

    everything = await update(ran, "*", labels={"team": "z"})
    assert (list(everything.tags), dict(everything.labels)) == ([], {"team": "z"})
    assert not everything.HasField("client_metadata")
    assert everything == await get(ran, T1)


async def test_a_change_is_found_by_filters_and_is_not_part_of_the_log(ran: Rig) -> None:
    before = await get(ran, T1)

    after = await update(ran, tags=["new"])

    assert (await names(ran, "tags:a"), await names(ran, "tags:new")) == ([], [T1])
    assert after.last_sequence == before.last_sequence
    assert after.update_time == before.update_time
    assert (before.etag, after.etag) == ("1", "2")


async def test_a_living_thread_can_be_changed_too(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    await create(rig, "t1")

    changed = await update(rig, tags=["a"])

    assert list(changed.tags) == ["a"]
    await rig.threads.CancelThread(pb.CancelThreadRequest(name=T1))
    assert list((await get(rig, T1)).tags) == ["a"]


@pytest.mark.parametrize("path", ["state", "input", "name", "etag", "nothing", "labels.team", "tags.a"])
async def test_a_path_that_cannot_be_changed_is_refused(ran: Rig, path: str) -> None:
    before = await get(ran, T1)

    failure = await failure_of(update(ran, "tags", path, tags=["b"]))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert failure.fields.keys() == {"update_mask"}
    assert await get(ran, T1) == before


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": ""}, "thread.name"),
        ({"name": "t1"}, "thread.name"),
        ({"tags": ["x"] * 20 + [f"t{n}" for n in range(60)]}, "thread.tags"),
        ({"tags": ["x" * 64]}, "thread.tags[0]"),
        ({"labels": {"": "x"}}, "thread.labels"),
        ({"client_metadata": {"n": float("nan")}}, "thread.client_metadata"),
    ],
)
async def test_a_faulty_field_is_named(ran: Rig, fields: dict[str, Any], named: str) -> None:
    failure = await failure_of(update(ran, **fields))

    assert (failure.reason, *failure.fields) == ("FIELD_INVALID", named)


async def test_an_older_etag_is_refused_and_the_present_one_is_told(ran: Rig) -> None:
    first = await get(ran, T1)
    await update(ran, tags=["b"], etag=first.etag)

    for stale in (update(ran, tags=["c"], etag=first.etag), delete(ran, etag=first.etag)):
        failure = await failure_of(stale)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        assert failure.metadata == {"etag": "2"}
    assert list((await get(ran, T1)).tags) == ["b"]
    await delete(ran, etag="2")


async def test_changes_at_one_time_without_etags_all_take_effect(ran: Rig) -> None:
    await asyncio.gather(
        update(ran, tags=["b"]), update(ran, labels={"n": "1"}), update(ran, client_metadata={"k": "v"})
    )

    changed = await get(ran, T1)
    assert (list(changed.tags), dict(changed.labels)) == (["b"], {"n": "1"})
    assert dict(changed.client_metadata) == {"k": "v"}


async def test_a_repeated_update_is_done_once_and_answers_the_thread_as_it_is(ran: Rig) -> None:
    first = await update(ran, tags=["b"], request_id="r1")
    await update(ran, labels={"n": "1"})

    again = await update(ran, tags=["b"], request_id="r1", etag="")

    assert (first.etag, again.etag) == ("2", "3")
    assert dict(again.labels) == {"n": "1"}
    other = await failure_of(update(ran, tags=["c"], request_id="r1"))
    assert (other.reason, other.metadata) == ("REQUEST_ID_REUSED", {"request_id": "r1"})
    another_method = await failure_of(delete(ran, request_id="r1"))
    assert another_method.reason == "REQUEST_ID_REUSED"


async def test_a_repeated_update_is_told_from_a_stale_one(ran: Rig) -> None:
    first = await update(ran, tags=["b"], etag="1", request_id="r1")

    again = await update(ran, tags=["b"], etag="1", request_id="r1")

    assert first == again


async def test_an_absent_thread_is_not_found(ran: Rig) -> None:
    for call in (update(ran, name="threads/none"), delete(ran, "threads/none")):
        failure = await failure_of(call)
        assert (failure.code, failure.metadata) == (
            grpc.StatusCode.NOT_FOUND,
            {"resource": "threads/none"},
        )


async def test_a_deleted_thread_is_gone_for_every_method(ran: Rig) -> None:
    await delete(ran)

    asks = [
        get(ran, T1),
        collected(watch(ran, T1)),
        ran.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent=T1)),
        ran.threads.ListIterations(pb.ListIterationsRequest(parent=T1)),
        update(ran, tags=["b"]),
        delete(ran),
        delete(ran, force=True),
        ran.threads.CancelThread(pb.CancelThreadRequest(name=T1)),
    ]
    for ask in asks:
        failure = await failure_of(ask)
        assert (failure.code, failure.metadata) == (grpc.StatusCode.NOT_FOUND, {"resource": T1})
        assert failure.details["ResourceInfo"].resource_name == T1
    assert await names(ran, "") == await names(ran, "tags:a") == []
    assert (await failure_of(run(ran, "t1"))).reason == "RESOURCE_EXISTS"


async def test_a_repeated_delete_is_ok_and_a_second_one_finds_nothing(ran: Rig) -> None:
    await delete(ran, request_id="r1")

    await delete(ran, request_id="r1")

    assert (await failure_of(delete(ran, request_id="r2"))).reason == "RESOURCE_NOT_FOUND"
    assert (await failure_of(delete(ran, "threads/t2", request_id="r1"))).reason == "REQUEST_ID_REUSED"


async def test_of_deletes_at_one_time_one_deletes_and_the_others_find_nothing(ran: Rig) -> None:
    outcomes = await asyncio.gather(*(outcome(delete(ran)) for _ in range(20)))

    assert sorted(outcomes) == ["", *["RESOURCE_NOT_FOUND"] * 19]


async def outcome(call: Any) -> str:
    """The reason of a refusal, empty for success."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        failure: Failure = await failure_of(_raised(error))
        return failure.reason
    return ""


async def _raised(error: grpc.aio.AioRpcError) -> None:
    raise error


@pytest.mark.parametrize("state", [Thread.PENDING, Thread.RUNNING])
async def test_a_living_thread_is_deleted_only_by_force(rig: Rig, state: int) -> None:
    await make_agent(rig, "helper", HANG, limits={"max_concurrent_threads": 1})
    await create(rig, "t0" if state == Thread.PENDING else "t1")
    if state == Thread.PENDING:
        await create(rig, "t1")
    else:
        await until_event(rig, T1, "model_call_started")

    failure = await failure_of(delete(rig))

    assert (failure.code, failure.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "THREAD_STATE_CONFLICT",
    )
    assert failure.metadata["current_state"] == Thread.State.Name(state)
    assert "CANCEL" in failure.metadata["allowed"].split(",")
    violation = failure.details["PreconditionFailure"].violations[0]
    assert (violation.type, violation.subject) == ("THREAD_STATE_CONFLICT", T1)
    assert (await get(rig, T1)).state == state

    await delete(rig, force=True, request_id="r1")
    await delete(rig, force=True, request_id="r1")

    assert (await failure_of(get(rig, T1))).reason == "RESOURCE_NOT_FOUND"


async def test_a_forced_delete_frees_the_session_for_the_next_thread(rig: Rig) -> None:
    await make_agent(rig, "helper", model="scripted:")
    hang, done = '{"turns":[{"hang":true}]}', '{"turns":[{"text":"done"}]}'
    await create(rig, "t1", session_key="room", input={"data_json": hang})
    await create(rig, "t2", session_key="room", input={"data_json": done})
    assert (await get(rig, "threads/t2")).state == Thread.PENDING

    await delete(rig, force=True)

    assert (await ended(rig, "threads/t2")).state == Thread.COMPLETED


async def test_a_forced_delete_of_a_thread_that_ends_by_itself_meanwhile_deletes_it(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "done", "delay_ms": 100})
    await create(rig, "t1")
    await until_event(rig, T1, "model_call_started")
    store, gate = rig.server.store, Gate()
    held = await gate.hold(store)
    await eventually(lambda: store.committer.backlog == 1)  # the end, which nobody can read yet

    deleting = asyncio.ensure_future(delete(rig, force=True))
    for _ in range(10):
        assert (await get(rig, T1)).state == Thread.RUNNING
    gate.opening.set()
    await held.wait()
    await deleting

    assert await names(rig, "") == []
