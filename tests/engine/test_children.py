"""Agents that call agents: crashes, damage and limits between a parent and its children."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, Turn, say, use
from tests.waiting import eventually
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.ids import child_id
from treadle_server.core.kinds import CallStatus, Effect, ThreadState
from treadle_server.core.spec import ToolSpec
from treadle_server.engine.admission import Bounds
from treadle_server.ports.children import AgentCall
from treadle_server.ports.log import ThreadKey

EXPERT = ToolSpec(
    "expert",
    "agents/expert",
    "an expert",
    '{"type":"object"}',
    Effect.IDEMPOTENT,
    attempts_max=3,
    agent_version="agents/expert/versions/1",
)
CALL = "call-1-1"
HANG: Turn = {"hang": True}


class Experts:
    """Implements `ports.children.Children`: threads whose model plays the same turns."""

    def __init__(self, house: House, *played: Turn) -> None:
        self._house = house
        self._played = played
        self.asked = 0

    async def begin(self, call: AgentCall) -> str:
        self.asked += 1
        name = child_id(call.key.tenant, call.key.thread, call.call_id)
        if await self._house.store.threads.get(call.key.tenant, name) is None:
            start = self._house.plan(*self._played, thread_id=name)
            assert isinstance(start.ask, s.Create)
            parent = e.ParentCall(call.call_id, call.depth)
            ask = replace(start.ask, parent_thread=f"threads/thread-{call.key.thread}", parent_call=parent)
            row = replace(start.row, parent=call.key.thread)
            await self._house.engine.start(replace(start, ask=ask, row=row))
        return f"threads/{name}"


class SlowExperts(Experts):
    """They stop before a thread is made, or after it, until they are let go."""

    def __init__(self, house: House, *, makes_first: bool) -> None:
        super().__init__(house, HANG)
        self._makes_first = makes_first
        self.came, self.go = asyncio.Event(), asyncio.Event()

    async def begin(self, call: AgentCall) -> str:
        name = await super().begin(call) if self._makes_first else ""
        self.came.set()
        await self.go.wait()
        return name or await super().begin(call)


async def opened(build: OpenHouse, *played: Turn, bounds: Bounds | None = None) -> House:
    """A house whose experts play these turns."""
    house = await build(bounds=bounds)
    house.engine.call_agents_by(Experts(house, *(played or (say("42"),))))
    return house


async def started(house: House, *names: str) -> ThreadKey:
    """A thread that calls experts and then answers."""
    return await house.start(use(*(names or ("expert",))), say("fine"), tools=(EXPERT,))


async def child_of(house: House, parent: ThreadKey, call_id: str = CALL) -> ThreadKey:
    await within(house.committed(parent, "child_thread_started"))
    row = await house.store.threads.get(parent.tenant, child_id(parent.tenant, parent.thread, call_id))
    assert row is not None
    return row.key


async def result_of(house: House, parent: ThreadKey) -> e.ToolCallCompleted:
    (completed,) = await house.payloads(parent, e.ToolCallCompleted)
    return completed


def letters(house: House) -> int:
    with closing(sqlite3.connect(house.path)) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM mail").fetchall()
    return int(count)


async def test_a_crash_after_any_append_of_a_tree_changes_nothing(build: OpenHouse) -> None:
    place, crashed = 0, True
    while crashed:
        first = await opened(build)
        before = len(first.log.units)
        key = await started(first, "expert", "expert")
        first.log.hold(after_units=place)
        while not first.log.held and ThreadState((await first.row(key)).state) is not ThreadState.COMPLETED:
            await turns(5)
        crashed = first.log.held
        assert len(first.log.units) - before <= 60
        await first.crash()

        second = await opened(build)
        await second.recover()
        row = await second.ended(key)
        kinds = await second.kinds(key)
        assert (row.state, kinds.count("child_thread_started")) == (ThreadState.COMPLETED, 2)
        assert kinds.count("child_thread_ended") == 2
        await second.check_ended(key)
        assert letters(second) == 0
        await second.stop()
        second.path.unlink()
        place += 1
    assert place > 10


async def test_a_child_that_ends_by_its_row_alone_answers_its_parent(build: OpenHouse) -> None:
    house = await opened(build, HANG)
    key = await started(house)
    child = await child_of(house, key)

    house.engine.condemn(child, 0, Refused(Reason.RECORD_CORRUPT, "damaged"))
    row = await house.ended(key)

    completed = await result_of(house, key)
    assert (row.state, completed.status) == (ThreadState.COMPLETED, CallStatus.FAILED)
    assert completed.observation == (
        "The agent ended FAILED (DATA_LOSS): what is stored of the thread is damaged."
    )


async def test_an_answer_that_is_damaged_on_its_way_is_asked_for_again(build: OpenHouse) -> None:
    first = await opened(build, HANG)
    key = await started(first)
    child = await child_of(first, key)
    first.engine._postman.draining = True  # as a crash between the commit and the delivery leaves it
    await first.cancel(child)
    await first.ended(child)
    await first.crash()
    with closing(sqlite3.connect(first.path)) as connection:
        (changed,) = connection.execute("UPDATE mail SET body = x'ff' RETURNING position").fetchall()
        connection.commit()
    assert changed

    second = await opened(build)
    await second.recover()
    row = await second.ended(key)

    completed = await result_of(second, key)
    assert (row.state, completed.status) == (ThreadState.COMPLETED, CallStatus.CANCELLED)
    assert letters(second) == 0


async def test_a_parent_in_a_full_house_makes_room_for_its_child(build: OpenHouse) -> None:
    house = await opened(build, bounds=Bounds(server_max=1, tenant_max=1, tenant_waiting_max=1))
    key = await started(house, "expert", "expert")

    assert (await house.ended(key)).state == ThreadState.COMPLETED


async def test_a_child_of_a_thread_that_has_ended_is_not_made(build: OpenHouse) -> None:
    house = await opened(build)
    key = await house.run(say("fine"))
    experts = Experts(house, say("42"))

    with pytest.raises(Refused) as refused:
        await experts.begin(AgentCall(key, CALL, EXPERT.agent_version, "{}", 1, ""))

    assert refused.value.reason is Reason.THREAD_STATE_CONFLICT


async def cancelled_meanwhile(house: House, experts: SlowExperts) -> ThreadKey:
    """A thread that was told to end while one that it calls was being made."""
    house.engine.call_agents_by(experts)
    key = await started(house)
    await within(experts.came.wait())
    await house.cancel(key)
    await turns(50)
    return key


async def test_a_cancel_waits_for_the_end_of_a_child_that_is_being_made(build: OpenHouse) -> None:
    house = await build()
    experts = SlowExperts(house, makes_first=True)
    key = await cancelled_meanwhile(house, experts)

    assert (await house.row(key)).state == ThreadState.RUNNING
    experts.go.set()
    assert (await house.ended(key)).state == ThreadState.CANCELLED
    (ended,) = await house.payloads(key, e.ChildThreadEnded)
    assert ended.state is ThreadState.CANCELLED
    assert (await house.row(await child_of(house, key))).state == ThreadState.CANCELLED


async def test_no_child_is_made_after_the_cancel_of_its_parent(build: OpenHouse) -> None:
    house = await build()
    experts = SlowExperts(house, makes_first=False)
    key = await cancelled_meanwhile(house, experts)

    experts.go.set()
    assert (await house.ended(key)).state == ThreadState.CANCELLED
    await turns(50)
    name = child_id(key.tenant, key.thread, CALL)
    assert await house.store.threads.get(key.tenant, name) is None
    assert letters(house) == 0


async def test_pause_and_resume_reach_a_child_in_their_order(build: OpenHouse) -> None:
    house = await opened(build, HANG)
    key = await started(house)
    child = await child_of(house, key)
    now = house.clock.now

    for _ in range(6):
        await within(house.engine.ask(key, s.Pause(now())))
        await within(house.engine.ask(key, s.Resume(now())))
    await within(house.committed(child, "control_requested", 12))

    controls = [control.command.name for control in await house.payloads(child, e.ControlRequested)]
    assert controls == ["PAUSE", "RESUME"] * 6
    await house.cancel(key)
    assert (await house.ended(child)).state == ThreadState.CANCELLED


async def test_nothing_is_left_of_a_tree_that_has_ended(build: OpenHouse) -> None:
    house = await opened(build)
    key = await started(house, "expert", "expert")
    await house.ended(key)

    await eventually(lambda: house.engine.running_count == 0)
    await eventually(lambda: letters(house) == 0)
    await eventually(lambda: not house.engine._postman._told)
