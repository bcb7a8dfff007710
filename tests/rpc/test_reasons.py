"""Every reason of `error_reason.proto` is reached over gRPC as it is documented, or not of this release."""

import ast
import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import Failure, failure_of
from tests.rpc.rig import Rig, bearer, make_key, running
from tests.rpc.runs import (
    ADD,
    DONE,
    HANG,
    HOLD,
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
    thread_of,
    until_event,
    watch,
)
from tests.stores.disk import fill_the_disk, free_the_disk
from tests.stores.kit import execute, flip_bit
from tests.waiting import eventually
from treadle.v1 import admin_service_pb2, error_reason_pb2, memory_service_pb2
from treadle_server.app import Server
from treadle_server.config import Config
from treadle_server.core.spec import ToolSpec
from treadle_server.leaving import EXIT_FENCED

_admin: Any = admin_service_pb2
_memories: Any = memory_service_pb2
ROOT = Path(__file__).parents[2]
PROTO = ROOT / "protos/treadle/v1/error_reason.proto"
DETAILS = (
    "BadRequest",
    "RetryInfo",
    "QuotaFailure",
    "PreconditionFailure",
    "ResourceInfo",
    "RequestInfo",
)

ELSEWHERE = {
    "APPROVAL_ALREADY_DECIDED": "tests/rpc/test_approvals.py::"
    "test_once_the_thread_has_ended_every_decision_is_refused",
    "APPROVAL_STALE": "tests/rpc/test_approvals.py::"
    "test_approving_other_arguments_than_those_that_wait_is_refused",
    "APPROVER_EXCLUDED": "tests/rpc/test_approvals.py::"
    "test_as_many_people_as_are_needed_must_approve_and_not_the_one_who_started",
    "PARENT_FORBIDDEN": "tests/rpc/test_parent_objects.py::"
    "test_what_a_key_does_not_reach_is_refused_by_its_object",
    "PARENT_MISMATCH": "tests/rpc/test_parent_objects.py::test_a_session_keeps_the_object_that_it_began_with",
    "SESSION_BUSY": "tests/rpc/test_busy_sessions.py::"
    "test_a_thread_is_refused_while_another_of_its_session_has_not_ended",
    "RATE_LIMITED": "tests/rpc/test_admission.py::"
    "test_streams_that_begin_too_fast_are_told_when_to_come_again",
    "SUBSCRIBER_TOO_SLOW": "tests/rpc/test_threads_watch.py::"
    "test_a_reader_who_stays_behind_learns_the_sequence_to_go_on_after",
}
"""Reached by a test with this name, which looks at code, metadata and details."""

NOT_OF_THIS_RELEASE = {
    "TENANT_DISABLED": "tenants cannot be disabled",
    "BUDGET_EXCEEDED": "no budgets",
}


@dataclass(frozen=True, slots=True)
class Documented:
    """What the comment of a reason promises."""

    code: str
    metadata: frozenset[str]
    details: frozenset[str]


def documented() -> dict[str, Documented]:
    """The reasons as the proto describes them."""
    found: dict[str, Documented] = {}
    comment: list[str] = []
    for line in PROTO.read_text("utf-8").splitlines():
        text = line.strip()
        if text.startswith("//"):
            comment.append(text.removeprefix("//").strip())
        elif value := re.fullmatch(r"([A-Z_]+) = \d+;", text):
            found[value[1]] = _documented(" ".join(comment))
            comment = []
        else:
            comment = []
    del found["ERROR_REASON_UNSPECIFIED"]
    return found


def _documented(comment: str) -> Documented:
    code, _, rest = comment.partition(".")
    example = re.search(r"Example: `(\{.*?\})`", rest)
    metadata = json.loads(example[1]) if example else {}
    return Documented(code, frozenset(metadata), frozenset(kind for kind in DETAILS if kind in rest))


DOCUMENTED = documented()


async def field_invalid(rig: Rig) -> Failure:
    return await failure_of(get(rig, "threads/No Name"))


