"""The one door to the log: signals land in order, whole, and memory never says more than the log will."""

import asyncio
import time
from dataclasses import replace
from typing import cast

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, left_over, say, use
from tests.engine.workbench import Gate
from tests.stores.disk import LARGE as LARGE_RECORD
from tests.stores.disk import fill_the_disk, free_the_disk, refusal
from tests.waiting import eventually
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.evolve import fold
from treadle_server.core.kinds import CallStatus, Decision, Effect, ThreadState
from treadle_server.core.policy import arguments_digest
from treadle_server.core.spec import Limits
from treadle_server.core.state import State
from treadle_server.core.values import Content
from treadle_server.engine.admission import Bounds
from treadle_server.engine.journal import Journal
from treadle_server.engine.patience import WAIT_SECONDS
from treadle_server.ports.log import Log, Replayed, RequestRow, StoredRecord, ThreadKey, Unit

NOBODY_RUNS = Bounds(server_max=0)
LARGE = "x" * 200_000


def steer(house: House, text: str) -> s.SendInput:
    return s.SendInput(house.clock.now(), Content(text))


def request(house: House, name: str, request_id: str = "r1") -> RequestRow:
    expire = house.clock.now() + 86_400_000_000
    return RequestRow(request_id, "users/ann", "SendThreadInput", b"digest", name, 0, None, expire)


async def inputs(house: House, key: ThreadKey) -> list[str]:
    return [payload.content.text for payload in await house.payloads(key, e.InputReceived)]


async def assert_memory_is_the_log(house: House, key: ThreadKey) -> None:
    spec, _ = await house.specs.of_thread(key)
    head = await house.journal.open(key)
    assert head.state == fold(State(spec), await house.events(key))
    house.journal.close(head)


async def find_the_disk_full(house: House) -> None:
    """Fills it, and lets a thread that nobody is interested in find it so."""
    key = await house.start(say("fine"))
    await house.ended(key)
    await fill_the_disk(house.store)
    house.store.log.submit(Unit(key, await house.store.log.last_sequence(key), [LARGE_RECORD]))
    await eventually(lambda: refusal(house.log) is not None)


async def use_up_the_request_id(house: House) -> None:
    """Another call has it: a unit with it is refused when it comes to the disk."""
    key = await house.start(say("fine"))
    await house.ended(key)
    used = replace(request(house, ""), digest=b"of another call")
    await house.store.threads.update(
        await house.row(key), tags=(), labels={}, client_metadata=b"", request=used
    )


async def append_behind_its_back(house: House, key: ThreadKey, text: str) -> None:
    sequence = await house.store.log.last_sequence(key)
    event = e.Event(sequence + 1, house.clock.now(), 0, e.InputReceived(Content(text)))
    await within(house.store.log.submit(Unit(key, sequence, [house.codec.encode(event)])).wait())


class HeldReads:
    """The reads of a log, answered when a test says so."""

    def __init__(self, below: Log) -> None:
        self._below = below
        self.reading = asyncio.Event()
        self.answered = asyncio.Event()

    async def read(self, key: ThreadKey, after: int, limit: int) -> list[StoredRecord]:
        found = await self._below.read(key, after, limit)
        self.reading.set()
        await self.answered.wait()
        return found


async def test_a_head_that_is_closed_before_others_are_told_that_it_is_there_is_opened_again(
    build: OpenHouse,
) -> None:
    house = await build()
    key = await house.run(say("fine"))
    reads = HeldReads(house.store.log)
    journal = Journal(cast(Log, reads), house.codec, house.specs)
    late = asyncio.Event()

    async def open_and_close(begin: asyncio.Event) -> None:
        await begin.wait()
        journal.close(await journal.open(key))

    now = asyncio.Event()
    now.set()
    opening = [asyncio.create_task(open_and_close(begin)) for begin in (now, late, late)]
    await within(reads.reading.wait())
    reads.answered.set()
    late.set()  # they come between the end of the load and the news of it
    await within(asyncio.gather(*opening))


async def test_two_signals_at_once_both_land_in_order(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))

    await within(asyncio.gather(*(house.engine.ask(key, steer(house, text)) for text in "abcdef")))

    assert await inputs(house, key) == ["hello", *"abcdef"]
    await assert_memory_is_the_log(house, key)


