"""A server killed while it records what a caller asks of a thread: it is done once, answered or not."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.scripts import Script, script
from tests.faults.site import AGENT, Site
from treadle import Action, Client, Thread, ThreadEvent
from treadle.v1.thread_pb2 import ClientTool

THREAD = "asked"
QUESTION, CLIENT_CALL = "call-1-1", "call-1-2"
OPEN_FILE = ClientTool(name="open_file", description="Opens a file of the caller's.")
ASKS: Script = {
    "turns": [
        {"calls": [{"name": "ask_user", "arguments": {"question": "Which?"}}, {"name": "open_file"}]},
        {"text": "done with {observations[0]} and {observations[1]}"},
        {"text": "done twice"},
    ]
}
SIGKILLED = -9


@dataclass(frozen=True)
class Control:
    """What is asked, of a thread that waits for an answer and for its client."""

    ask: Callable[[Client], Awaitable[Thread]]
    event: str
    """What it leaves in the log, once."""
    count: int = 1
    """How often that is there then, with what the finish of the test adds."""
    before: Callable[[Client], Awaitable[Any]] | None = None


CONTROLS = {
    "answer": Control(
        lambda c: c.send_thread_input(THREAD, "blue", tool_call_id=QUESTION), "input_received", 2
    ),
    "steer": Control(lambda c: c.send_thread_input(THREAD, "be quick"), "input_received", 3),
    "result": Control(
        lambda c: c.submit_tool_result(THREAD, CLIENT_CALL, result=7), "tool_call_completed", 2
    ),
    "pause": Control(lambda c: c.pause_thread(THREAD), "control_requested", 2),
    "resume": Control(
        lambda c: c.resume_thread(THREAD), "control_requested", 2, before=lambda c: c.pause_thread(THREAD)
    ),
    "complete": Control(lambda c: c.complete_thread(THREAD, Thread.COMPLETED), "control_requested"),
    "cancel": Control(lambda c: c.cancel_thread(THREAD), "control_requested"),
}


async def until(client: Client, state: Thread.State.ValueType) -> None:
    """Returns once the thread has gone to a state, at least once."""
    async with aclosing(client.watch(THREAD)) as events:
        async for event in events:
            if event.state_changed.to == state:
                return


async def finish(client: Client) -> Thread:
    """Brings the thread to its end: resumes it, answers what is open."""
    thread = await client.get_thread(THREAD)
    if thread.state == Thread.PAUSED:
        thread = await client.resume_thread(THREAD)
    for waiting in thread.waiting_for:
        if waiting.resource == QUESTION:
            await client.send_thread_input(THREAD, "blue", tool_call_id=QUESTION)
        else:
            await client.submit_tool_result(THREAD, CLIENT_CALL, result=7)
    async for _ in client.watch(THREAD):
        pass
    return await client.get_thread(THREAD)


def kinds(log: list[ThreadEvent]) -> list[str]:
    return [str(event.WhichOneof("payload")) for event in log]


@pytest.mark.parametrize("failpoint", ["request.before", "request.after"])
@pytest.mark.parametrize("name", CONTROLS)
async def test_a_control_takes_effect_once_though_the_server_dies_of_it(
    site: Site, name: str, failpoint: str
) -> None:
    control = CONTROLS[name]
    await site.start()
    async with site.client() as client:
        await client.create_thread(
            AGENT, data=ASKS, thread_id=THREAD, request_id="r", client_tools=[OPEN_FILE]
        )
        await until(client, Thread.WAITING_INPUT)
        if control.before is not None:
            await control.before(client)
        await site.kill()
        await site.start(f"{failpoint}=kill")

        asking = asyncio.ensure_future(control.ask(client))
        assert await site.ended() == SIGKILLED
        await site.start()
        answered = await asking
        ended = await finish(client)
        history = await History([Acknowledged("r", f"threads/{THREAD}")], ledger=site.ledger.all()).read(
            client
        )

    check(history)
    log = history.logs[f"threads/{THREAD}"]
    assert kinds(log).count(control.event) == control.count
    if name == "pause":
        assert answered.state == Thread.PAUSED
    if name in ("complete", "cancel"):
        assert answered.end_time == ended.end_time
    else:
        assert ended.state == Thread.COMPLETED
        assert [
            event.tool_call_completed.observation for event in log if event.HasField("tool_call_completed")
        ] in (
            ["blue", "7"],
            ["7", "blue"],
        )


async def test_a_pause_that_waits_for_a_call_survives_a_kill_and_repeats_nothing(site: Site) -> None:
    await site.start()
    async with site.client() as client:
        body = script(THREAD, [["send"], ["look"]], more={"send": {"gate": "never"}})
        await client.create_thread(AGENT, data=body, thread_id=THREAD, request_id="r")
        async with aclosing(client.watch(THREAD)) as events:
            async for event in events:
                if event.HasField("tool_call_started"):
                    break
        pending = await client.pause_thread(THREAD)
        await site.restart()

        await until(client, Thread.PAUSED)
        paused = await client.get_thread(THREAD, view=Thread.FULL)
        ended = await finish(client)
        history = await History([Acknowledged("r", f"threads/{THREAD}")], ledger=site.ledger.all()).read(
            client
        )

    check(history)
    assert (pending.state, pending.pending_command) == (Thread.RUNNING, Thread.PAUSE)
    assert paused.pending_command == 0
    assert [action.status for action in paused.iterations[0].actions] == [Action.UNKNOWN]
    assert ended.state == Thread.COMPLETED


async def test_a_question_waits_across_kills(site: Site) -> None:
    await site.start()
    async with site.client() as client:
        await client.create_thread(
            AGENT, data=ASKS, thread_id=THREAD, request_id="r", client_tools=[OPEN_FILE]
        )
        await until(client, Thread.WAITING_INPUT)
        before = await client.get_thread(THREAD, view=Thread.FULL)
        for _ in range(2):
            await site.restart()
        after = await client.get_thread(THREAD, view=Thread.FULL)
        ended = await finish(client)

    assert after == before
    assert ended.output.text == "done with blue and 7"