async def not_supported(rig: Rig) -> Failure:
    return await failure_of(create(rig, webhook_targets=["webhooks/w1"]))


async def request_too_large(rig: Rig) -> Failure:
    return await failure_of(create(rig, input={"text": "x" * 65_537}))


async def credential_invalid(rig: Rig) -> Failure:
    request = _admin.GetServerInfoRequest()
    return await failure_of(
        rig.admin.GetServerInfo(request, metadata=(("authorization", "Bearer trdl_nobodys_key"),))
    )


async def tenant_mismatch(rig: Rig) -> Failure:
    metadata = (*bearer(await make_key(rig, "red")), ("treadle-tenant", "blue"))
    return await failure_of(rig.threads.ListThreads(pb.ListThreadsRequest(), metadata=metadata))


async def scope_missing(rig: Rig) -> Failure:
    metadata = bearer(await make_key(rig, "red"))
    request = _admin.ListApiKeysRequest(parent="tenants/red")
    return await failure_of(rig.admin.ListApiKeys(request, metadata=metadata))


async def resource_not_found(rig: Rig) -> Failure:
    return await failure_of(get(rig, "threads/none"))


async def resource_exists(rig: Rig) -> Failure:
    await make_agent(rig)
    await run(rig, "t1")
    return await failure_of(run(rig, "t1"))


async def request_id_reused(rig: Rig) -> Failure:
    await make_agent(rig)
    await rig.threads.CreateThread(create_request(request_id="r1"))
    return await failure_of(rig.threads.CreateThread(create_request(request_id="r1", tags=["other"])))


async def thread_state_conflict(rig: Rig) -> Failure:
    await make_agent(rig)
    await run(rig, "t1")
    return await failure_of(rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1")))


async def etag_mismatch(rig: Rig) -> Failure:
    await make_agent(rig)
    await run(rig, "t1")
    request = pb.UpdateThreadRequest(thread={"name": "threads/t1", "etag": "7", "tags": ["a"]})
    return await failure_of(rig.threads.UpdateThread(request))


async def agent_disabled(rig: Rig) -> Failure:
    await make_agent(rig, disabled=True)
    return await failure_of(run(rig))


async def sequence_out_of_range(rig: Rig) -> Failure:
    await make_agent(rig)
    await run(rig, "t1")
    return await failure_of(collected(watch(rig, "threads/t1", 99)))


async def unimplemented(rig: Rig) -> Failure:
    return await failure_of(rig.raw("/treadle.v1.ThreadService/SpliceThread", b""))


WITH_A_USUAL_SERVER: dict[str, Callable[[Rig], Awaitable[Failure]]] = {
    "FIELD_INVALID": field_invalid,
    "NOT_SUPPORTED": not_supported,
    "REQUEST_TOO_LARGE": request_too_large,
    "CREDENTIAL_INVALID": credential_invalid,
    "TENANT_MISMATCH": tenant_mismatch,
    "SCOPE_MISSING": scope_missing,
    "RESOURCE_NOT_FOUND": resource_not_found,
    "RESOURCE_EXISTS": resource_exists,
    "REQUEST_ID_REUSED": request_id_reused,
    "THREAD_STATE_CONFLICT": thread_state_conflict,
    "ETAG_MISMATCH": etag_mismatch,
    "AGENT_DISABLED": agent_disabled,
    "SEQUENCE_OUT_OF_RANGE": sequence_out_of_range,
    "UNIMPLEMENTED": unimplemented,
}
BELOW = {
    "CONCURRENCY_LIMITED": "test_who_wants_too_much_at_one_time_is_told_when_to_come_again",
    "DISK_FULL": "test_a_full_disk_refuses_changes_and_heals",
    "QUOTA_EXCEEDED": "test_who_keeps_all_that_may_be_kept_is_told_the_limit",
    "DRAINING": "test_a_server_that_stops_says_when_to_come_again",
    "STORE_UNAVAILABLE": "test_a_server_whose_file_was_taken_over_does_not_know_what_became_of_a_change",
    "RECORD_CORRUPT": "test_a_damaged_event_is_named_and_no_other_thread_suffers",
    "INTERNAL": "test_a_fault_of_the_server_tells_an_id_to_ask_for",
}


def check(failure: Failure, reason: str, *, more: Sequence[str] = ()) -> None:
    """The failure is as documented; `more` metadata may be there."""
    promised = DOCUMENTED[reason]
    assert (failure.reason, failure.code.name) == (reason, promised.code)
    assert promised.metadata <= failure.metadata.keys() <= promised.metadata.union(more)
    assert promised.details <= failure.details.keys()
    retry = failure.details.get("RetryInfo")
    assert retry is None or retry.retry_delay.ToMicroseconds() > 0


def _tests_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)}


