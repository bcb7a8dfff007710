"""The engine in a process: who is told when, what a drain leaves, timers, sessions, and what goes wrong."""

import asyncio

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, left_over, say, use
from tests.engine.workbench import Gate, Workbench, answer
from tests.stores.kit import StatementWork, execute
from tests.waiting import eventually
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import CallStatus, Decision, Effect, StopReason, ThreadState
from treadle_server.core.policy import arguments_digest
from treadle_server.core.spec import SECOND_MICROS, Limits
from treadle_server.core.values import Content
from treadle_server.engine.admission import Bounds
from treadle_server.ports.engine import Waiting
from treadle_server.ports.log import ThreadKey
from treadle_server.stores.sqlite.statements import Answer


async def approve(house: House, key: ThreadKey, call_id: str = "call-1-1") -> None:
    digest = arguments_digest("{}")
    ask = s.Decide(house.clock.now(), f"approval-{call_id}", Decision.APPROVE, "users/bob", digest)
    await within(house.engine.ask(key, ask))


async def test_who_waits_for_the_end_is_told_after_the_commit(house: House) -> None:
    async def hold(_: object) -> str:
        house.log.hold()
        return "held"

    house.bench.add("finish", hold, Effect.READ_ONLY, finishes=True)
    key = await house.start(use("finish"))
    waits = [asyncio.create_task(wait(key)) for wait in (house.engine.resting, house.engine.ended)]
    await eventually(lambda: house.log.waiting == 1)
    await turns(100)
    assert not any(wait.done() for wait in waits)

    house.log.release()
    await within(asyncio.gather(*waits))
    assert (await house.row(key)).state == ThreadState.COMPLETED


async def test_who_waits_for_rest_is_told_when_a_person_is_asked(house: House) -> None:
    house.bench.add("pay", effect=Effect.AT_MOST_ONCE, approvers_needed=1)
    start = house.plan(use("pay"), say("fine"))
    rests, ends = house.engine.resting(start.key), asyncio.create_task(house.engine.ended(start.key))
    rest = asyncio.create_task(rests)
    await turns(1)
    await within(house.engine.start(start))

    await within(rest)
    assert (await house.row(start.key)).state == ThreadState.WAITING_APPROVAL
    assert not ends.done()
    await approve(house, start.key)
    await within(ends)


async def test_who_waits_and_goes_away_leaves_nothing(house: House) -> None:
    gate = Gate()
    house.bench.add("look", gate)
    key = await house.start(use("look"), say("fine"))
    waits = [asyncio.create_task(house.engine.ended(key)) for _ in range(3)]
    await turns()
    for wait in waits:
        wait.cancel()
    gate.open()
    await house.ended(key)

    await eventually(lambda: left_over(house.engine) == {})


async def test_a_start_whose_caller_goes_away_runs_all_the_same(house: House) -> None:
    start = house.plan(say("fine"))
    house.log.hold()
    call = asyncio.create_task(house.engine.start(start))
    await eventually(lambda: house.log.waiting == 1)
    call.cancel()
    await turns()
    house.log.release()

    await within(house.committed(start.key, "thread_ended"))
    assert (await house.row(start.key)).state == ThreadState.COMPLETED


async def test_the_first_events_of_a_thread_are_not_read_again_to_drive_it(house: House) -> None:
    before = house.store.readers.reads
    start = house.plan(say("fine"))
    await within(house.engine.start(start))
    await eventually(lambda: left_over(house.engine) == {})

    assert house.store.readers.reads == before


# Drain


def mixed(gates: dict[str, Gate]) -> Workbench:
    bench = Workbench()
    bench.add("look", gates["look"])
    bench.add("save", gates["save"], Effect.IDEMPOTENT)
    bench.add("send", gates["send"], Effect.AT_MOST_ONCE)
    bench.add("quick", answer)
    return bench


