"""What ThreadService refuses before it does anything: faulty, too large, not built, too much at once."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import Failure, failure_of
from tests.rpc.rig import Metadata, Rig, make_key, running
from tests.rpc.runs import (
    HANG,
    Thread,
    collected,
    create,
    create_request,
    ended,
    get,
    make_agent,
    pb,
    run,
    thread_of,
    until_event,
    watch,
)
from tests.stores.kit import Gate
from tests.waiting import eventually
from treadle.v1 import agent_service_pb2

_agents: Any = agent_service_pb2
KIB = 1024
DEEP = "[" * 65 + "]" * 65


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


async def refused(rig: Rig, **fields: Any) -> Failure:
    """Why a thread with these fields is not made."""
    failure = await failure_of(create(rig, **fields))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    return failure


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"agent": ""}, "thread.agent"),
        ({"agent": "Helper!"}, "thread.agent"),
        ({"input": {}}, "thread.input"),
        ({"input": {"text": "a\x00b"}}, "thread.input.text"),
        ({"input": {"data_json": "{"}}, "thread.input.data_json"),
        ({"input": {"data_json": DEEP}}, "thread.input.data_json"),
        ({"input": {"data_json": '{"a":1,"a":2}'}}, "thread.input.data_json"),
        ({"input": {"data_json": "NaN"}}, "thread.input.data_json"),
        ({"input": {"data_json": '"\\ud800"'}}, "thread.input.data_json"),
        ({"input": {"data": {"n": 2**53 + 2}}}, "thread.input.data"),
        ({"input": {"data": nested(33)}}, "thread.input.data"),
        ({"input": {"data": {}, "data_json": "1"}}, "thread.input.data"),
        ({"session": "s1"}, "thread.session"),
        ({"session_key": "x" * 256}, "thread.session_key"),
        ({"session_key": "a\x00"}, "thread.session_key"),
        ({"agent_version": "agents/helper"}, "thread.agent_version"),
        ({"subject": {"id": "17"}}, "thread.subject.type"),
        ({"subject": {"type": "ticket"}}, "thread.subject.id"),
        ({"subject": {"type": "t" * 64, "id": "1"}}, "thread.subject.type"),
        ({"subject": {"type": "t", "id": "1" * 256}}, "thread.subject.id"),
        ({"trigger": {"type": 9}}, "thread.trigger.type"),
        ({"trigger": {"triggered_by": "x" * 256}}, "thread.trigger.triggered_by"),
        ({"tags": [f"t{n}" for n in range(51)]}, "thread.tags"),
        ({"tags": ["a", ""]}, "thread.tags[1]"),
        ({"tags": ["x" * 64]}, "thread.tags[0]"),
        ({"tags": ["a\x00"]}, "thread.tags[0]"),
        ({"labels": {f"l{n}": "" for n in range(65)}}, "thread.labels"),
        ({"labels": {"k" * 64: ""}}, "thread.labels (a key)"),
        ({"labels": {"k": "v" * 256}}, "thread.labels (a value)"),
        ({"busy_policy": 77, "session_key": "s"}, "thread.busy_policy"),
        ({"client_metadata": {"n": float("inf")}}, "thread.client_metadata"),
        ({"client_metadata": nested(33)}, "thread.client_metadata"),
    ],
)
async def test_a_faulty_field_of_a_thread_is_named(rig: Rig, fields: dict[str, Any], named: str) -> None:
    failure = await refused(rig, **fields)

    assert failure.reason == "FIELD_INVALID"
    assert failure.fields.keys() == {named}


@pytest.mark.parametrize(
    ("fields", "named", "bytes_max"),
    [
        ({"input": {"text": "x" * (64 * KIB + 1)}}, "thread.input.text", 64 * KIB),
        ({"input": {"text": "é" * (32 * KIB + 1)}}, "thread.input.text", 64 * KIB),
        ({"input": {"data_json": '"' + "x" * 64 * KIB + '"'}}, "thread.input.data_json", 64 * KIB),
        ({"input": {"data": {"a": "x" * 64 * KIB}}}, "thread.input.data", 64 * KIB),
        ({"client_metadata": {"a": "x" * 16 * KIB}}, "thread.client_metadata", 16 * KIB),
    ],
)
async def test_a_field_that_is_too_large_says_how_large_it_may_be(
    rig: Rig, fields: dict[str, Any], named: str, bytes_max: int
) -> None:
    failure = await refused(rig, **fields)

    assert failure.reason == "REQUEST_TOO_LARGE"
    assert failure.metadata == {"field": named, "max_bytes": str(bytes_max)}
    assert named in failure.fields


async def test_what_is_just_within_the_limits_is_taken(rig: Rig) -> None:
    await make_agent(rig)
    data = json.dumps({"n": 2**63, "deep": json.loads("[" * 63 + "]" * 63)})

    made = await run(
        rig,
        "t" * 63,
        input={"text": "x" * 64 * KIB, "data_json": data},
        session_key="s" * 255,
        subject={"type": "t" * 63, "id": "1" * 255},
        trigger={"triggered_by": "x" * 255},
        tags=[f"{n:063}" for n in range(50)],
        labels={f"{n:063}": "v" * 255 for n in range(64)},
        client_metadata={"a": "x" * (16 * KIB - 8)},
    )

    assert made.state == Thread.COMPLETED
    assert len(made.input.text) == 64 * KIB
    assert str(2**63) in made.input.data_json
    assert (len(made.tags), len(made.labels)) == (50, 64)
    assert made == await get(rig, made.name, full=True)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"webhook_targets": ["webhooks/w1"]}, "thread.webhook_targets"),
        ({"event_source_targets": ["eventSources/e1"]}, "thread.event_source_targets"),
        ({"input": {"text": "x", "parts": [{}]}}, "thread.input.parts"),
    ],
)
async def test_a_field_whose_feature_is_not_built_is_not_supported(
    rig: Rig, fields: dict[str, Any], named: str
) -> None:
    await make_agent(rig)

    failure = await refused(rig, **fields)

    assert (failure.reason, failure.metadata) == ("NOT_SUPPORTED", {"field": named})
    assert failure.fields.keys() == {named}


async def test_every_faulty_field_is_named_at_once(rig: Rig) -> None:
    failure = await refused(rig, agent="", input={}, tags=[""], session_key="x" * 300)

    assert failure.fields.keys() == {
        "thread.agent",
        "thread.input",
        "thread.tags[0]",
        "thread.session_key",
    }


async def test_faulty_fields_of_requests_are_named(rig: Rig) -> None:
    faulty = {
        "thread": pb.CreateThreadRequest(),
        "thread_id": create_request(thread_id="T1"),
        "request_id": create_request(request_id="a\nb"),
        "on_deadline": pb.ExecuteAgentRequest(thread=thread_of(), on_deadline=9),
        "reason": pb.CancelThreadRequest(name="threads/t1", reason="x" * 1025),
        "grace": pb.CancelThreadRequest(name="threads/t1", grace={"seconds": 301}),
        "name": pb.CancelThreadRequest(name="threads/"),
        "view": pb.GetThreadRequest(name="threads/t1", view=9),
        "parent": pb.ListIterationsRequest(),
        "page_size": pb.ListThreadEventsRequest(parent="threads/t1", page_size=-1),
        "etag": pb.DeleteThreadRequest(name="threads/t1", etag="x" * 65),
    }

    for named, request in faulty.items():
        method = request.DESCRIPTOR.name.removesuffix("Request")
        failure = await failure_of(getattr(rig.threads, method)(request))
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert failure.fields.keys() == {named}
    negative = pb.CancelThreadRequest(name="threads/t1", grace={"seconds": -1})
    assert (await failure_of(rig.threads.CancelThread(negative))).fields.keys() == {"grace"}
    long = create_request(request_id="x" * 129)
    assert (await failure_of(rig.threads.CreateThread(long))).fields.keys() == {"request_id"}


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x0a\x04\x0a\x02\xc3\x28"])
async def test_bytes_that_are_no_message_are_refused(rig: Rig, data: bytes) -> None:
    for method in ("CreateThread", "GetThread", "CancelThread", "UpdateThread"):
        failure = await failure_of(rig.raw(f"/treadle.v1.ThreadService/{method}", data))
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_a_message_that_is_too_large_is_refused_by_the_transport(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await create(rig, input={"text": "x" * (4 * KIB * KIB)})

    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await make_agent(rig)
    assert (await run(rig)).state == Thread.COMPLETED


async def test_a_tenant_has_only_so_many_threads_that_wait_to_run(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"tenant_running_threads_max": 1, "tenant_pending_threads_max": 2}
    async with running(tmp_path / "t.db", **limits) as rig:
        await make_key(rig, "other")
        other: Metadata = (("treadle-tenant", "other"),)
        await make_agent(rig, "helper", HANG)
        await make_agent(rig, "quick", metadata=other)
        for number in range(3):
            await create(rig, f"t{number}")

        failure = await failure_of(rig.threads.CreateThread(create_request(request_id="r1")))

        assert (failure.code, failure.reason) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "CONCURRENCY_LIMITED",
        )
        assert failure.metadata == {"limit": "2"}
        assert failure.details["RetryInfo"].retry_delay.ToMicroseconds() > 0
        assert failure.details["QuotaFailure"].violations[0].description
        assert (await run(rig, agent="quick", metadata=other)).state == Thread.COMPLETED
        await rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1"))
        assert (await rig.threads.CreateThread(create_request(request_id="r1"))).state == Thread.PENDING
    async with running(tmp_path / "t.db", **limits) as rig:
        assert (await failure_of(create(rig))).reason == "CONCURRENCY_LIMITED"


async def test_changes_are_refused_while_too_many_wait_to_be_written(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", backlog_max=3) as rig:
        await make_agent(rig)
        await run(rig, "t1")
        store, gate = rig.server.store, Gate()
        held = await gate.hold(store)
        waiting = [asyncio.ensure_future(rig.threads.CreateThread(create_request())) for _ in range(3)]
        await eventually(lambda: store.committer.backlog == 3)

        changes = [
            rig.threads.CreateThread(create_request()),
            collected(rig.threads.ExecuteAgentStream(pb.ExecuteAgentStreamRequest(thread=thread_of()))),
            rig.threads.UpdateThread(pb.UpdateThreadRequest(thread={"name": "threads/t1", "tags": ["a"]})),
            rig.agents.CreateAgent(_agents.CreateAgentRequest(agent={"model": "demo:react"})),
        ]
        for call in changes:
            failure = await failure_of(call)
            assert (failure.code, failure.reason) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "CONCURRENCY_LIMITED",
            )
            assert failure.metadata == {"limit": "3"}
            assert failure.details["RetryInfo"].retry_delay.ToMicroseconds() > 0
        assert (await get(rig, "threads/t1")).state == Thread.COMPLETED
        assert await collected(watch(rig, "threads/t1"))

        gate.opening.set()
        await held.wait()
        for made in await asyncio.gather(*waiting):
            assert (await ended(rig, made.name)).state == Thread.COMPLETED


async def test_one_tenants_calls_and_streams_leave_room_for_anothers(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", streams_max=3, tenant_streams_max=2) as rig:
        await make_key(rig, "other")
        other: Metadata = (("treadle-tenant", "other"),)
        for metadata in ((), other):
            await make_agent(rig, "helper", HANG, metadata=metadata)
            await create(rig, "t1", metadata=metadata)
        await until_event(rig, "threads/t1", "model_call_started")
        await eventually(lambda: rig.server.admission.streams.count == 0)
        streams = [watch(rig, "threads/t1") for _ in range(2)]
        for stream in streams:
            assert await stream.read()

        failure = await failure_of(collected(watch(rig, "threads/t1")))

        assert (failure.reason, failure.metadata) == ("CONCURRENCY_LIMITED", {"limit": "2"})
        theirs = rig.threads.WatchThread(pb.WatchThreadRequest(name="threads/t1"), metadata=other)
        assert await theirs.read()
        for stream in (*streams, theirs):
            stream.cancel()
