"""Streams of several threads, followed by cursor over kills of the server: nothing missing, nothing twice."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from tests.faults.scripts import script
from tests.faults.site import AGENT, CHILD_AGENT, GATED_AGENT, Site
from treadle import Approval, Client, Thread, ThreadEvent
from treadle.v1.approval_service_pb2 import WatchApprovalsResponse
from treadle.v1.thread_service_pb2 import WatchThreadResponse

SIGKILLED = -9
DEADLINE_SECONDS = 20.0
KILLS = ("commit.after#3", "publish.before#3", "send.after#3")
"""Committed and told to nobody; told and not sent; sent."""
DELAY_MS = 50
"""Of a model, so that no work is over before the last kill."""
BATCHES_MAX = 2
"""After so many a reader who does not stay leaves, and goes on with another stream."""
APPROVED, REJECTED = Approval.APPROVED, Approval.REJECTED


@dataclass(slots=True)
class Told:
    """What one reader was given, over all its streams."""

    cursor: str = ""
    events: dict[str, list[ThreadEvent]] = field(default_factory=dict)
    approvals: dict[str, list[Approval]] = field(default_factory=dict)
    ended: int = 0

    def take(self, batch: WatchThreadResponse) -> None:
        self.cursor = batch.cursor or self.cursor
        for event in batch.events:
            if event.sequence:
                self.events.setdefault(event.thread, []).append(event)
                self.ended += event.HasField("thread_ended")

    def take_approvals(self, batch: WatchApprovalsResponse) -> None:
        self.cursor = batch.cursor or self.cursor
        for approval in batch.approvals:
            self.approvals.setdefault(approval.name, []).append(approval)

    @property
    def settled(self) -> int:
        return sum(shown[-1].state != Approval.PENDING for shown in self.approvals.values())


Watch = Callable[[str], AsyncGenerator[WatchThreadResponse]]


async def follow(told: Told, watch: Watch, *, ends: int = 0, batches_max: int = 0) -> Told:
    """Reads until it was told of so many ends, or, without a number, until the server says that it is over.

    With `batches_max` it leaves each stream after so many batches and goes on with another at its cursor.
    """
    while not ends or told.ended < ends:
        count = 0
        async with aclosing(watch(told.cursor)) as batches:
            async for batch in batches:
                told.take(batch)
                count += 1
                if count == batches_max or (ends and told.ended >= ends):
                    break
            else:
                return told
    return told


async def killed_often(site: Site) -> None:
    """The server, which is dead, is killed at one place after the other, and is up at the end."""
    for failpoint in KILLS:
        await site.start(f"{failpoint}=kill")
        assert await site.ended() == SIGKILLED, failpoint
    await site.start()


async def logs_of(client: Client, names: Sequence[str]) -> dict[str, list[ThreadEvent]]:
    return {name: [event async for event in client.list_events(name)] for name in names}


async def all_names(client: Client) -> list[str]:
    return [thread.name async for thread in client.list_threads()]


async def test_the_stream_of_a_session_that_is_followed_over_kills_has_each_event_once(site: Site) -> None:
    await site.start()
    async with site.client() as client:
        first = await client.execute(AGENT, data=script("t0", [["look"]]), session_key="room")

        def watch(cursor: str) -> AsyncGenerator[WatchThreadResponse]:
            return client.watch_session(first.session, after_cursor=cursor, include_heartbeats=True)

        begin = await _begin(watch)
        stays, leaves = Told(begin), Told(begin)
        ids = [f"t{number}" for number in range(1, 5)]
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as tasks:
            tasks.create_task(follow(stays, watch, ends=len(ids)))
            tasks.create_task(follow(leaves, watch, ends=len(ids), batches_max=BATCHES_MAX))
            for name in ids:
                tasks.create_task(_work(client, name, "room"))
                tasks.create_task(_work(client, f"other-{name}", "elsewhere"))
            await site.kill()
            await killed_often(site)
        logs = await logs_of(client, [f"threads/{name}" for name in ids])

    assert stays.events == logs
    assert leaves.events == logs


async def _begin(watch: Watch) -> str:
    """The cursor of now."""
    async with aclosing(watch("")) as batches:
        async for batch in batches:
            return batch.cursor
    raise AssertionError("the watch has no end")


async def _work(client: Client, name: str, session_key: str) -> None:
    played = script(name, [["look", "save"], ["look"]], delay_ms=DELAY_MS)
    await client.create_thread(AGENT, data=played, thread_id=name, session_key=session_key, request_id=name)


async def test_who_follows_the_inbox_over_kills_sees_every_approval_and_what_became_of_it(
    site: Site,
) -> None:
    asking, dropped = [f"t{number}" for number in range(3)], "dropped"
    total = 3 * len(asking) + 2
    person, other = Told(), Told()
    await site.start("decision.after=kill")
    async with site.client() as client:
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as tasks:
            tasks.create_task(_decide(client, person, f"threads/{dropped}", total))
            tasks.create_task(_inbox(client, other, total))
            for name in (*asking, dropped):
                played = script(name, [["pay", "pay"], ["pay"]], delay_ms=DELAY_MS)
                tasks.create_task(
                    client.create_thread(GATED_AGENT, data=played, thread_id=name, request_id=name)
                )
            assert await site.ended() == SIGKILLED
            await killed_often(site)
        for name in (*asking, dropped):
            async for _ in client.watch(name):
                pass
        logs = await logs_of(client, await all_names(client))
        now = {name: await client.get_approval(name) for name in person.approvals}

    assert {name.partition("/approvals/")[0] for name in now} == set(logs)
    for told in (person, other):
        assert {name: shown[-1] for name, shown in told.approvals.items()} == now
        for shown in told.approvals.values():
            states = [approval.state for approval in shown]
            assert Approval.PENDING not in states[states.index(shown[-1].state) :]
    assert _recorded(logs) == {name: approval.state for name, approval in now.items()}
    wanted = {name: _wanted(name) for name in now if not name.startswith(f"threads/{dropped}/")}
    assert {name: now[name].state for name in wanted} == wanted
    assert {approval.state for name, approval in now.items() if name not in wanted} == {Approval.CANCELLED}


def _wanted(approval: str) -> Approval.State.ValueType:
    """Every third is rejected."""
    return REJECTED if sum(approval.encode()) % 3 == 0 else APPROVED


def _recorded(logs: dict[str, list[ThreadEvent]]) -> dict[str, int]:
    """What became of each approval that was requested, as the threads' logs say it."""
    requested = [
        f"{name}/approvals/{event.approval_requested.approval_id}"
        for name, log in logs.items()
        for event in log
        if event.HasField("approval_requested")
    ]
    assert len(requested) == len(set(requested))
    decided = {
        f"{name}/approvals/{event.approval_decided.approval_id}": event.approval_decided.state
        for name, log in logs.items()
        for event in log
        if event.HasField("approval_decided")
    }
    return {name: decided[name] for name in requested}