def test_every_reason_is_reached_or_is_said_not_to_be_of_this_release() -> None:
    tables = (WITH_A_USUAL_SERVER, BELOW, ELSEWHERE, NOT_OF_THIS_RELEASE)

    assert sorted(name for table in tables for name in table) == sorted(DOCUMENTED)
    assert DOCUMENTED.keys() == set(error_reason_pb2.ErrorReason.keys()[1:])
    assert set(BELOW.values()) <= _tests_of(Path(__file__))
    for place in ELSEWHERE.values():
        path, _, name = place.partition("::")
        assert name in _tests_of(ROOT / path)


def test_every_reason_is_documented_with_a_code_and_an_example() -> None:
    codes = {code.name for code in grpc.StatusCode}

    assert {reason.code for reason in DOCUMENTED.values()} <= codes
    assert PROTO.read_text("utf-8").count("// Example: ") == len(DOCUMENTED)


@pytest.mark.parametrize("reason", WITH_A_USUAL_SERVER)
async def test_a_reason_is_as_documented(rig: Rig, reason: str) -> None:
    check(await WITH_A_USUAL_SERVER[reason](rig), reason)


async def test_who_wants_too_much_at_one_time_is_told_when_to_come_again(tmp_path: Path) -> None:
    options = {"tenant_running_threads_max": 1, "tenant_pending_threads_max": 1}
    async with running(tmp_path / "t.db", **options) as rig:  # type: ignore[arg-type]
        await make_agent(rig, "helper", HANG)
        await create(rig)
        await create(rig)

        check(await failure_of(create(rig)), "CONCURRENCY_LIMITED")


