"""A server killed around what threads do with their children: each is made once, and answers once."""

import asyncio
from typing import Any

import pytest

from tests.faults.caller import now
from tests.faults.history import Acknowledged, Ended, History, check
from tests.faults.ledger import BEGUN
from tests.faults.scripts import script
from tests.faults.site import BOSS_AGENT, CHILD_AGENT, Site
from tests.waiting import eventually
from treadle import Thread

SIGKILLED = -9
BOSS = "boss"
NAME = f"threads/{BOSS}"
ENDED_SECONDS = 20.0
"""After which the history says what is wrong."""
PLACES = ("child.before", "child.after", "mail.before")


def errand(name: str, **more: Any) -> dict[str, Any]:
    work = script(f"{BOSS}/{name}", [["save", "send"]], more={"save": more} if more else None)
    work["turns"][-1]["text"] = f"{name} is done"
    return {"name": CHILD_AGENT, "arguments": work}


def orders(*errands: dict[str, Any]) -> dict[str, Any]:
    return {"turns": [{"calls": list(errands)}, {"text": "{observations[0]}, {observations[1]}"}]}


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("place", PLACES)
async def test_a_kill_around_a_child_repeats_and_loses_none(site: Site, place: str, nth: int) -> None:
    await site.start(f"{place}#{nth}=kill")
    async with site.client() as client:
        running = asyncio.create_task(
            client.execute(
                BOSS_AGENT, data=orders(errand("one"), errand("two")), thread_id=BOSS, request_id="r"
            )
        )
        assert await site.ended() == SIGKILLED
        await site.start()
        await asyncio.wait([running], timeout=ENDED_SECONDS)
        history = await History([Acknowledged("r", NAME)], ledger=site.ledger.all()).read(client)
        check(history)
        thread = await running

    assert thread.output.text == "one is done, two is done"
    assert len(history.threads) == 3


async def test_a_cancel_that_a_kill_interrupts_ends_the_whole_tree(site: Site) -> None:
    """What waits for a person as well as what is at work."""
    asks = {"turns": [{"calls": [{"name": "ask_user", "arguments": {"question": "Which?"}}]}]}
    waits = {"name": CHILD_AGENT, "arguments": asks}
    await site.start()
    async with site.client() as client:
        await client.create_thread(
            BOSS_AGENT, data=orders(errand("held", gate="never"), waits), thread_id=BOSS, request_id="r"
        )
        await eventually(lambda: bool(site.ledger.lines(f"{BOSS}/held/1/1", step=BEGUN)))
        await site.kill()
        await site.start("mail.before=kill")
        cancelling = asyncio.create_task(client.cancel_thread(BOSS, request_id="c"))
        assert await site.ended() == SIGKILLED
        await site.start()
        ended = Ended((await cancelling).name, Thread.CANCELLED, now())

        async def over() -> bool:
            states = [thread.state async for thread in client.list_threads()]
            return set(states) == {Thread.CANCELLED}

        await eventually(over, what="a tree of which something lives")
        history = await History([Acknowledged("r", ended.thread)], ledger=site.ledger.all()).read(client)
        history.ended.append(ended)

    check(history)
    assert len(history.threads) == 3