async def _decide(client: Client, told: Told, dropped: str, total: int) -> None:
    """A person who answers what the inbox shows, once, and drops a thread."""
    answered: set[str] = set()
    async with aclosing(client.watch_approvals()) as batches:
        async for batch in batches:
            told.take_approvals(batch)
            for approval in batch.approvals:
                if approval.state == Approval.PENDING and approval.name not in answered:
                    answered.add(approval.name)
                    if approval.thread != dropped:
                        await _answer(client, approval)
                    elif sum(name.startswith(f"{dropped}/") for name in answered) == 2:
                        await client.cancel_thread(dropped, request_id="c")
            if told.settled == total:
                return


async def _answer(client: Client, approval: Approval) -> None:
    way = Approval.APPROVE if _wanted(approval.name) == APPROVED else Approval.REJECT
    digest = approval.arguments_digest if way == Approval.APPROVE else ""
    await client.decide_approval(approval.name, way, arguments_digest=digest, request_id=approval.name)


async def _inbox(client: Client, told: Told, total: int) -> None:
    """One who looks on, and leaves and comes back."""
    while told.settled < total:
        count = 0
        async with aclosing(client.watch_approvals(after_cursor=told.cursor)) as batches:
            async for batch in batches:
                told.take_approvals(batch)
                count += 1
                if count == BATCHES_MAX or told.settled == total:
                    break


def errand(name: str) -> dict[str, Any]:
    return {"name": CHILD_AGENT, "arguments": script(name, [["look"], ["save"]], delay_ms=DELAY_MS)}


def orders(agent: str, arguments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    calls = [{"name": agent, "arguments": each} for each in arguments]
    return {"turns": [{"calls": calls}, {"text": "They are done."}]}


async def test_the_stream_of_a_tree_that_is_followed_over_kills_has_each_event_once_and_ends(
    site: Site,
) -> None:
    whole = orders(
        "lead",
        [orders(CHILD_AGENT, [errand(f"{one}/{two}")["arguments"] for two in "ab"]) for one in "xy"],
    )
    await site.start()
    async with site.client() as client:
        await _make_chief(client)
        await client.create_thread("chief", data=whole, thread_id="tree", request_id="r")

        def watch(cursor: str) -> AsyncGenerator[WatchThreadResponse]:
            return client.watch_tree("tree", after_cursor=cursor)

        stays, leaves = Told(), Told()
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as tasks:
            tasks.create_task(follow(stays, watch))
            tasks.create_task(follow(leaves, watch, batches_max=BATCHES_MAX))
            await site.kill()
            await killed_often(site)
        states = [thread.state async for thread in client.list_threads()]
        logs = await logs_of(client, await all_names(client))

    assert stays.events == logs
    assert leaves.events == logs
    assert states == [Thread.COMPLETED] * 7


async def _make_chief(client: Client) -> None:
    """One who calls a lead, who calls the agent of errands."""
    await client.create_agent(
        "lead",
        model="scripted:",
        input_schema_json='{"type":"object"}',
        subagents=[f"agents/{CHILD_AGENT}"],
    )
    await client.create_agent("chief", model="scripted:", subagents=["agents/lead"])
