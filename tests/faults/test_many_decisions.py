"""Many people who decide at once, and out of order: one decision holds, and each call runs with its own."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from tests.faults.evidence import Acknowledged, Decided, History, Steered
from tests.faults.history import check
from tests.faults.ledger import BEGUN
from tests.faults.scripts import script
from tests.faults.site import AGENT, GATED_AGENT, Site
from tests.waiting import eventually
from treadle import Approval, Client, Thread, TreadleError

THREAD = "asks"
NAME = f"threads/{THREAD}"
DECIDERS = 100
CHANGED = "asks/1/1/changed-{}"


async def pending(client: Client, count: int) -> list[Approval]:
    """In the order of the calls that they are about."""
    async with aclosing(client.watch(THREAD)) as events:
        async for event in events:
            if event.state_changed.to == Thread.WAITING_APPROVAL:
                break
    found = [approval async for approval in client.list_approvals(THREAD)]
    assert len(found) == count
    return sorted(found, key=lambda approval: approval.tool_call_id)


async def history_of(site: Site, client: Client, **told: Any) -> History:
    async for _ in client.watch(THREAD):
        pass
    history = History([Acknowledged("r", NAME)], ledger=site.ledger.all(), **told)
    return await history.read(client)


async def want(client: Client, approval: Approval, number: int) -> Decided | str:
    """One of a hundred people, of whom no two want the same; or why it was refused."""
    if number == 0:
        way, note = Approval.REJECT, ""
    else:
        way, note = Approval.APPROVE, CHANGED.format(number)
    try:
        await client.decide_approval(
            approval.name,
            way,
            arguments_digest=approval.arguments_digest,
            arguments={"note": note} if note else None,
            request_id=f"decision-{number}",
        )
    except TreadleError as refused:
        return refused.reason
    return Decided(
        NAME, approval.name.rpartition("/")[2], Approval.APPROVED if note else Approval.REJECTED, note
    )


@pytest.mark.parametrize("killed", [False, True])
async def test_of_a_hundred_conflicting_decisions_one_holds_and_its_effect_happens_once(
    site: Site, killed: bool
) -> None:
    await site.start()
    async with site.client() as client:
        await client.create_thread(
            GATED_AGENT, data=script(THREAD, [["pay"]]), thread_id=THREAD, request_id="r"
        )
        (approval,) = await pending(client, 1)
        if killed:
            await site.kill()
            await site.start("decision.after=kill")
        deciding = asyncio.gather(*(want(client, approval, number) for number in range(DECIDERS)))
        if killed:
            assert await site.ended() != 0
            await site.start()
        answers = await deciding
        accepted = [answer for answer in answers if isinstance(answer, Decided)]
        history = await history_of(site, client, decided=accepted)

    check(history)
    assert len(accepted) == 1
    assert set(answers) - {*accepted} == {"APPROVAL_ALREADY_DECIDED"}
    assert [line.note for line in history.effects] == ([accepted[0].edited] if accepted[0].edited else [])


async def test_approvals_that_are_answered_in_reverse_run_with_their_own_arguments(site: Site) -> None:
    await site.start()
    async with site.client() as client:
        await client.create_thread(
            GATED_AGENT, data=script(THREAD, [["pay", "pay", "pay"]]), thread_id=THREAD, request_id="r"
        )
        first, second, third = await pending(client, 3)
        await client.decide_approval(third.name, Approval.APPROVE, arguments_digest=third.arguments_digest)
        await client.decide_approval(
            second.name,
            Approval.APPROVE,
            arguments_digest=second.arguments_digest,
            arguments={"note": "asks/1/2/changed"},
        )
        with pytest.raises(TreadleError) as stale:
            await client.decide_approval(
                first.name, Approval.APPROVE, arguments_digest=second.arguments_digest
            )
        await client.decide_approval(first.name, Approval.APPROVE, arguments_digest=first.arguments_digest)
        history = await history_of(site, client)

    check(history)
    assert stale.value.reason == "APPROVAL_STALE"
    assert {line.call_id: line.note for line in history.effects} == {
        first.tool_call_id: "asks/1/1",
        second.tool_call_id: "asks/1/2/changed",
        third.tool_call_id: "asks/1/3",
    }


async def test_an_input_that_was_acknowledged_is_taken_once_after_a_kill(site: Site) -> None:
    """While a tool is at work, so that no iteration has taken it yet."""
    work = script(THREAD, [["save"]], more={"save": {"gate": "open"}})
    work["turns"] += [{"text": "done again"}]
    await site.start()
    async with site.client() as client:
        await client.create_thread(AGENT, data=work, thread_id=THREAD, request_id="r")
        await eventually(lambda: bool(site.ledger.lines("asks/1/1", step=BEGUN)))
        await client.send_thread_input(THREAD, "be quick")
        await site.restart()
        site.open_gate("open")
        history = await history_of(site, client, steered=[Steered(NAME, "be quick")])

    check(history)
    taken = [list(event.iteration_started.consumed_inputs) for event in history.logs[NAME]]
    assert [len(inputs) for inputs in taken if inputs] == [1, 1]
    assert history.threads[NAME].stop_reason == Thread.FINISHED