async def test_a_drain_loses_nothing_of_fifty_threads_in_flight(build: OpenHouse) -> None:
    gates = {name: Gate() for name in ("look", "save", "send")}
    first = await build(bench=mixed(gates), bounds=Bounds(server_max=40))
    plays = [(use("look"),), (use("save"),), (use("send"),), (use("quick"), {"hang": True}), ()]
    keys = [await first.start(*plays[number % 5], use("quick"), say("fine")) for number in range(50)]
    await eventually(lambda: gates["send"].inside >= 8 and first.engine.running_count == 40)
    stopping = asyncio.create_task(first.stop(5))
    await turns(50)
    gates["send"].open()
    await within(stopping)
    assert gates["look"].inside == gates["save"].inside == 0

    for gate in gates.values():
        gate.open()
    second = await build(bench=mixed(gates))
    hung = [key for number, key in enumerate(keys) if number % 5 == 3]
    await second.recover()
    for key in keys:
        if key in hung:
            await second.committed(key, "execution_recovered")
            await second.cancel(key)
        row = await second.ended(key)
        assert row.state == (ThreadState.CANCELLED if key in hung else ThreadState.COMPLETED)
        await second.check_ended(key)
    statuses = [p.status for key in keys for p in await second.payloads(key, e.ToolCallCompleted)]
    assert set(statuses) == {CallStatus.SUCCEEDED}
    await eventually(lambda: left_over(second.engine) == {} and left_over(second.journal) == {})