async def test_signals_that_come_together_become_durable_together(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    commits, units = house.store.committer.commit_count, len(house.log.units)

    house.log.hold()
    asks = [asyncio.create_task(house.engine.ask(key, steer(house, text))) for text in "abc"]
    await eventually(lambda: bool(house.log.waiting) and len(house.log.units[-1].records) == 3)
    house.log.release()
    await within(asyncio.gather(*asks))

    assert len(house.log.units) == units + 1
    assert house.store.committer.commit_count == commits + 1


async def test_a_caller_who_goes_away_leaves_memory_and_log_equal(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    house.log.hold()
    call = asyncio.create_task(house.engine.ask(key, steer(house, "from one who left")))
    await eventually(lambda: house.log.waiting == 1)

    call.cancel()
    await turns()
    assert call.cancelled()
    house.log.release()
    await within(house.engine.ask(key, steer(house, "from another")))

    assert await inputs(house, key) == ["hello", "from one who left", "from another"]
    await assert_memory_is_the_log(house, key)
    await eventually(lambda: left_over(house.journal) == {})


async def test_a_caller_is_answered_only_after_the_commit(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    house.log.hold()
    call = asyncio.create_task(house.engine.ask(key, steer(house, "a")))
    await eventually(lambda: house.log.waiting == 1)
    await turns(100)
    assert not call.done()

    house.log.release()
    assert (await within(call)).sequence == 3


async def test_a_refusal_is_told_only_once_what_it_was_judged_on_is_durable(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    house.log.hold()
    cancel = asyncio.create_task(house.engine.ask(key, s.Cancel(house.clock.now())))
    await eventually(lambda: house.log.waiting == 1)
    late = asyncio.create_task(house.engine.ask(key, steer(house, "too late")))
    await turns(100)
    assert not late.done()

    house.log.release()
    await within(cancel)
    with pytest.raises(Refused) as refused:
        await within(late)
    assert refused.value.reason is Reason.THREAD_STATE_CONFLICT
    assert await inputs(house, key) == ["hello"]


async def test_the_log_of_a_head_that_another_wrote_behind_is_folded_again(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    head = await house.journal.open(key)
    await append_behind_its_back(house, key, "foreign")

    await within(house.engine.ask(key, steer(house, "ours")))

    assert head.lost
    house.journal.close(head)
    assert await inputs(house, key) == ["hello", "foreign", "ours"]
    await assert_memory_is_the_log(house, key)


async def test_a_thread_whose_events_were_refused_is_driven_on(house: House) -> None:
    gate = Gate()
    house.bench.add("look", gate)
    key = await house.start(use("look"), say("fine"))
    await house.committed(key, "tool_call_started")
    await append_behind_its_back(house, key, "foreign")

    gate.open()
    await eventually(lambda: house.engine.running_count == 0)
    house.clock.advance(1.1)
    row = await house.ended(key)

    assert row.state == ThreadState.COMPLETED
    await house.check_ended(key)
    assert await inputs(house, key) == ["hello", "foreign"]
    assert house.bench.count("look") == 2
    assert "execution_recovered" in await house.kinds(key)


async def test_what_another_asked_in_vain_keeps_no_thread_from_running(house: House) -> None:
    """A cancel on top of a resume, of which only the resume is not refused."""
    await use_up_the_request_id(house)
    house.bench.add("pay", effect=Effect.AT_MOST_ONCE, approvers_needed=1)
    key = await house.start(use("pay"), say("fine"))
    await within(house.reached(key, ThreadState.WAITING_APPROVAL))
    await within(house.engine.ask(key, s.Pause(house.clock.now())))
    house.log.hold()
    decide = s.Decide(
        house.clock.now(), "approval-call-1-1", Decision.APPROVE, "users/bob", arguments_digest("{}")
    )
    asks = [asyncio.create_task(house.engine.ask(key, ask)) for ask in (decide, s.Resume(house.clock.now()))]
    await eventually(lambda: house.log.waiting == 1)
    await turns()
    cancel = s.Cancel(house.clock.now())
    in_vain = asyncio.create_task(house.engine.ask(key, cancel, request(house, "x")))
    await eventually(lambda: house.log.waiting == 2)
    house.log.release_one()
    await within(asyncio.gather(*asks))
    house.log.release()

    with pytest.raises(Refused):
        await within(in_vain)
    house.clock.advance(1.1)
    assert (await house.ended(key)).state == ThreadState.COMPLETED


async def test_a_driver_leaves_no_thread_for_what_was_asked_in_vain(house: House) -> None:
    """A cancel on top of what brings the thread to rest, of which only the latter is not refused."""

    async def hold(_: object) -> str:
        house.log.hold()
        return "held"

    await use_up_the_request_id(house)
    house.bench.add("pay", effect=Effect.AT_MOST_ONCE, approvers_needed=1)
    house.bench.add("look", hold)
    key = await house.start(use("pay", "look"), say("fine"))
    await eventually(lambda: house.log.waiting == 1)
    cancel = s.Cancel(house.clock.now())
    in_vain = asyncio.create_task(house.engine.ask(key, cancel, request(house, "x")))
    await eventually(lambda: house.log.waiting == 2)
    house.log.release_one()
    await within(house.reached(key, ThreadState.WAITING_APPROVAL))
    await turns()
    house.log.release()
    with pytest.raises(Refused):
        await within(in_vain)

    digest = arguments_digest("{}")
    ask = s.Decide(house.clock.now(), "approval-call-1-1", Decision.APPROVE, "users/bob", digest)
    await within(house.engine.ask(key, ask))
    house.clock.advance(1.1)
    assert (await house.ended(key)).state == ThreadState.COMPLETED


async def test_a_running_thread_whose_head_was_refused_still_obeys_a_cancel(house: House) -> None:
    await use_up_the_request_id(house)
    gate = Gate()
    house.bench.add("send", gate, Effect.AT_MOST_ONCE)
    key = await house.start(use("send"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    with pytest.raises(Refused):
        await within(house.engine.ask(key, steer(house, "in vain"), request(house, "x")))

    await house.cancel(key)
    await eventually(lambda: gate.stops == 1)
    house.clock.advance(1.1)
    row = await house.ended(key)

    assert row.state == ThreadState.CANCELLED
    await house.check_ended(key)
    assert gate.inside_max == 1


async def test_what_a_caller_asks_on_a_full_disk_is_refused_at_once_and_changes_nothing(
    build: OpenHouse,
) -> None:
    house = await build()
    gate = Gate()
    house.bench.add("look", gate)
    key = await house.start(use("look"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    await find_the_disk_full(house)
    units, now = len(house.log.units), house.clock.now()

    for ask in (steer(house, "more"), s.Pause(now)):
        with pytest.raises(Refused) as refused:
            await within(house.engine.ask(key, ask))
        assert refused.value.reason is Reason.DISK_FULL
    with pytest.raises(Refused) as made:
        await house.start(say("fine"))
    assert made.value.reason is Reason.DISK_FULL
    assert len(house.log.units) == units

    await free_the_disk(house.store)
    gate.open()
    assert (await house.ended(key)).state == ThreadState.COMPLETED
    assert await inputs(house, key) == ["hello"]
    assert house.fatal == []


async def test_what_needs_no_room_is_answered_on_a_full_disk(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    await within(house.engine.ask(key, s.Pause(house.clock.now())))
    other = await house.start(say("fine"))
    await fill_the_disk(house.store)
    house.store.log.submit(Unit(other, await house.store.log.last_sequence(other), [LARGE_RECORD]))
    await eventually(lambda: refusal(house.log) is not None)

    state = await within(house.engine.ask(key, s.Pause(house.clock.now())))  # as it is already
    with pytest.raises(Refused) as refused:
        await within(house.engine.ask(key, s.SubmitToolResult(house.clock.now(), "call-9", "done")))

    assert state.status is ThreadState.PAUSED
    assert refused.value.reason is not Reason.DISK_FULL  # there is no such call, room or not


async def test_who_finds_the_disk_full_waits_some_time_and_is_told_that_it_may_still_take_effect(
    build: OpenHouse,
) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    await fill_the_disk(house.store)
    row = request(house, f"threads/thread-{key.thread}")
    asked = asyncio.create_task(house.engine.ask(key, steer(house, LARGE), row))
    await eventually(lambda: refusal(house.log) is not None)
    await turns()
    waits = asked.done()

    house.clock.advance(WAIT_SECONDS)
    with pytest.raises(Refused, match="may still take effect") as refused:
        await within(asked)
    await free_the_disk(house.store)
    await eventually(lambda: refusal(house.log) is None)

    assert waits is False
    assert refused.value.reason is Reason.DISK_FULL
    assert await inputs(house, key) == ["hello", LARGE]
    assert await house.store.requests.find(1, "r1", now=house.clock.now()) == row
    with pytest.raises(Replayed):
        await within(house.engine.ask(key, steer(house, LARGE), row))
    await eventually(lambda: left_over(house.journal) == {})
    await assert_memory_is_the_log(house, key)


async def test_who_goes_away_while_the_disk_is_full_leaves_nothing(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    await fill_the_disk(house.store)
    asked = asyncio.create_task(house.engine.ask(key, steer(house, LARGE)))
    await eventually(lambda: refusal(house.log) is not None)

    asked.cancel()
    await free_the_disk(house.store)

    await eventually(lambda: left_over(house.journal) == {})
    assert await inputs(house, key) == ["hello", LARGE]


async def test_a_decision_that_waited_for_room_brings_its_thread_on_though_nobody_asks_again(
    house: House,
) -> None:
    house.bench.add("pay", effect=Effect.AT_MOST_ONCE, approvers_needed=1)
    key = await house.start(use("pay"), say("fine"))
    await within(house.reached(key, ThreadState.WAITING_APPROVAL))
    digest = arguments_digest("{}")
    await fill_the_disk(house.store)
    ask = s.Decide(
        house.clock.now(), "approval-call-1-1", Decision.APPROVE, "users/bob", digest, message=LARGE
    )
    asked = asyncio.create_task(house.engine.ask(key, ask))
    await eventually(lambda: refusal(house.log) is not None)
    house.clock.advance(WAIT_SECONDS)
    with pytest.raises(Refused):
        await within(asked)

    await free_the_disk(house.store)

    assert (await house.ended(key)).state == ThreadState.COMPLETED
    assert house.bench.count("pay") == 1


async def test_results_of_calls_already_made_outlast_a_full_disk(house: House) -> None:
    """Nothing is called a second time, nothing is unknown, and nobody has to be crashed for it."""
    gate, turns_made = Gate(), list[int]()
    house.bench.add("pay", gate, Effect.AT_MOST_ONCE)
    house.bench.add("look", lambda _: _large())
    key = await house.start(use("pay", "look"), use("look"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    await find_the_disk_full(house)

    gate.open()
    await eventually(lambda: house.store.committer.backlog > 1)
    house.clock.advance(700.0)  # longer than any call may take
    await turns(200)
    turns_made.append(house.bench.count("look"))
    refused = refusal(house.log)
    await free_the_disk(house.store)
    row = await house.ended(key)

    assert refused is not None
    assert turns_made == [1]  # what waits for the disk begins nothing new
    assert row.state == ThreadState.COMPLETED
    assert (house.bench.count("pay"), house.bench.count("look")) == (1, 2)
    kinds = await house.kinds(key)
    assert "execution_recovered" not in kinds
    assert kinds.count("model_call_started") == kinds.count("message_completed") == 3
    statuses = [done.status for done in await house.payloads(key, e.ToolCallCompleted)]
    assert statuses == [CallStatus.SUCCEEDED] * 3
    await house.check_ended(key)


async def test_while_the_disk_is_full_one_cancel_of_a_thread_waits_and_others_are_refused_at_once(
    build: OpenHouse,
) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    await fill_the_disk(house.store)
    waiting = [asyncio.create_task(house.engine.ask(key, steer(house, LARGE)))]
    await eventually(lambda: refusal(house.log) is not None)
    waiting.append(asyncio.create_task(house.engine.ask(key, s.Cancel(house.clock.now()))))
    await turns()
    house.clock.advance(WAIT_SECONDS)
    told = []
    for asked in waiting:
        with pytest.raises(Refused) as refused:
            await within(asked)
        told.append(refused.value.metadata)

    for _ in range(5):
        with pytest.raises(Refused) as refused:
            await within(house.engine.ask(key, s.Cancel(house.clock.now())))
        assert (refused.value.reason, refused.value.metadata) == (Reason.DISK_FULL, {})
    await free_the_disk(house.store)

    assert told == [{"may_take_effect": "true"}] * 2
    assert (await house.ended(key)).state == ThreadState.CANCELLED
    await eventually(lambda: not {"_left", "_background"} & left_over(house.engine).keys())
    assert (await house.kinds(key)).count("control_requested") == 1


async def test_who_waits_for_an_end_does_not_wait_for_room_without_bound(house: House) -> None:
    gate = Gate(stubborn=True)
    house.bench.add("send", gate)
    key = await house.start(use("send"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    waiting = asyncio.create_task(house.engine.ended(key))
    await find_the_disk_full(house)
    before = waiting.done()

    house.clock.advance(WAIT_SECONDS)
    with pytest.raises(Refused) as refused:
        await within(waiting)
    await free_the_disk(house.store)
    gate.open()

    assert not before
    assert (refused.value.reason, refused.value.metadata) == (Reason.DISK_FULL, {"may_take_effect": "true"})


async def test_a_call_that_changes_nothing_is_refused_on_a_full_disk_and_not_remembered(house: House) -> None:
    gate = Gate(stubborn=True)
    house.bench.add("send", gate)
    key = await house.start(use("send"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    await house.cancel(key, grace_seconds=60)
    await find_the_disk_full(house)

    with pytest.raises(Refused) as refused:
        await within(house.engine.ask(key, s.Cancel(house.clock.now()), request(house, "")))

    await free_the_disk(house.store)
    gate.open()
    assert (refused.value.reason, refused.value.metadata) == (Reason.DISK_FULL, {})
    assert await house.store.requests.find(1, "r1", now=house.clock.now()) is None


async def test_a_cancel_ends_a_thread_on_a_full_disk(house: House) -> None:
    gate = Gate()
    house.bench.add("send", gate, Effect.AT_MOST_ONCE)
    house.bench.add("look")
    key = await house.start(use("look", "send"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    await find_the_disk_full(house)

    await house.cancel(key)
    row = await house.ended(key)

    assert row.state == ThreadState.CANCELLED
    assert refusal(house.log) is not None  # it still is
    await house.check_ended(key)
    await free_the_disk(house.store)


async def test_a_call_whose_thread_is_cancelled_while_its_intent_waits_is_not_made(house: House) -> None:
    gate = Gate()
    house.bench.add("look", gate)
    house.bench.add("pay", effect=Effect.AT_MOST_ONCE)
    key = await house.start(use("look"), use("pay"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    await find_the_disk_full(house)
    requests = (await house.kinds(key)).count("model_call_started")
    gate.open()
    await eventually(lambda: house.store.committer.backlog > 1)

    await house.cancel(key)
    row = await house.ended(key)

    assert (requests, house.bench.count("pay")) == (1, 0)
    assert row.state == ThreadState.CANCELLED
    await free_the_disk(house.store)
    await house.check_ended(key)


async def test_a_thread_is_timed_out_on_a_full_disk(house: House) -> None:
    gate = Gate()
    house.bench.add("look", gate)
    limits = Limits(timeout_micros=60_000_000)
    key = await house.start(use("look"), say("fine"), limits=limits)
    await eventually(lambda: gate.inside == 1)
    await find_the_disk_full(house)

    house.clock.advance(61.0)
    row = await house.ended(key)

    assert row.state == ThreadState.TIMED_OUT
    assert refusal(house.log) is not None
    await free_the_disk(house.store)


async def test_a_server_that_stops_on_a_full_disk_is_as_one_that_crashed(build: OpenHouse) -> None:
    first = await build()
    gate = Gate()
    first.bench.add("look", gate)
    key = await first.start(use("look"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    await find_the_disk_full(first)
    gate.open()
    await eventually(lambda: first.store.committer.backlog > 1)
    started = time.monotonic()

    await first.stop(seconds=0.2)

    assert time.monotonic() - started < 5.0
    assert first.fatal == []
    second = await build(bench=first.bench)
    await second.recover()
    assert (await second.ended(key)).state == ThreadState.COMPLETED
    await second.check_ended(key)


async def _large() -> str:
    return LARGE[:60_000]


async def test_opening_and_closing_leaves_nothing_behind(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))

    one, other = await within(asyncio.gather(house.journal.open(key), house.journal.open(key)))
    assert one is other
    house.journal.close(one)
    assert await house.journal.open(key) is one
    house.journal.close(one)
    house.journal.close(one)
    assert left_over(house.journal) == {}

    await assert_memory_is_the_log(house, key)
    assert left_over(house.journal) == {}


async def test_two_who_open_a_thread_at_once_share_it_though_one_closes_at_once(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))

    async def open_and_close() -> None:
        house.journal.close(await house.journal.open(key))

    async def open_and_keep() -> bool:
        kept = await house.journal.open(key)
        again = await house.journal.open(key)
        house.journal.close(again)
        house.journal.close(kept)
        return kept is again

    first, second = asyncio.create_task(open_and_close()), asyncio.create_task(open_and_keep())
    await within(first)
    assert await within(second)
    assert left_over(house.journal) == {}


async def test_one_who_goes_away_while_a_thread_is_loaded_leaves_nothing_behind(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    opening = asyncio.create_task(house.journal.open(key))
    await turns(1)

    opening.cancel()

    await eventually(lambda: opening.done() and left_over(house.journal) == {})
    await assert_memory_is_the_log(house, key)


async def test_a_thread_that_does_not_exist_is_refused_and_leaves_nothing(house: House) -> None:
    with pytest.raises(Refused) as refused:
        await within(house.engine.ask(ThreadKey(1, 999), s.Pause(house.clock.now())))

    assert refused.value.reason is Reason.RESOURCE_NOT_FOUND
    assert left_over(house.journal) == {}


async def test_the_request_id_is_stored_in_the_unit_of_what_was_asked(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    row = request(house, f"threads/thread-{key.thread}")

    await within(house.engine.ask(key, steer(house, "a"), row))

    unit = house.log.units[-1]
    assert unit.request is row
    assert len(unit.records) == 1
    assert await house.store.requests.find(1, "r1", now=house.clock.now()) == row


async def test_what_others_ask_does_not_share_the_unit_of_a_request(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))
    await within(house.engine.ask(key, steer(house, "first"), request(house, "x")))
    house.log.hold()

    replay = asyncio.create_task(house.engine.ask(key, steer(house, "first"), request(house, "x")))
    await eventually(lambda: house.log.waiting == 1)
    other = asyncio.create_task(house.engine.ask(key, steer(house, "second")))
    await eventually(lambda: house.log.waiting == 2)
    house.log.release()

    with pytest.raises(Replayed):
        await within(replay)
    await within(other)
    assert await inputs(house, key) == ["hello", "first", "second"]
    await assert_memory_is_the_log(house, key)


async def test_a_call_repeated_a_hundred_times_at_once_is_recorded_once(build: OpenHouse) -> None:
    house = await build(bounds=NOBODY_RUNS)
    key = await house.start(say("fine"))

    calls = [house.engine.ask(key, steer(house, "once"), request(house, "x")) for _ in range(100)]
    answers = await within(asyncio.gather(*calls, return_exceptions=True))

    assert sum(isinstance(answer, State) for answer in answers) == 1
    assert sum(isinstance(answer, Replayed | Refused) for answer in answers) == 99
    assert await inputs(house, key) == ["hello", "once"]
    await assert_memory_is_the_log(house, key)


async def test_a_repeated_cancel_does_not_disturb_the_thread(house: House) -> None:
    gate = Gate(stubborn=True)
    house.bench.add("look", gate)
    key = await house.start(use("look"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    ask, row = s.Cancel(house.clock.now()), request(house, "x")
    await within(house.engine.ask(key, ask, row))

    for _ in range(3):
        with pytest.raises(Replayed):
            await within(house.engine.ask(key, ask, row))
    await within(house.engine.ask(key, ask))
    gate.open()

    assert (await house.ended(key)).state == ThreadState.CANCELLED
    await house.check_ended(key)
    kinds = await house.kinds(key)
    assert "execution_recovered" not in kinds
    assert kinds.count("control_requested") == 1
    assert gate.stops == 1


async def test_a_thread_that_cannot_be_made_is_not_there(house: House) -> None:
    await house.run(say("fine"), thread_id="taken")
    start = house.plan(say("fine"), thread_id="taken")

    with pytest.raises(Refused) as refused:
        await within(house.engine.start(start))

    assert refused.value.reason is Reason.RESOURCE_EXISTS
    assert await house.events(start.key) == []
    await eventually(lambda: left_over(house.journal) == {} and left_over(house.engine) == {})


async def test_the_same_start_a_hundred_times_at_once_makes_one_thread(house: House) -> None:
    plans = [
        house.plan(say("fine"), thread_id=f"t{number}", request=request(house, "x")) for number in range(100)
    ]

    answers = await within(asyncio.gather(*map(house.engine.start, plans), return_exceptions=True))

    assert answers.count(None) == 1
    assert sum(isinstance(answer, Replayed) for answer in answers) == 99
    made = plans[answers.index(None)]
    await house.ended(made.key)
    assert sum([bool(await house.events(plan.key)) for plan in plans]) == 1
