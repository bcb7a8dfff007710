"""A server killed around what people decide: nothing runs undecided, and nothing decided is lost."""

import asyncio
from typing import Any

import pytest

from tests.faults.ledger import DONE
from tests.faults.scripts import script
from tests.faults.site import Site
from tests.faults.tool_server import GROUP
from treadle import (
    Action,
    Agent,
    Approval,
    ApprovalPolicy,
    ApprovalRule,
    Client,
    Thread,
    ThreadEvent,
)

AGENT = "careful"
THREAD = "asks"
SIGKILLED = -9
GATED = ApprovalPolicy(rules=[ApprovalRule(tool_pattern="send", approvers_needed=1)])
NOTE = f"{THREAD}/1/1"


async def waiting(client: Client, **fields: Any) -> Approval:
    """The approval that the thread waits for first."""
    await client.create_agent(AGENT, model="scripted:", tool_groups=[GROUP], **fields)
    await client.create_thread(AGENT, data=script(THREAD, [["send"]]), thread_id=THREAD)
    return await pending(client)


async def pending(client: Client) -> Approval:
    async for batch in client.watch_approvals():
        for approval in batch.approvals:
            if approval.state == Approval.PENDING:
                return approval
    raise AssertionError("the watch has no end")


async def log_of(client: Client) -> list[ThreadEvent]:
    """All events, once the thread has ended."""
    return [event async for event in client.watch(THREAD)]


def kinds(events: list[ThreadEvent]) -> list[str]:
    return [str(event.WhichOneof("payload")) for event in events]


def sent(site: Site) -> list[str]:
    """What the tool did, by note."""
    return [line.note for line in site.ledger.all() if line.step == DONE]


@pytest.mark.parametrize("failpoint", ["decision.after", "request.before#3", "request.after#3"])
@pytest.mark.parametrize("edited", [None, {"note": "edited"}])
async def test_a_decision_that_is_repeated_after_a_kill_counts_once(
    site: Site, failpoint: str, edited: dict[str, str] | None
) -> None:
    await site.start(f"{failpoint}=kill")
    async with site.client() as client:
        approval = await waiting(client, approval_policy=GATED)
        assert sent(site) == []
        deciding = asyncio.create_task(
            client.decide_approval(
                approval.name,
                Approval.APPROVE,
                arguments_digest=approval.arguments_digest,
                arguments=edited,
                request_id="r",
            )
        )
        assert await site.ended() == SIGKILLED
        assert sent(site) == []
        await site.start()
        decided = await deciding
        events = await log_of(client)
        found = await client.get_approval(approval.name)

    assert decided.state == found.state == Approval.APPROVED
    assert len(found.decisions) == 1
    assert sent(site) == ["edited" if edited else NOTE]
    order = [kind for kind in kinds(events) if kind.startswith(("approval", "tool_call_started"))]
    assert order == ["approval_requested", "approval_vote_recorded", "approval_decided", "tool_call_started"]
    assert events[-1].thread_ended.state == Thread.COMPLETED


async def test_what_waits_still_waits_after_a_kill_and_runs_only_when_approved(site: Site) -> None:
    await site.start()
    async with site.client() as client:
        approval = await waiting(client, approval_policy=GATED)
        await site.restart()
        again = await pending(client)
        assert (again, sent(site)) == (approval, [])
        await client.decide_approval(again.name, Approval.APPROVE, arguments_digest=again.arguments_digest)
        events = await log_of(client)

    assert events[-1].thread_ended.state == Thread.COMPLETED
    assert sent(site) == [NOTE]


ANSWERS: dict[str, tuple[dict[str, Any], int, str, int]] = {
    "run it again": ({"decision": Approval.APPROVE}, Action.SUCCEEDED, f"send {NOTE}", 2),
    "it is unknown": (
        {"decision": Approval.REJECT},
        Action.UNKNOWN,
        "The outcome of this call is unknown",
        1,
    ),
    "it did happen": (
        {"decision": Approval.APPROVE, "result": {"id": 7}},
        Action.SUCCEEDED,
        '{"id":7}',
        1,
    ),
}
"""A person's answer; the status and beginning of what the model is told, and how often the tool ran."""


@pytest.mark.parametrize("answer", ANSWERS)
async def test_people_say_what_becomes_of_a_call_whose_outcome_a_kill_left_unknown(
    site: Site, answer: str
) -> None:
    given, status, observation, times = ANSWERS[answer]
    await site.start("effect.after=kill")
    async with site.client() as client:
        asking = asyncio.create_task(waiting(client, on_unknown_outcome=Agent.ASK))
        assert await site.ended() == SIGKILLED
        await site.start()
        approval = await asking
        assert (approval.kind, approval.tool) == (Approval.TOOL_OUTCOME, "send")
        assert sent(site) == [NOTE]
        thread = await client.get_thread(THREAD)
        assert thread.state == Thread.WAITING_APPROVAL
        digest = approval.arguments_digest if given["decision"] == Approval.APPROVE else ""
        await client.decide_approval(approval.name, arguments_digest=digest, **given)
        events = await log_of(client)

    (completed,) = [event.tool_call_completed for event in events if event.HasField("tool_call_completed")]
    assert completed.status == status
    assert completed.observation.startswith(observation)
    assert sent(site) == [NOTE] * times
    assert events[-1].thread_ended.state == Thread.COMPLETED