async def test_a_call_not_to_be_repeated_gets_the_drain_time_and_its_result_is_kept(build: OpenHouse) -> None:
    gate = Gate()
    first = await build()
    first.bench.add("send", gate, Effect.AT_MOST_ONCE)
    key = await first.start(use("send"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    stopping = asyncio.create_task(first.stop(5))
    await turns(50)
    assert not stopping.done()
    gate.open()
    await within(stopping)

    second = await build(bench=first.bench)
    assert (await second.kinds(key))[-1] == "tool_call_completed"
    await second.recover()
    assert (await second.ended(key)).state == ThreadState.COMPLETED
    assert second.bench.count("send") == 1
    assert "execution_recovered" not in await second.kinds(key)


async def test_a_call_that_outlasts_the_drain_time_is_unknown_afterwards(build: OpenHouse) -> None:
    gate = Gate()
    first = await build()
    first.bench.add("send", gate, Effect.AT_MOST_ONCE)
    key = await first.start(use("send"), say("{observation}"))
    await eventually(lambda: gate.inside == 1)
    stopping = asyncio.create_task(first.stop(5))
    await turns(50)
    first.clock.advance(5.1)
    await within(stopping)
    assert gate.stops == 1

    second = await build(bench=first.bench)
    assert (await second.kinds(key))[-1] == "tool_call_started"
    await second.recover()
    await second.ended(key)
    (completed,) = await second.payloads(key, e.ToolCallCompleted)
    assert completed.status is CallStatus.UNKNOWN
    assert second.bench.count("send") == 1


async def test_nothing_is_taken_or_begun_during_a_drain(build: OpenHouse) -> None:
    first = await build()
    keys = [await first.start({"hang": True}) for _ in range(10)]
    for key in keys:
        await first.committed(key, "model_call_started")
    await first.crash()

    house = await build()
    gate = Gate()
    house.bench.add("send", gate, Effect.AT_MOST_ONCE)
    running = await house.start(use("send"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    recovery = asyncio.create_task(house.recover())
    await eventually(lambda: house.engine.running_count > 1)  # their logs are being read
    units = len(house.log.units)
    drain = asyncio.create_task(house.engine.drain(5))
    await turns(1)

    for call in (house.engine.start(house.plan(say("x"))), house.engine.ask(keys[0], s.Pause(0))):
        with pytest.raises(Refused) as refused:
            await within(call)
        assert refused.value.reason is Reason.DRAINING
    gate.open()
    await within(asyncio.gather(drain, recovery))
    assert [unit.key for unit in house.log.units[units:]] == [running]


async def test_who_waits_for_a_thread_is_told_to_try_again_at_a_drain(house: House) -> None:
    key = await house.start({"hang": True})
    waits = [asyncio.create_task(wait(key)) for wait in (house.engine.resting, house.engine.ended)]
    await turns()

    await within(house.engine.drain(1))

    for wait in (*waits, house.engine.ended(key)):
        with pytest.raises(Refused) as refused:
            await within(wait)
        assert refused.value.reason is Reason.DRAINING


# Timers


async def next_look(house: House) -> None:
    looks = house.sweeper.looks
    house.clock.advance(30.1)
    await eventually(lambda: house.sweeper.looks > looks)


@pytest.mark.parametrize("seconds", [30, 300])
async def test_the_lifetime_of_a_queued_thread_is_looked_after(build: OpenHouse, seconds: int) -> None:
    house = await build(bounds=Bounds(server_max=1))
    await house.start({"hang": True}, limits=Limits(timeout_micros=9000 * SECOND_MICROS))
    key = await house.start(say("never"), limits=Limits(max_lifetime_micros=seconds * SECOND_MICROS))
    if seconds > 60:  # what is due sooner needs no sweeper
        house.sweeper.start()
        for _ in range(seconds // 30 - 1):
            await next_look(house)
    assert (await house.row(key)).state == ThreadState.PENDING

    house.clock.advance(30.1)
    row = await house.ended(key)

    assert (row.state, row.stop_reason) == (ThreadState.TIMED_OUT, StopReason.DEADLINE)
    await house.check_ended(key)
    assert house.engine.waiting_count == 0


async def test_damage_that_one_step_of_the_sweeper_meets_keeps_no_other_from_its_work(house: House) -> None:
    await house.store.agents.create(1, "a", body=b"body", version_body=b"version", create_time=1)
    (agent,) = await house.store.readers.rows("SELECT agent FROM agents")
    ((was,),) = await house.store.readers.rows("SELECT purged FROM agents")
    spoil = "ALTER TABLE request_ids RENAME TO gone"
    await house.store.committer.submit(StatementWork([Answer(spoil)])).wait()
    due = Answer(f"UPDATE agents SET purge_time = 1, delete_time = 1 WHERE agent = {agent[0]}")
    await house.store.committer.submit(StatementWork([due])).wait()

    house.sweeper.start()
    await eventually(lambda: house.sweeper.looks > 0)

    assert (was, await house.store.readers.rows("SELECT purged FROM agents")) == (0, [(1,)])


async def test_a_timer_that_is_due_soon_does_not_wait_for_the_sweeper(house: House) -> None:
    soon = 5 * SECOND_MICROS
    house.bench.add("pay", effect=Effect.AT_MOST_ONCE, approvers_needed=1, approval_lifetime_micros=soon)
    key = await house.start(use("pay"), say("{observation}"))
    await within(house.reached(key, ThreadState.WAITING_APPROVAL))
    await eventually(lambda: house.engine.running_count == 0)

    house.clock.advance(5.1)

    assert (await house.ended(key)).state == ThreadState.COMPLETED
    (decided,) = await house.payloads(key, e.ApprovalDecided)
    assert decided.state.name == "EXPIRED"
    assert house.bench.calls == []
    await eventually(lambda: left_over(house.engine) == {})


async def test_an_approval_that_expires_after_a_restart_expires_all_the_same(build: OpenHouse) -> None:
    first = await build()
    soon = 5 * SECOND_MICROS
    first.bench.add("pay", effect=Effect.AT_MOST_ONCE, approvers_needed=1, approval_lifetime_micros=soon)
    key = await first.start(use("pay"), say("{observation}"))
    await within(first.reached(key, ThreadState.WAITING_APPROVAL))
    await first.crash()

    second = await build(bench=first.bench)
    await second.recover()
    second.sweeper.start()
    await turns(200)
    second.clock.advance(5.1)
    assert (await second.ended(key)).state == ThreadState.COMPLETED
    assert (await second.payloads(key, e.ApprovalDecided))[0].state.name == "EXPIRED"


# Sessions and queues


async def test_threads_of_a_session_run_one_after_another_also_past_a_wait(house: House) -> None:
    house.bench.add("pay", effect=Effect.AT_MOST_ONCE, approvers_needed=1)
    session = await house.session()
    first = await house.start(use("pay"), say("fine"), session=session)
    await within(house.reached(first, ThreadState.WAITING_APPROVAL))
    second = await house.start(say("second"), session=session)
    third = await house.start(say("third"), session=session)
    await turns(50)
    assert house.engine.waiting(second) == Waiting(
        "SESSION", f"sessions/s{session}", (await house.row(second)).create_time
    )
    assert (await house.row(second)).state == ThreadState.PENDING

    await within(house.engine.ask(first, s.Pause(house.clock.now())))
    await approve(house, first)
    await turns(50)
    assert (await house.row(second)).state == ThreadState.PENDING
    await within(house.engine.ask(first, s.Resume(house.clock.now())))

    rows = [await house.ended(key) for key in (first, second, third)]
    assert {row.state for row in rows} == {ThreadState.COMPLETED}
    spans = [(row.start_time or 0, row.end_time or 0) for row in rows]
    assert spans[0][1] <= spans[1][0] <= spans[1][1] <= spans[2][0]
    await eventually(lambda: left_over(house.engine) == {})


async def test_a_queued_thread_of_a_session_is_cancelled_and_the_next_one_runs(house: House) -> None:
    gate = Gate()
    house.bench.add("look", gate)
    session = await house.session()
    first = await house.start(use("look"), say("fine"), session=session)
    second, third = [await house.start(say("fine"), session=session) for _ in range(2)]

    await house.cancel(second)
    gate.open()

    assert [(await house.ended(key)).state for key in (first, second, third)] == [
        ThreadState.COMPLETED,
        ThreadState.CANCELLED,
        ThreadState.COMPLETED,
    ]


async def test_a_thread_that_is_paused_in_the_queue_runs_once_it_is_resumed(
    build: OpenHouse,
) -> None:
    house = await build(bounds=Bounds(server_max=1))
    gate = Gate()
    house.bench.add("look", gate)
    first = await house.start(use("look"), say("fine"))
    key = await house.start(say("fine"))
    await within(house.engine.ask(key, s.Pause(house.clock.now())))
    gate.open()
    await house.ended(first)
    await eventually(lambda: house.engine.running_count == 0)
    assert (await house.row(key)).state == ThreadState.PAUSED

    await within(house.engine.ask(key, s.Resume(house.clock.now())))
    assert (await house.ended(key)).state == ThreadState.COMPLETED


async def test_an_answer_that_comes_as_the_thread_comes_to_rest_is_not_missed(house: House) -> None:
    """The driver is about to leave when the answer is recorded: between the last look and the commit."""

    async def hold(_: object) -> str:
        house.log.hold()
        return "held"

    house.bench.add("ask", asks=True)
    house.bench.add("look", hold)
    key = await house.start(use("ask", "look"), say("fine"))
    await eventually(lambda: house.log.waiting == 1)
    ask = s.SendInput(house.clock.now(), Content("yes"), "call-1-1")
    call = asyncio.create_task(house.engine.ask(key, ask))
    await turns(50)
    house.log.release()
    await within(call)

    assert (await house.ended(key)).state == ThreadState.COMPLETED
    await house.check_ended(key)


async def test_two_hundred_threads_run_within_the_bounds(build: OpenHouse) -> None:
    house = await build(bounds=Bounds(server_max=8, tenant_max=6))
    most = 0

    async def look(_: object) -> str:
        nonlocal most
        most = max(most, house.engine.running_count)
        return "seen"

    house.bench.add("look", look)
    plans = [house.plan(use("look"), say("fine"), tenant=1 + number % 3) for number in range(200)]
    await within(asyncio.gather(*map(house.engine.start, plans)))
    await eventually(lambda: house.engine.running_count + house.engine.waiting_count == 0)

    for plan in plans:
        assert (await house.row(plan.key)).state == ThreadState.COMPLETED
    assert most == 8
    await eventually(lambda: left_over(house.engine) == {} and left_over(house.journal) == {})


# What goes wrong


async def test_a_damaged_log_is_left_alone_and_the_others_run(build: OpenHouse) -> None:
    first = await build()
    keys = [await first.start({"hang": True}) for _ in range(3)]
    for key in keys:
        await first.committed(key, "model_call_started")
    await first.crash()
    second = await build()
    execute(second.path, "UPDATE events SET body = x'00' WHERE thread = ? AND sequence = 2", keys[1].thread)

    assert await second.recover() == 3
    for key in (keys[0], keys[2]):
        await second.committed(key, "execution_recovered")
        await second.cancel(key)
        await second.ended(key)
    await eventually(lambda: second.engine.running_count == 0)
    reads = second.store.readers.reads
    second.clock.advance(60)
    await turns(100)
    assert second.store.readers.reads == reads
    with pytest.raises(Refused) as refused:
        await within(second.engine.ask(keys[1], s.Cancel(second.clock.now())))
    assert refused.value.reason is Reason.RECORD_CORRUPT


async def test_a_look_at_timers_keeps_no_thread_from_beginning(house: House) -> None:
    lifetime, quiet = 20 * SECOND_MICROS, SECOND_MICROS // 10
    session = await house.session()
    key = await house.start(
        say("fine"),
        session=session,
        limits=Limits(max_lifetime_micros=lifetime),
        input_debounce_micros=quiet,
    )

    house.engine.arm(key, house.clock.now() + lifetime)

    assert (await house.ended(key)).state == ThreadState.COMPLETED
