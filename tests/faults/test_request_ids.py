"""One request id, a hundred callers at once, in every way to start a thread: one thread, killed or not."""

import asyncio
from collections import Counter

import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.scripts import Script, script
from tests.faults.site import AGENT, Site
from treadle import AlreadyExists, Client, Thread, ThreadEvent

CALLERS = 100
REQUEST = "once"
TURNS = (("save", "send"), ("look",))
SIGKILLED = -9


async def execute(client: Client, body: Script) -> str:
    """Answers once the thread has ended."""
    thread = await client.execute(AGENT, data=body, request_id=REQUEST)
    assert thread.state == Thread.COMPLETED
    assert len(thread.iterations) == len(TURNS) + 1
    return thread.name


async def stream(client: Client, body: Script) -> str:
    """Gives all events of the thread."""
    events = [event async for event in client.stream(AGENT, data=body, request_id=REQUEST)]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].HasField("thread_ended")
    return events[0].thread


async def create(client: Client, body: Script) -> str:
    """Answers at once."""
    return (await client.create_thread(AGENT, data=body, request_id=REQUEST)).name


WAYS = (execute, stream, create)


@pytest.mark.parametrize(
    "failpoint",
    ["", "request.before=kill", "commit.before@2=kill", "commit.after@2=kill", "effect.after=kill"],
)
async def test_a_request_id_used_a_hundred_times_at_once_makes_one_thread(site: Site, failpoint: str) -> None:
    await site.start(failpoint)
    body = script("once", TURNS)
    async with site.client() as client:
        callers = [asyncio.create_task(WAYS[number % 3](client, body)) for number in range(CALLERS)]
        if failpoint:
            assert await site.ended() == SIGKILLED
            await site.start()
        names = await asyncio.gather(*callers)
        acknowledged = [Acknowledged(REQUEST, name) for name in names]
        history = await History(acknowledged, ledger=site.ledger.all()).read(client)

    check(history)
    assert len(history.threads) == 1
    calls = Counter(line.note for line in history.effects)
    assert calls["once/1/2"] <= 1
    assert failpoint or calls == {"once/1/1": 1, "once/1/2": 1, "once/2/1": 1}


async def test_a_request_id_means_what_it_was_first_used_for_also_after_a_kill(site: Site) -> None:
    await site.start()
    bodies = [script("first", TURNS), script("other", TURNS)]
    async with site.client() as client:
        asked = [(way, number % 2) for number, way in enumerate(WAYS * 8)]
        answers = await asyncio.gather(
            *(way(client, bodies[which]) for way, which in asked), return_exceptions=True
        )
        winners = {
            which for (_, which), answer in zip(asked, answers, strict=True) if isinstance(answer, str)
        }
        assert len(winners) == 1
        (winner,) = winners
        for (_, which), answer in zip(asked, answers, strict=True):
            refused = isinstance(answer, AlreadyExists) and answer.reason == "REQUEST_ID_REUSED"
            assert refused == (which != winner), answer

        await site.restart()

        (name,) = {answer for answer in answers if isinstance(answer, str)}
        for way in WAYS:
            assert await way(client, bodies[winner]) == name
            with pytest.raises(AlreadyExists, match="REQUEST_ID_REUSED"):
                await way(client, bodies[1 - winner])
        history = await History([Acknowledged(REQUEST, name)], ledger=site.ledger.all()).read(client)

    check(history)
    assert len(history.threads) == 1


async def test_a_stream_that_attaches_by_its_request_id_can_begin_after_a_sequence(site: Site) -> None:
    await site.start()
    body = script("once", TURNS)
    async with site.client() as client:
        whole: list[ThreadEvent] = [
            event async for event in client.stream(AGENT, data=body, request_id=REQUEST)
        ]
        await site.restart()
        rest = [
            event
            async for event in client.stream(
                AGENT, data=body, request_id=REQUEST, after_sequence=whole[4].sequence
            )
        ]

    assert rest == whole[5:]
