"""Sessions across kills: a model is told the same again, an input is handed over once."""

import asyncio
import json

import pytest

from tests.faults.site import Site
from treadle import Thread, ThreadContext, ThreadEvent

SIGKILLED = -9
TOLD = "scripted:" + json.dumps({"turns": [{"text": "Told:\n{recalled}"}]})
HANGING = "scripted:" + json.dumps({"turns": [{"hang": True}]})


async def log_of(site: Site, thread: str) -> list[ThreadEvent]:
    async with site.client() as client:
        return [event async for event in client.list_events(thread)]


async def make(site: Site, model: str) -> None:
    """The agent `talker`, by a server that is then killed."""
    await site.start()
    async with site.client() as client:
        await client.create_agent("talker", model=model)
    await site.kill()


@pytest.mark.parametrize(
    "failpoint",
    ["commit.before@3", "commit.after@3", "intent.before", "intent.after", "model.before", "model.after"],
)
async def test_what_was_said_is_told_once_and_the_same_after_a_kill(site: Site, failpoint: str) -> None:
    await make(site, TOLD)
    await site.start()
    async with site.client() as client:
        await client.execute("talker", "One.", thread_id="t1", session_key="room")
        await site.kill()
        await site.start(f"{failpoint}=kill")
        asking = asyncio.create_task(
            client.execute("talker", "Two.", thread_id="t2", session_key="room", request_id="r")
        )
        assert await site.ended() == SIGKILLED
        await site.start()
        thread = await asking

    assert thread.output.text == "Told:\nuser: One.\nagent: Told:\n"
    recalled = [
        each.history_recalled for each in await log_of(site, "t2") if each.HasField("history_recalled")
    ]
    assert [[said.content.text for said in each.messages] for each in recalled] == [["One.", "Told:\n"]]


@pytest.mark.parametrize(
    "failpoint", ["commit.before@1", "commit.after@1", "request.before", "request.after"]
)
async def test_the_call_that_starts_a_session_gives_its_context_though_it_had_to_be_repeated(
    site: Site, failpoint: str
) -> None:
    await make(site, TOLD)
    await site.start(f"{failpoint}=kill")
    async with site.client() as client:
        context = ThreadContext(initial="Speak French.")
        asking = asyncio.create_task(
            client.execute(
                "talker", "One.", thread_id="t1", session_key="room", context=context, request_id="r"
            )
        )
        assert await site.ended() == SIGKILLED
        await site.start()
        thread = await asking
        session = await client.lookup_session("room")

    assert thread.output.text == "Told:\ncontext: Speak French."
    created = (await log_of(site, "t1"))[0].thread_created
    assert not created.initial_context_ignored
    assert session.context_initial == "Speak French."


@pytest.mark.parametrize("failpoint", ["request.before", "request.after", "commit.after"])
async def test_an_input_that_steers_is_handed_over_once(site: Site, failpoint: str) -> None:
    await make(site, HANGING)
    await site.start()
    async with site.client() as client:
        await client.create_thread("talker", "One.", thread_id="t1", session_key="room")
        await site.kill()
        await site.start()  # what the thread does on being taken up is over when the next one starts
        async for event in client.watch("t1"):
            if event.HasField("execution_recovered"):
                break
        await site.kill()
        await site.start(f"{failpoint}=kill")
        steering = asyncio.create_task(
            client.create_thread(
                "talker", "Two.", session_key="room", busy_policy=Thread.STEER, request_id="r"
            )
        )
        assert await site.ended() == SIGKILLED
        await site.start()
        assert (await steering).name == "threads/t1"

    inputs = [
        event.input_received.content.text
        for event in await log_of(site, "t1")
        if event.HasField("input_received")
    ]
    assert inputs == ["One.", "Two."]


async def test_a_thread_that_interrupts_does_so_though_the_server_dies_before_the_other_hears(
    site: Site,
) -> None:
    await make(site, HANGING)
    await site.start("mail.before=kill")
    async with site.client() as client:
        await client.create_thread("talker", "One.", thread_id="t1", session_key="room")
        interrupting = asyncio.create_task(
            client.create_thread(
                "talker",
                "Two.",
                thread_id="t2",
                session_key="room",
                busy_policy=Thread.INTERRUPT,
                request_id="r",
            )
        )
        assert await site.ended() == SIGKILLED
        await site.start()
        await interrupting
        async for _ in client.watch("t1"):
            pass
        first = await client.get_thread("t1")
        async for event in client.watch("t2"):
            if event.HasField("model_call_started"):
                break

    assert (first.state, first.stop_reason) == (Thread.CANCELLED, Thread.INTERRUPTED)