async def test_who_keeps_all_that_may_be_kept_is_told_the_limit(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", namespace_memories_max=1) as rig:
        for key in ("a", "a"):
            await put_memory(rig, key)

        check(await failure_of(put_memory(rig, "b")), "QUOTA_EXCEEDED")


async def put_memory(rig: Rig, key: str) -> Any:
    memory = {"name": f"memories/n/items/{key}", "text": "x"}
    return await rig.memories.PutMemory(_memories.PutMemoryRequest(memory=memory))


async def test_a_full_disk_refuses_changes_and_heals(tmp_path: Path) -> None:
    tool = HeldTool(observation="x" * 60_000)
    async with running(tmp_path / "t.db", make_toolbox=tool) as rig:
        await make_agent(rig, "helper", HOLD, DONE)
        await create(rig, "t1")
        await eventually(lambda: tool.calls == 1)
        await fill_the_disk(rig.server.store)
        large: Any = {"client_metadata": {"x": "x" * 16_000}}

        failures = [await failure_of(create(rig, f"full-{n}", **large)) for n in range(3)]
        tool.opening.set()
        waiting = asyncio.ensure_future(collected(watch(rig, "threads/t1", 1)))
        failures.append(await failure_of(create(rig, "full-0", **large)))

        for failure in failures:
            check(failure, "DISK_FULL")
        assert (await get(rig, "threads/t1")).state == Thread.RUNNING
        listed = await rig.threads.ListThreads(pb.ListThreadsRequest())
        assert [thread.name for thread in listed.threads] == ["threads/t1"]
        assert not waiting.done()

        await free_the_disk(rig.server.store)
        assert (await waiting)[-1].thread_ended.state == Thread.COMPLETED
        assert (await run(rig, "full-0", **large)).state == Thread.COMPLETED


async def test_a_server_that_stops_says_when_to_come_again(tmp_path: Path) -> None:
    tool = HeldTool(stubborn=True)
    async with running(tmp_path / "t.db", make_toolbox=tool, drain_seconds=20) as rig:
        await make_agent(rig, "helper", HOLD, DONE)
        await create(rig, "t1")
        await eventually(lambda: tool.calls == 1)
        under_way = [
            asyncio.ensure_future(failure_of(call))
            for call in (
                collected(watch(rig, "threads/t1")),
                collected(rig.threads.WatchThreads(pb.WatchThreadsRequest())),
                rig.threads.ExecuteAgent(pb.ExecuteAgentRequest(thread=thread_of(), thread_id="t2")),
            )
        ]
        await eventually(lambda: tool.calls == 2 and rig.server.admission.streams.count == 3)

        stopping = asyncio.ensure_future(rig.server.stop())
        for failure in await asyncio.gather(*under_way):
            check(failure, "DRAINING")
        for late in (get(rig, "threads/t1"), create(rig), collected(watch(rig, "threads/t1"))):
            check(await failure_of(late), "DRAINING")
        assert not stopping.done()

        tool.opening.set()
        await stopping
    async with running(tmp_path / "t.db") as rig:
        assert (await ended(rig, "threads/t1")).state == Thread.COMPLETED


async def test_a_server_whose_file_was_taken_over_does_not_know_what_became_of_a_change(
    tmp_path: Path,
) -> None:
    async with served(tmp_path / "t.db") as (first, stopping):
        await make_agent(first)
        async with running(tmp_path / "t.db", take_over=True) as second:
            request = create_request(request_id="r1")

            failure = await failure_of(first.threads.CreateThread(request))

            check(failure, "STORE_UNAVAILABLE")
            assert await stopping == EXIT_FENCED
            made = await second.threads.CreateThread(request)
            assert (await ended(second, made.name)).state == Thread.COMPLETED


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[tuple[Rig, "asyncio.Future[int]"]]:
    """A server that may fail."""
    stopping: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = await Server.start(Config(listen="127.0.0.1:0", db=path, drain_seconds=1), stopping)
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield Rig(server, channel), stopping
    await server.stop()


DAMAGED = {"thought": "I add.", "calls": [{"name": "calculator", "arguments": {"expression": "41000000+71"}}]}
MARK = b"41000071"


async def test_a_damaged_event_is_named_and_no_other_thread_suffers(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with running(path) as rig:
        begin = (await rig.threads.WatchThreads(pb.WatchThreadsRequest()).read()).cursor
        await make_agent(rig, "damaged", DAMAGED, DONE)
        await make_agent(rig, "helper", ADD, DONE)
        await run(rig, "t1", "damaged")
        whole = await collected(watch(rig, "threads/t1"))
        await run(rig, "t2")
    (sequence,) = (event.sequence for event in whole if MARK.decode() in str(event.tool_call_completed))
    flip_bit(path, MARK)

    async with running(path) as rig:
        asks = [
            collected(watch(rig, "threads/t1")),
            get(rig, "threads/t1", full=True),
            rig.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent="threads/t1")),
            rig.threads.ListIterations(pb.ListIterationsRequest(parent="threads/t1")),
        ]
        for ask in asks:
            failure = await failure_of(ask)
            check(failure, "RECORD_CORRUPT")
            assert failure.metadata == {"resource": "threads/t1", "sequence": str(sequence)}
            assert failure.details["ResourceInfo"].resource_name == "threads/t1"
        assert (await get(rig, "threads/t1")).state == Thread.COMPLETED
        listed = await rig.threads.ListThreads(pb.ListThreadsRequest(view=Thread.FULL))
        assert {thread.name: thread.stop_reason for thread in listed.threads} == {
            "threads/t1": Thread.DATA_LOSS,
            "threads/t2": Thread.FINISHED,
        }
        assert await collected(watch(rig, "threads/t1", sequence)) == whole[sequence:]
        assert (await get(rig, "threads/t2", full=True)).iterations
        assert (await run(rig, "t3")).state == Thread.COMPLETED

        everything = rig.threads.WatchThreads(pb.WatchThreadsRequest(after_cursor=begin))
        failure = await failure_of(collected(everything))
        check(failure, "RECORD_CORRUPT", more=["cursor"])
        on = rig.threads.WatchThreads(pb.WatchThreadsRequest(after_cursor=failure.metadata["cursor"]))
        rest = await taken(on, lambda events: kinds(events).count("thread_ended") == 3)
        assert {event.thread for event in rest if event.sequence} == {
            "threads/t1",
            "threads/t2",
            "threads/t3",
        }


