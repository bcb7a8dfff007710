"""ApprovalService: what waits for people, who may decide, and what becomes of it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Metadata, Rig, bearer, make_key, running
from tests.rpc.runs import (
    ADD,
    DEADLINE_SECONDS,
    DONE,
    Thread,
    collected,
    create,
    ended,
    get,
    kinds,
    make_agent,
    pb,
    thread_of,
    until_event,
    watch,
)
from tests.stores.kit import execute
from treadle.v1 import approval_pb2, approval_service_pb2
from treadle_server.core.policy import arguments_digest
from treadle_server.services.file_check import FileCheck
from treadle_server.stores.sqlite import checksums
from treadle_server.stores.sqlite.checking import open_inspection
from treadle_server.wire.codec import ProtoCodec

apb: Any = approval_service_pb2
Approval: Any = approval_pb2.Approval

ARGUMENTS = '{"expression":"6*7"}'
DIGEST = arguments_digest(ARGUMENTS)
NAME = "threads/t1/approvals/approval-call-1-1"
GATED: dict[str, Any] = {"rules": [{"tool_pattern": "calc*", "approvers_needed": 1}]}
TWO = {
    "thought": "I add twice.",
    "calls": [
        {"name": "calculator", "arguments": {"expression": "1+1"}},
        {"name": "calculator", "arguments": {"expression": "2+2"}},
    ],
}


async def waiting(rig: Rig, *turns: Any, policy: dict[str, Any] = GATED, metadata: Metadata = ()) -> None:
    """Thread `t1`, which waits for an approval of its first call."""
    await make_agent(rig, "helper", *(turns or (ADD, DONE)), approval_policy=policy, metadata=metadata)
    await create(rig, "t1", metadata=metadata)
    stream = rig.threads.WatchThread(pb.WatchThreadRequest(name="threads/t1"), metadata=tuple(metadata))
    async with asyncio.timeout(DEADLINE_SECONDS):
        while response := await stream.read():
            if any(e.state_changed.to == Thread.WAITING_APPROVAL for e in response.events):
                break
    stream.cancel()


async def approval(rig: Rig, name: str = NAME, metadata: Metadata = ()) -> Any:
    return await rig.approvals.GetApproval(apb.GetApprovalRequest(name=name), metadata=tuple(metadata))


def decision(name: str = NAME, decision: int = Approval.APPROVE, **fields: Any) -> Any:
    given = {"arguments_digest": DIGEST, **fields} if decision == Approval.APPROVE else fields
    return apb.DecideApprovalRequest(name=name, decision=decision, **given)


async def decide(rig: Rig, *args: Any, metadata: Metadata = (), **fields: Any) -> Any:
    return await rig.approvals.DecideApproval(decision(*args, **fields), metadata=tuple(metadata))


async def listed(rig: Rig, parent: str = "threads/-", **fields: Any) -> list[str]:
    page = await rig.approvals.ListApprovals(apb.ListApprovalsRequest(parent=parent, **fields))
    return [found.name for found in page.approvals]


async def test_a_call_that_a_rule_fits_waits_for_people(rig: Rig) -> None:
    await waiting(rig)

    found = await approval(rig)

    thread = await get(rig, "threads/t1")
    assert thread.state == Thread.WAITING_APPROVAL
    (waits,) = thread.waiting_for
    assert (waits.kind, waits.resource) == (Thread.DESCRIPTOR and 1, NAME)
    assert waits.since == found.create_time
    assert (found.name, found.thread, found.kind, found.state) == (
        NAME,
        "threads/t1",
        Approval.TOOL_CALL,
        Approval.PENDING,
    )
    assert (found.tool, found.tool_call_id, found.arguments_json) == ("calculator", "call-1-1", ARGUMENTS)
    assert (found.arguments_digest, found.rule, found.approvers_needed) == (DIGEST, "calc*", 1)
    assert not found.HasField("expire_time")
    assert list(found.decisions) == []


async def test_an_approved_call_runs_and_the_approval_says_who_approved(rig: Rig) -> None:
    await waiting(rig)

    decided = await decide(rig, message="go on")

    assert decided.state == Approval.APPROVED
    (vote,) = decided.decisions
    assert (vote.decision, vote.message) == (Approval.APPROVE, "go on")
    assert vote.principal
    assert vote.decide_time.ToMicroseconds() >= decided.create_time.ToMicroseconds()
    thread = await ended(rig, "threads/t1")
    assert thread.state == Thread.COMPLETED
    assert await approval(rig) == decided
    events = await collected(watch(rig, "threads/t1"))
    order = [kind for kind in kinds(events) if kind.startswith(("approval", "tool"))]
    assert order == [
        "tool_call_requested",
        "approval_requested",
        "approval_vote_recorded",
        "approval_decided",
        "tool_call_started",
        "tool_call_completed",
    ]


async def test_a_rejected_call_does_not_run_and_the_model_goes_on(rig: Rig) -> None:
    await waiting(rig)

    decided = await decide(rig, NAME, Approval.REJECT, message="too dear")

    assert decided.state == Approval.REJECTED
    await ended(rig, "threads/t1")
    thread = await get(rig, "threads/t1", full=True)
    assert (thread.state, thread.iterations[0].actions[0].observation) == (
        Thread.COMPLETED,
        "A person rejected this call: too dear",
    )


async def test_a_call_runs_with_edited_arguments_and_both_are_kept(rig: Rig) -> None:
    await waiting(rig)

    decided = await decide(rig, arguments_json='{ "expression": "1+1" }')

    assert (decided.arguments_json, decided.edited_arguments_json) == (ARGUMENTS, '{"expression":"1+1"}')
    await ended(rig, "threads/t1")
    thread = await get(rig, "threads/t1", full=True)
    assert thread.iterations[0].actions[0].observation == "2"


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"arguments_json": "{}"}, "arguments_json"),
        ({"arguments_json": '{"expression":7}'}, "arguments_json"),
        ({"arguments_json": "[1]"}, "arguments_json"),
        ({"arguments_json": "{"}, "arguments_json"),
        ({"result_json": "1"}, "result_json"),
        ({"arguments_json": ARGUMENTS, "result_json": "1"}, "result_json"),
        ({"decision": Approval.REJECT, "arguments_json": ARGUMENTS}, "arguments_json"),
        ({"decision": Approval.REJECT, "result_json": "1"}, "result_json"),
        ({"decision": 0}, "decision"),
        ({"arguments_digest": ""}, "arguments_digest"),
        ({"decision": 7}, "decision"),
        ({"message": "x" * 4_097}, "message"),
        ({"name": "threads/t1"}, "name"),
    ],
)
async def test_a_faulty_decision_is_refused_and_changes_nothing(
    rig: Rig, fields: dict[str, Any], faulty: str
) -> None:
    await waiting(rig)
    given = {"name": NAME, "decision": Approval.APPROVE, "arguments_digest": DIGEST, **fields}

    failure = await failure_of(rig.approvals.DecideApproval(apb.DecideApprovalRequest(**given)))

    assert failure.reason == "FIELD_INVALID"
    assert {violation.field for violation in failure.details["BadRequest"].field_violations} == {faulty}
    assert (await approval(rig)).state == Approval.PENDING


async def test_approving_other_arguments_than_those_that_wait_is_refused(rig: Rig) -> None:
    await waiting(rig)

    other = decision(arguments_digest=arguments_digest("{}"))
    failure = await failure_of(rig.approvals.DecideApproval(other))

    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "APPROVAL_STALE")
    assert failure.metadata == {"approval": NAME}
    assert (await approval(rig)).state == Approval.PENDING


async def test_the_first_decision_holds_and_the_same_again_is_ok_while_the_thread_lives(rig: Rig) -> None:
    await waiting(rig, ADD, {"calls": [{"name": "json_query", "arguments": {}}]}, ADD, DONE)
    first = await decide(rig)
    async with asyncio.timeout(DEADLINE_SECONDS):  # an iteration on, where its thread has forgotten it
        await until_event_of(rig, "threads/t1", "approval_requested", 2)

    again = await decide(rig)
    failures = [
        await failure_of(rig.approvals.DecideApproval(other))
        for other in (
            decision(NAME, Approval.REJECT),
            decision(arguments_json='{"expression":"1+1"}'),
            decision(arguments_digest=arguments_digest("{}")),
        )
    ]

    assert again == first
    for failure in failures:
        assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
        assert failure.reason == "APPROVAL_ALREADY_DECIDED"
        assert failure.metadata == {"approval": NAME, "state": "APPROVED"}


async def until_event_of(rig: Rig, name: str, kind: str, count: int) -> None:
    """Returns once a log has so many events of a kind."""
    seen = 0
    stream = watch(rig, name, event_types=[kind])
    while seen < count:
        response = await stream.read()
        assert response
        seen += sum(kind == each for each in kinds(response.events))
    stream.cancel()


async def test_once_the_thread_has_ended_every_decision_is_refused(rig: Rig) -> None:
    await waiting(rig)
    await decide(rig)
    await ended(rig, "threads/t1")

    failure = await failure_of(rig.approvals.DecideApproval(decision()))

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "APPROVAL_ALREADY_DECIDED"
    assert failure.message == f"{NAME} is APPROVED already"
    assert "PreconditionFailure" in failure.details
    assert failure.metadata == {"approval": NAME, "state": "APPROVED"}


async def test_the_same_request_id_counts_once_also_after_the_end(rig: Rig) -> None:
    await waiting(rig, policy={"rules": [{"approvers_needed": 2}]})

    first, again = [await decide(rig, request_id="r1") for _ in range(2)]
    other = await failure_of(rig.approvals.DecideApproval(decision(NAME, Approval.REJECT, request_id="r1")))
    await rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1"))
    late = await decide(rig, request_id="r1")

    assert len(first.decisions) == len(again.decisions) == 1
    assert other.reason == "REQUEST_ID_REUSED"
    assert late.state == Approval.CANCELLED


async def test_a_hundred_decisions_at_once_are_one(rig: Rig) -> None:
    await waiting(rig)

    answers = await asyncio.gather(
        *(rig.approvals.DecideApproval(decision(request_id="r1")) for _ in range(100))
    )

    assert {answer.state for answer in answers} == {Approval.APPROVED}
    await ended(rig, "threads/t1")
    events = await collected(watch(rig, "threads/t1"))
    assert kinds(events).count("approval_vote_recorded") == kinds(events).count("tool_call_started") == 1


async def test_open_approvals_are_cancelled_with_their_thread(rig: Rig) -> None:
    await waiting(rig)

    await rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t1"))

    assert (await approval(rig)).state == Approval.CANCELLED
    assert await listed(rig, filter="state = PENDING") == []


async def test_several_approvals_are_never_mixed_up(rig: Rig) -> None:
    await waiting(rig, TWO, DONE)
    first, second = NAME, "threads/t1/approvals/approval-call-1-2"
    digests = {name: (await approval(rig, name)).arguments_digest for name in (first, second)}

    crossed = await failure_of(
        rig.approvals.DecideApproval(decision(first, arguments_digest=digests[second]))
    )
    await decide(rig, second, arguments_digest=digests[second])
    still = await approval(rig, first)
    await decide(rig, first, Approval.REJECT)

    assert crossed.reason == "APPROVAL_STALE"
    assert still.state == Approval.PENDING
    await ended(rig, "threads/t1")
    actions = (await get(rig, "threads/t1", full=True)).iterations[0].actions
    assert [action.observation for action in actions] == ["A person rejected this call.", "4"]


async def test_an_approval_that_nobody_settles_expires_as_nobodys_answer(rig: Rig) -> None:
    rule = {"approvers_needed": 1, "expire_after": {"nanos": 200_000_000}}
    await make_agent(rig, "helper", ADD, DONE, approval_policy={"rules": [rule]})
    await create(rig, "t1")

    await ended(rig, "threads/t1")

    found = await approval(rig)
    assert (found.state, list(found.decisions)) == (Approval.EXPIRED, [])
    assert (found.expire_time.ToMicroseconds() - found.create_time.ToMicroseconds()) == 200_000
    events = await collected(watch(rig, "threads/t1"))
    order = [kind for kind in kinds(events) if kind.startswith("approval")]
    assert order == ["approval_requested", "approval_expiring", "approval_decided"]


async def test_the_inbox_lists_what_waits_in_all_threads_newest_first(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE, approval_policy=GATED)
    for number in (1, 2, 3):
        await create(rig, f"t{number}")
        await until_event(rig, f"threads/t{number}", "approval_requested")
    await decide(rig, "threads/t2/approvals/approval-call-1-1")

    names = [f"threads/t{number}/approvals/approval-call-1-1" for number in (3, 2, 1)]
    assert await listed(rig) == names
    assert await listed(rig, filter="state = PENDING") == [names[0], names[2]]
    assert await listed(rig, filter="state != PENDING AND kind = TOOL_CALL") == [names[1]]
    assert await listed(rig, filter="kind = TOOL_OUTCOME OR kind = BUDGET") == []
    assert await listed(rig, "threads/t1") == [names[2]]


async def test_pages_go_on_where_the_last_one_ended(rig: Rig) -> None:
    await waiting(rig, TWO, DONE)

    first = await rig.approvals.ListApprovals(apb.ListApprovalsRequest(parent="threads/-", page_size=1))
    second = await rig.approvals.ListApprovals(
        apb.ListApprovalsRequest(parent="threads/-", page_size=1, page_token=first.next_page_token)
    )
    foreign = await failure_of(
        rig.approvals.ListApprovals(
            apb.ListApprovalsRequest(parent="threads/t1", page_token=first.next_page_token)
        )
    )

    assert [found.tool_call_id for found in (*first.approvals, *second.approvals)] == ["call-1-2", "call-1-1"]
    assert second.next_page_token == ""
    assert foreign.reason == "FIELD_INVALID"


@pytest.mark.parametrize(
    "fields",
    [{}, {"parent": "agents/a"}, {"parent": "threads/-", "filter": "tool = x"}, {"parent": "threads/*"}],
)
async def test_a_faulty_list_is_refused(rig: Rig, fields: dict[str, Any]) -> None:
    failure = await failure_of(rig.approvals.ListApprovals(apb.ListApprovalsRequest(**fields)))

    assert failure.reason == "FIELD_INVALID"


async def test_what_is_not_there_is_not_found(rig: Rig) -> None:
    await waiting(rig)

    for call in (
        rig.approvals.GetApproval(apb.GetApprovalRequest(name="threads/t1/approvals/none")),
        rig.approvals.GetApproval(apb.GetApprovalRequest(name="threads/none/approvals/none")),
        rig.approvals.DecideApproval(decision("threads/t1/approvals/none")),
        rig.approvals.ListApprovals(apb.ListApprovalsRequest(parent="threads/none")),
    ):
        assert (await failure_of(call)).reason == "RESOURCE_NOT_FOUND"


async def test_approvals_of_a_deleted_thread_are_gone(rig: Rig) -> None:
    await waiting(rig)
    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name="threads/t1", force=True))

    failure = await failure_of(rig.approvals.GetApproval(apb.GetApprovalRequest(name=NAME)))

    assert failure.reason == "RESOURCE_NOT_FOUND"
    assert await listed(rig) == []


# Following


async def parts(stream: Any, enough: Any) -> tuple[list[Any], str]:
    """Approvals of a stream until there are enough, and the last cursor; then it is left."""
    found: list[Any] = []
    cursor = ""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not enough(found):
            response = await stream.read()
            assert response
            found += response.approvals
            cursor = response.cursor or cursor
    stream.cancel()
    return found, cursor


def follow(rig: Rig, after_cursor: str = "") -> Any:
    return rig.approvals.WatchApprovals(apb.WatchApprovalsRequest(after_cursor=after_cursor))


def state_of(found: list[Any], name: str) -> list[int]:
    return [each.state for each in found if each.name == name]


async def test_a_watch_shows_what_is_pending_and_then_every_change(rig: Rig) -> None:
    await waiting(rig)
    stream = follow(rig)
    first = await stream.read()
    await create(rig, "t2")
    await until_event(rig, "threads/t2", "approval_requested")

    other = "threads/t2/approvals/approval-call-1-1"
    await decide(rig, other)
    found, _ = await parts(stream, lambda found: Approval.APPROVED in state_of(found, other))

    assert [each.name for each in first.approvals] == [NAME]
    assert first.cursor
    assert {each.name for each in found} == {other}


async def test_a_watch_goes_on_after_its_cursor_and_misses_nothing(rig: Rig) -> None:
    await waiting(rig)
    _, cursor = await parts(follow(rig), lambda found: len(found) == 1)
    await decide(rig)
    await ended(rig, "threads/t1")

    found, later = await parts(follow(rig, cursor), lambda found: len(found) >= 1)

    assert {(each.name, each.state) for each in found} == {(NAME, Approval.APPROVED)}
    assert later != cursor


async def test_a_foreign_cursor_is_refused(rig: Rig) -> None:
    stream = rig.threads.WatchThreads(pb.WatchThreadsRequest())
    cursor = (await stream.read()).cursor
    stream.cancel()

    failure = await failure_of(follow(rig, cursor).read())

    assert failure.reason == "FIELD_INVALID"


async def test_a_cursor_from_before_what_retention_took_is_refused_with_one_that_goes_on(rig: Rig) -> None:
    _, cursor = await first_of(follow(rig))
    await waiting(rig)
    await decide(rig)
    await ended(rig, "threads/t1")
    keeping = rig.server.store.housekeeping
    assert await keeping.expire_threads(4_000_000_000_000_000, 1) == 1

    failure = await failure_of(drained(follow(rig, cursor)))
    await create(rig, "t2")
    found, _ = await parts(follow(rig, failure.metadata["cursor"]), bool)

    assert (failure.code, failure.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")
    assert [each.thread for each in found] == ["threads/t2"]


async def first_of(stream: Any) -> tuple[list[Any], str]:
    response = await stream.read()
    stream.cancel()
    return list(response.approvals), response.cursor


async def drained(stream: Any) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for _ in stream:
            pass


async def test_a_heartbeat_says_that_a_quiet_watch_is_alive(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", heartbeat_seconds=0.05) as rig:
        stream = follow(rig)
        async with asyncio.timeout(DEADLINE_SECONDS):
            beats = [await stream.read() for _ in range(3)]
        stream.cancel()

        assert all(beat.cursor and not beat.approvals for beat in beats)


# Who may decide


async def test_as_many_people_as_are_needed_must_approve_and_not_the_one_who_started(tmp_path: Path) -> None:
    rule = {"approvers_needed": 2, "exclude_starter": True}
    async with running(tmp_path / "t.db") as rig:
        people = [
            bearer(await make_key(rig, "red", principal=f"users/{name}")) for name in ("ann", "bob", "cat")
        ]
        ann, bob, cat = people
        await waiting(rig, policy={"rules": [rule]}, metadata=ann)

        starter = await failure_of(rig.approvals.DecideApproval(decision(), metadata=tuple(ann)))
        first = await decide(rig, metadata=bob)
        again = await decide(rig, metadata=bob)
        second = await decide(rig, metadata=cat)

    assert (starter.code, starter.reason) == (grpc.StatusCode.PERMISSION_DENIED, "APPROVER_EXCLUDED")
    assert starter.metadata == {"approval": NAME}
    assert first.state == again.state == Approval.PENDING
    assert [vote.principal for vote in again.decisions] == ["users/bob"]
    assert (second.state, [vote.principal for vote in second.decisions]) == (
        Approval.APPROVED,
        ["users/bob", "users/cat"],
    )


# Policies


async def test_the_first_rule_that_fits_decides(rig: Rig) -> None:
    rules = [
        {"tool_pattern": "calculator", "argument_predicate": '"*" in expression', "approvers_needed": 0},
        {"tool_pattern": "builtin/calc*", "approvers_needed": 1},
    ]
    await waiting(rig, ADD, TWO, DONE, policy={"rules": rules})

    assert await listed(rig) == [
        "threads/t1/approvals/approval-call-2-2",
        "threads/t1/approvals/approval-call-2-1",
    ]


async def test_a_predicate_that_cannot_be_computed_asks(rig: Rig) -> None:
    exempts = {"argument_predicate": "amount <= 100"}
    asks = {"argument_predicate": "amount > 100", "approvers_needed": 1}
    await waiting(rig, policy={"rules": [exempts, asks]})

    assert await listed(rig) == [NAME]


@pytest.mark.parametrize(
    ("rule", "faulty"),
    [
        ({"argument_predicate": "amount >"}, "argument_predicate"),
        ({"argument_predicate": "open('x')"}, "argument_predicate"),
        ({"argument_predicate": "a" * 1_025}, "argument_predicate"),
        ({"tool_pattern": "a" * 256}, "tool_pattern"),
        ({"approvers_needed": 11}, "approvers_needed"),
        ({"approvers_needed": -1}, "approvers_needed"),
        ({"approvers_needed": 1, "expire_after": {"seconds": 0}}, "expire_after"),
        ({"expire_after": {"seconds": 5}}, "expire_after"),
        ({"exclude_starter": True}, "exclude_starter"),
        ({"effect": 9}, "effect"),
    ],
)
async def test_a_faulty_rule_is_refused_when_the_agent_is_written(
    rig: Rig, rule: dict[str, Any], faulty: str
) -> None:
    failure = await failure_of(make_agent(rig, approval_policy={"rules": [{"approvers_needed": 1}, rule]}))

    assert failure.reason == "FIELD_INVALID"
    (violation,) = failure.details["BadRequest"].field_violations
    assert violation.field == f"agent.approval_policy.rules[1].{faulty}"


async def test_a_policy_is_part_of_a_version_and_threads_keep_theirs(rig: Rig) -> None:
    await waiting(rig)
    agents = rig.agents
    agent = await agents.GetAgent(approval_agent())
    assert [rule.tool_pattern for rule in agent.approval_policy.rules] == ["calc*"]
    await agents.UpdateAgent(without_policy())

    await create(rig, "t2")
    assert (await ended(rig, "threads/t2")).state == Thread.COMPLETED
    assert (await get(rig, "threads/t1")).state == Thread.WAITING_APPROVAL
    assert (await agents.GetAgent(approval_agent())).version == 2


def approval_agent() -> Any:
    from treadle.v1 import agent_service_pb2

    return agent_service_pb2.GetAgentRequest(name="agents/helper")


def without_policy() -> Any:
    from google.protobuf.field_mask_pb2 import FieldMask

    from treadle.v1 import agent_pb2, agent_service_pb2

    return agent_service_pb2.UpdateAgentRequest(
        agent=agent_pb2.Agent(name="agents/helper"), update_mask=FieldMask(paths=["approval_policy"])
    )


# What is stored


async def test_approvals_survive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await waiting(rig)
        before = await approval(rig)
    async with running(tmp_path / "t.db") as rig:
        after = await approval(rig)
        await decide(rig)
        thread = await ended(rig, "threads/t1")

    assert before == after
    assert thread.state == Thread.COMPLETED


async def test_a_damaged_row_is_made_again_from_the_log(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await waiting(rig, policy={"rules": [{"approvers_needed": 2}]})
        before = await decide(rig)
    execute(tmp_path / "t.db", "UPDATE approvals SET body = x'0a'")
    async with running(tmp_path / "t.db") as rig:
        after = await approval(rig)
        page = await rig.approvals.ListApprovals(apb.ListApprovalsRequest(parent="threads/-"))

    assert after == before == page.approvals[0]


async def test_an_approval_that_is_lost_with_its_log_keeps_no_other_from_being_seen(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        await waiting(rig)
        await create(rig, "t2")
        await until_event(rig, "threads/t2", "approval_requested")
    execute(tmp_path / "t.db", "UPDATE approvals SET body = x'0a' WHERE approval = 1")
    execute(tmp_path / "t.db", "UPDATE events SET body = x'0a' WHERE thread = 1 AND sequence = 3")
    async with running(tmp_path / "t.db") as rig:
        page = await rig.approvals.ListApprovals(apb.ListApprovalsRequest(parent="threads/-"))
        batch = await rig.approvals.WatchApprovals(apb.WatchApprovalsRequest()).read()

    assert [each.name for each in page.approvals] == ["threads/t2/approvals/approval-call-1-1"]
    assert batch.approvals == page.approvals


async def test_arguments_are_json_as_the_model_gave_it(rig: Rig) -> None:
    await waiting(rig)

    assert json.loads((await approval(rig)).arguments_json) == {"expression": "6*7"}
    assert thread_of()["agent"] == "agents/helper"


def problems(path: Path) -> list[str]:
    inspection = open_inspection(path)
    try:
        return list(FileCheck(inspection, ProtoCodec()).problems())
    finally:
        inspection.close()


DAMAGES = {
    "UPDATE approvals SET state = 2, checksum = ?": "threads/t1: approvals/approval-call-1-1: its row is not",
    "UPDATE approvals SET body = x'00'": "approvals: approval approval-call-1-1 is damaged",
    "DELETE FROM approvals": "threads/t1: approvals/approval-call-1-1: there is no row of it",
    "UPDATE approvals SET thread = 99": "approvals: approval-call-1-1 of 99 is of no thread",
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_check_of_the_file_compares_approvals_with_their_logs(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.db"
    async with running(path) as rig:
        await waiting(rig, policy={"rules": [{"approvers_needed": 2}]})
        await decide(rig)
    assert problems(path) == []
    (row,) = execute(path, "SELECT tenant, thread, id, kind, 2, create_time, body FROM approvals")
    checksum = (checksums.of_row(*row),) if "?" in damage else ()  # type: ignore[arg-type]

    execute(path, damage, *checksum)

    assert any(problem.startswith(DAMAGES[damage]) for problem in problems(path)), problems(path)


async def test_a_fork_asks_again_and_each_thread_has_its_own_approval(rig: Rig) -> None:
    await waiting(rig)
    before = await get(rig, "threads/t1")

    await rig.threads.ForkThread(
        pb.ForkThreadRequest(name="threads/t1", sequence=before.last_sequence, thread_id="t2")
    )
    await until_event(rig, "threads/t2", "approval_requested")
    other = "threads/t2/approvals/approval-call-1-1"
    await decide(rig, other)
    forked = await ended(rig, "threads/t2")

    assert forked.state == Thread.COMPLETED
    assert (await approval(rig, other)).state == Approval.APPROVED
    assert (await approval(rig)).state == Approval.PENDING
    assert await listed(rig, filter="state = PENDING") == [NAME]
