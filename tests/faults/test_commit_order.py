"""What must not happen before a commit: nobody is answered, nobody is shown anything, nothing is called.

The store hangs before it commits. What waits for that commit does not come; then the server is killed.
"""

import asyncio

import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.scripts import script
from tests.faults.site import AGENT, Site, eventually
from tests.faults.watching import Seen, watch, watching
from treadle import DeadlineExceeded, ThreadEvent

THREAD = "order"
BLOCKED_SECONDS = 0.5
"""An answer that nothing holds back takes a hundredth of it."""


async def whole_log(site: Site) -> list[ThreadEvent]:
    """Of the thread that the tests run, from a server without failpoints: what stands at which sequence."""
    await site.start()
    async with site.client() as client:
        log = [event async for event in client.stream(AGENT, data=script("whole", [["send"]]))]
    await site.kill()
    return log


def place_of(log: list[ThreadEvent], kind: str) -> int:
    return next(event.sequence for event in log if event.WhichOneof("payload") == kind)


async def blocked(site: Site) -> None:
    """Returns once the store takes nothing more, while the server goes on answering."""
    async with site.client(timeout=BLOCKED_SECONDS) as impatient:
        with pytest.raises(DeadlineExceeded):
            await impatient.create_thread(AGENT, data=script("late", [[]]), request_id="late")
        assert (await impatient.get_server_info()).version


async def finish(site: Site, seen: list[Seen]) -> History:
    """Restarts the server and waits for the end of the thread and of its watchers."""
    await site.restart()
    async with site.client() as client, site.channel() as channel:
        made = await client.create_thread(AGENT, data=script(THREAD, [["send"]]), thread_id=THREAD, request_id="r")
        late = await client.create_thread(AGENT, data=script("late", [[]]), request_id="late")
        for each in seen:
            await watch(each, watching(channel, made.name))
        for name in (made.name, late.name):
            async for _ in client.watch(name):
                pass
        acknowledged = [Acknowledged("r", made.name), Acknowledged("late", late.name)]
        history = History(acknowledged, seen, ledger=site.ledger.lines())
        del history.ledger[: sum(line.note.startswith("whole") for line in history.ledger)]
        await history.read(client)
    history.threads = {name: thread for name, thread in history.threads.items() if name in (made.name, late.name)}
    check(history)
    return history


async def test_a_thread_is_not_acknowledged_before_it_is_committed(site: Site) -> None:
    await site.start("commit.before@1=hang")
    async with site.client(timeout=BLOCKED_SECONDS) as impatient:
        with pytest.raises(DeadlineExceeded):
            await impatient.create_thread(
                AGENT, data=script(THREAD, [["send"]]), thread_id=THREAD, request_id="r"
            )

    history = await finish(site, [])

    assert len(history.threads) == 2


@pytest.mark.parametrize("kind", ["message_completed", "tool_call_completed", "thread_ended"])
async def test_an_event_is_not_shown_before_it_is_committed(site: Site, kind: str) -> None:
    place = place_of(await whole_log(site), kind)
    await site.start(f"commit.before@{place}=hang")
    async with site.client() as client, site.channel() as channel:
        made = await client.create_thread(AGENT, data=script(THREAD, [["send"]]), thread_id=THREAD, request_id="r")
        seen = Seen("watcher", made.name)
        watcher = asyncio.create_task(watch(seen, watching(channel, made.name)))
        await eventually(lambda: seen.last > 0)
        await blocked(site)
        shown = seen.last
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)

    await finish(site, [seen])

    assert 0 < shown < place


async def test_a_call_at_most_once_is_not_made_before_its_intent_is_committed(site: Site) -> None:
    place = place_of(await whole_log(site), "tool_call_started")
    await site.start(f"commit.before@{place}=hang")
    async with site.client() as client:
        await client.create_thread(AGENT, data=script(THREAD, [["send"]]), thread_id=THREAD, request_id="r")
        await blocked(site)
        made = site.ledger.lines(f"{THREAD}/1/1")

    await finish(site, [])

    assert made == []
    assert len(site.ledger.lines(f"{THREAD}/1/1")) == 1