async def test_a_damaged_thread_that_has_not_ended_does_not_keep_the_others_from_going_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.db"
    async with running(path) as rig:
        await make_agent(rig, "damaged", DAMAGED, HANG)
        await make_agent(rig, "helper", {"text": "Done.", "delay_ms": 400})
        await rig.threads.CreateThread(create_request("damaged", thread_id="t1", request_id="r1"))
        await until_event(rig, "threads/t1", "tool_call_completed")
        await create(rig, "row-damaged")
        await create(rig, "t2")
        await until_event(rig, "threads/t2", "model_call_started")
    flip_bit(path, MARK)
    execute(
        path,
        "UPDATE thread_details SET tags = '[\"x\"]' WHERE thread = "
        "(SELECT thread FROM threads WHERE id = 'row-damaged')",
    )

    async with running(path) as rig:
        assert (await ended(rig, "threads/t2")).state == Thread.COMPLETED
        execution = pb.ExecuteAgentRequest(thread=thread_of("damaged"), thread_id="t1", request_id="r1")
        asks = [
            rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1")),
            rig.threads.ExecuteAgent(execution, timeout=10),
        ]
        for ask in asks:
            check(await failure_of(ask), "RECORD_CORRUPT")
        failure = await failure_of(get(rig, "threads/row-damaged"))
        assert (failure.code, failure.reason) == (grpc.StatusCode.DATA_LOSS, "RECORD_CORRUPT")
        assert failure.metadata == {"resource": "threads/row-damaged"}
        assert failure.details["ResourceInfo"].resource_name == "threads/row-damaged"
        lost = await get(rig, "threads/t1")
        assert (lost.state, lost.stop_reason) == (Thread.FAILED, Thread.DATA_LOSS)
        listed = await rig.threads.ListThreads(pb.ListThreadsRequest())
        assert {thread.name: thread.state for thread in listed.threads} == {
            "threads/t1": Thread.FAILED,
            "threads/row-damaged": Thread.FAILED,
            "threads/t2": Thread.COMPLETED,
        }


async def test_a_damaged_thread_is_deleted_like_another(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with running(path) as rig:
        await make_agent(rig, "damaged", DAMAGED, HANG)
        for name in ("t1", "t2"):
            await rig.threads.CreateThread(create_request("damaged", thread_id=name))
            await until_event(rig, f"threads/{name}", "tool_call_completed")
    execute(path, "UPDATE events SET body = x'00' WHERE sequence = 2")

    async with running(path) as rig:
        check(await failure_of(collected(watch(rig, "threads/t1"))), "RECORD_CORRUPT")
        check(
            await failure_of(rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1"))),
            "RECORD_CORRUPT",
        )
        for name, force in (("t1", False), ("t2", True)):
            await rig.threads.DeleteThread(pb.DeleteThreadRequest(name=f"threads/{name}", force=force))
        assert not (await rig.threads.ListThreads(pb.ListThreadsRequest())).threads


class BrokenTools(HeldTool):
    """A toolbox with a bug."""

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        raise KeyError("a path: /secret")


async def test_a_fault_of_the_server_tells_an_id_to_ask_for(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", make_toolbox=BrokenTools()) as rig:
        failure = await failure_of(make_agent(rig))

    check(failure, "INTERNAL")
    assert failure.details["RequestInfo"].request_id in failure.message
    assert "secret" not in failure.message
