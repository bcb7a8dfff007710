"""Taking up what another process left: everything, what had begun first, and who holds a session."""

import asyncio
from collections.abc import Sequence

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, left_over, say, use
from tests.engine.workbench import answer
from tests.waiting import eventually
from treadle_server.core.accept import advance, begin_ready
from treadle_server.core.draft import Draft
from treadle_server.core.kinds import Effect, ThreadState
from treadle_server.core.spec import Limits
from treadle_server.core.state import State
from treadle_server.engine.admission import Bounds
from treadle_server.ports.engine import Start
from treadle_server.ports.log import Projection, ThreadKey, Unit


def left_behind(house: House, start: Start, *, begun: bool) -> Unit:
    """A thread as a crash leaves it: waiting for its turn, or in the middle of a model call."""
    draft = advance(State(start.spec), start.ask)
    assert isinstance(draft, Draft)
    if begun:
        begin_ready(draft, draft.now)
    state, records = draft.state, [house.codec.encode(event) for event in draft.events]
    counts = (state.iteration, 0, 0, 0)
    return Unit(
        start.key,
        0,
        records,
        Projection(state.status, 0, *counts, None, state.state_time, state.start_time or None),
        new_thread=start.row,
        enters_session=start.row.session if begun else 0,
    )


async def leave_behind(house: House, starts: Sequence[Start], begun: Sequence[ThreadKey]) -> None:
    units = [left_behind(house, start, begun=start.key in begun) for start in starts]
    await within(asyncio.gather(*(house.store.log.submit(unit).wait() for unit in units)))


async def test_a_thousand_unfinished_threads_are_all_taken_up_those_first_that_ran(build: OpenHouse) -> None:
    first = await build()
    starts = [first.plan(say("fine")) for _ in range(1000)]
    begun = {start.key for start in starts[5::10]}
    await leave_behind(first, starts, [*begun])
    await first.crash()

    second = await build(bounds=Bounds(server_max=20))
    assert await second.recover() == 1000
    await eventually(lambda: second.engine.running_count + second.engine.waiting_count == 0)

    first_seen = list(dict.fromkeys(unit.key for unit in second.log.units))
    assert {*first_seen} == {start.key for start in starts}
    assert {*first_seen[:80]} < begun
    assert await second.store.threads.unfinished(after=0, limit=10) == []
    for start in starts[::50]:
        await second.check_ended(start.key)
    await eventually(lambda: left_over(second.engine) == {} and left_over(second.journal) == {})


async def test_a_session_goes_on_with_the_thread_that_held_it(build: OpenHouse) -> None:
    first = await build()
    session = await first.session()
    # By key the one that waits for its turn comes first.
    waiting, holder = (first.plan(say("fine"), session=session) for _ in range(2))
    await leave_behind(first, [waiting, holder], [holder.key])
    await first.crash()

    second = await build()
    assert await second.recover() == 2
    rows = [await second.ended(start.key) for start in (holder, waiting)]
    assert {row.state for row in rows} == {ThreadState.COMPLETED}
    assert (rows[0].end_time or 0) <= (rows[1].start_time or 0)


async def test_a_session_held_by_a_thread_that_waits_stays_held_after_a_restart(build: OpenHouse) -> None:
    first = await build()
    first.bench.add("ask", asks=True)
    session = await first.session()
    holder = await first.start(use("ask"), say("fine"), session=session)
    await within(first.reached(holder, ThreadState.WAITING_INPUT))
    waiting = await first.start(say("fine"), session=session)
    await first.crash()

    second = await build(bench=first.bench)
    await second.recover()
    await turns(50)
    held = second.engine.waiting(waiting)
    assert held is not None
    assert (held.kind, held.resource) == ("SESSION", f"sessions/s{session}")
    await second.cancel(holder)
    assert (await second.ended(waiting)).state == ThreadState.COMPLETED


async def test_a_thread_that_came_before_the_recovery_gives_way_to_the_holder_of_its_session(
    build: OpenHouse,
) -> None:
    first = await build()
    session = await first.session()
    holder = await first.start({"hang": True}, session=session)
    await first.committed(holder, "model_call_started")
    await first.crash()

    second = await build()
    newcomer = await second.start(say("fine"), session=session)
    await second.recover()
    await second.committed(holder, "execution_recovered")
    second.clock.advance(1.1)
    await turns(50)
    assert (await second.row(newcomer)).state == ThreadState.PENDING

    await second.cancel(holder)
    await second.ended(holder)
    second.clock.advance(1.1)
    assert (await second.ended(newcomer)).state == ThreadState.COMPLETED
    await eventually(lambda: left_over(second.engine) == {})


async def test_a_recovery_that_is_interrupted_is_done_by_the_next(build: OpenHouse) -> None:
    house = await build()
    starts = [house.plan(use("save"), say("fine")) for _ in range(60)]
    await leave_behind(house, starts, [start.key for start in starts[::2]])
    await house.crash()
    for units in (0, 5, 20, 50):
        house = await build()
        house.bench.add("save", answer, Effect.IDEMPOTENT)
        house.log.hold(after_units=units)
        await house.recover()
        await turns(100)
        await house.crash()

    house = await build()
    house.bench.add("save", answer, Effect.IDEMPOTENT)
    await house.recover()
    for start in starts:
        assert (await house.ended(start.key)).state == ThreadState.COMPLETED
        await house.check_ended(start.key)


async def test_an_agents_limit_holds_for_what_is_taken_up(build: OpenHouse) -> None:
    first = await build()
    await first.store.agents.create(1, "a", body=b"", version_body=b"", create_time=1)
    limits = Limits(max_concurrent_threads=2)
    starts = [first.plan({"hang": True}, limits=limits) for _ in range(5)]
    await leave_behind(first, starts, [start.key for start in starts])
    await first.crash()

    second = await build()
    await second.recover()
    assert (second.engine.running_count, second.engine.waiting_count) == (2, 3)
    held = second.engine.waiting(starts[4].key)
    assert held is not None
    assert (held.kind, held.resource) == ("AGENT_LIMIT", "agents/a")


async def test_an_empty_file_has_nothing_to_take_up(house: House) -> None:
    assert await house.recover() == 0
