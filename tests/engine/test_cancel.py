"""Cancel: nothing begins after it, what runs is stopped or given up, and the end comes once and in time."""

import asyncio

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, left_over, say, use
from tests.engine.workbench import Gate, HandModel
from tests.waiting import eventually
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.kinds import CallStatus, DeltaKind, Effect, StopReason, ThreadState
from treadle_server.core.values import Content
from treadle_server.engine.admission import Bounds
from treadle_server.ports.log import ThreadKey
from treadle_server.ports.model import ModelReply, ModelRequest, OnDelta
from treadle_server.ports.tools import ToolCall

BEGINNINGS = {"iteration_started", "model_call_started", "tool_call_started"}


async def statuses(house: House, key: ThreadKey) -> list[CallStatus]:
    return [payload.status for payload in await house.payloads(key, e.ToolCallCompleted)]


async def assert_cancelled(house: House, key: ThreadKey) -> None:
    row = await house.ended(key)
    assert (row.state, row.stop_reason) == (ThreadState.CANCELLED, StopReason.CANCELLED_BY_CALLER)
    await house.check_ended(key)
    kinds = await house.kinds(key)
    assert not BEGINNINGS & set(kinds[kinds.index("control_requested") :])
    await eventually(lambda: left_over(house.engine) == {} and left_over(house.journal) == {})


class Streaming:
    """A model that shows a first piece and then waits. It stops when it is told to, or does not."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.gate = Gate(stubborn=stubborn)

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        on_delta(DeltaKind.TEXT, "once upon ")
        await self.gate(ToolCall(0, 0, 0, "", 0, "", ""))
        on_delta(DeltaKind.TEXT, "a time")
        return ModelReply(text="once upon a time")


async def test_a_model_call_is_stopped_at_once(build: OpenHouse) -> None:
    streaming = Streaming()
    house = await build(models={"hand": lambda: HandModel(streaming.reply)})
    key = await house.start(model="hand:x")
    await eventually(lambda: streaming.gate.inside == 1)

    await house.cancel(key)

    await assert_cancelled(house, key)
    assert streaming.gate.stops == 1
    usages = await house.payloads(key, e.UsageRecorded)
    assert [(usage.estimated, usage.cost.known) for usage in usages] == [(True, False)]


async def test_a_model_that_does_not_stop_is_given_up_after_the_grace(build: OpenHouse) -> None:
    streaming = Streaming(stubborn=True)
    house = await build(models={"hand": lambda: HandModel(streaming.reply)})
    key = await house.start(model="hand:x")
    await eventually(lambda: streaming.gate.inside == 1)
    await house.cancel(key)
    await eventually(lambda: streaming.gate.stops == 1)
    assert (await house.row(key)).state == ThreadState.RUNNING

    house.clock.advance(5.1)
    await assert_cancelled(house, key)
    before = await house.events(key)
    streaming.gate.open()
    await eventually(lambda: streaming.gate.inside == 0)
    await turns()
    assert await house.events(key) == before
    assert left_over(house.feed) == {}


@pytest.mark.parametrize(
    ("effect", "status"),
    [
        (Effect.READ_ONLY, CallStatus.CANCELLED),
        (Effect.IDEMPOTENT, CallStatus.CANCELLED),
        (Effect.AT_MOST_ONCE, CallStatus.UNKNOWN),
    ],
)
async def test_a_tool_is_asked_to_stop(house: House, effect: Effect, status: CallStatus) -> None:
    gate = Gate()
    house.bench.add("work", gate, effect)
    key = await house.start(use("work", "work"), say("fine"))
    await eventually(lambda: gate.inside == 2)

    await house.cancel(key)

    await assert_cancelled(house, key)
    assert await statuses(house, key) == [status, status]
    assert gate.stops == 2


@pytest.mark.parametrize(
    ("effect", "status"),
    [(Effect.READ_ONLY, CallStatus.ABANDONED), (Effect.AT_MOST_ONCE, CallStatus.UNKNOWN)],
)
async def test_a_tool_that_does_not_stop_is_given_up_after_the_grace(
    house: House, effect: Effect, status: CallStatus
) -> None:
    gate = Gate(stubborn=True)
    house.bench.add("work", gate, effect)
    key = await house.start(use("work"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    await house.cancel(key, grace_seconds=3)
    await eventually(lambda: gate.stops == 1)

    house.clock.advance(2.9)
    await turns()
    assert (await house.row(key)).state == ThreadState.RUNNING
    house.clock.advance(0.2)
    await assert_cancelled(house, key)
    assert await statuses(house, key) == [status]

    before = await house.events(key)
    gate.open()
    await eventually(lambda: gate.inside == 0)
    await turns()
    assert await house.events(key) == before


async def test_a_tool_is_asked_to_stop_once_however_often_the_thread_is_looked_at(house: House) -> None:
    gate = Gate(stubborn=True)
    house.bench.add("work", gate)
    key = await house.start(use("work"), say("fine"))
    await eventually(lambda: gate.inside == 1)

    for _ in range(5):
        await house.cancel(key)
        await turns()
    gate.open()

    await assert_cancelled(house, key)
    assert gate.stops == 1


async def test_a_result_that_comes_within_the_grace_is_recorded(house: House) -> None:
    gate = Gate(stubborn=True)
    house.bench.add("work", gate, Effect.AT_MOST_ONCE)
    key = await house.start(use("work"), say("fine"))
    await eventually(lambda: gate.inside == 1)

    await house.cancel(key)
    await eventually(lambda: gate.stops == 1)
    gate.open()

    await assert_cancelled(house, key)
    assert await statuses(house, key) == [CallStatus.SUCCEEDED]


async def test_one_tool_that_does_not_stop_keeps_no_other_from_stopping(house: House) -> None:
    stubborn, willing = Gate(stubborn=True), Gate()
    house.bench.add("stubborn", stubborn)
    house.bench.add("willing", willing)
    key = await house.start(use("stubborn", "willing"), say("fine"))
    await eventually(lambda: stubborn.inside + willing.inside == 2)

    await house.cancel(key)
    await eventually(lambda: willing.inside == 0)
    house.clock.advance(5.1)

    await assert_cancelled(house, key)
    assert sorted(await statuses(house, key)) == [CallStatus.CANCELLED, CallStatus.ABANDONED]
    stubborn.open()


async def test_a_cancel_during_a_backoff_ends_at_once(house: House) -> None:
    key = await house.start({"error": {"message": "overloaded", "retryable": True}})
    await house.committed(key, "model_call_failed")

    await house.cancel(key)

    await assert_cancelled(house, key)


async def test_a_thread_that_is_queued_is_cancelled_and_never_runs(build: OpenHouse) -> None:
    house = await build(bounds=Bounds(server_max=1))
    gate = Gate()
    house.bench.add("work", gate)
    first = await house.start(use("work"), say("fine"))
    queued = await house.start(say("never"))
    await eventually(lambda: gate.inside == 1)

    await house.cancel(queued)
    gate.open()

    assert (await house.ended(first)).state == ThreadState.COMPLETED
    await assert_cancelled(house, queued)
    assert house.engine.waiting_count == 0


async def test_a_waiting_thread_is_cancelled_at_once(house: House) -> None:
    house.bench.add("ask", asks=True)
    key = await house.start(use("ask"), say("fine"))
    await within(house.reached(key, ThreadState.WAITING_INPUT))

    await house.cancel(key)

    await assert_cancelled(house, key)


async def test_a_hundred_cancels_at_once_end_the_thread_once(house: House) -> None:
    gate = Gate()
    house.bench.add("work", gate)
    key = await house.start(use("work"), say("fine"))
    await eventually(lambda: gate.inside == 1)

    asks = [house.engine.ask(key, s.Cancel(house.clock.now())) for _ in range(100)]
    await within(asyncio.gather(*asks))

    await assert_cancelled(house, key)
    assert (await house.kinds(key)).count("control_requested") == 1


async def test_a_caller_completes_a_thread_with_an_output_of_its_own(house: House) -> None:
    gate = Gate()
    house.bench.add("work", gate)
    key = await house.start(use("work"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    ask = s.Complete(house.clock.now(), ThreadState.COMPLETED, Content("so it is"))

    await within(house.engine.ask(key, ask))

    row = await house.ended(key)
    assert (row.state, row.stop_reason) == (ThreadState.COMPLETED, StopReason.COMPLETED_BY_CALLER)
    ended = (await house.check_ended(key))[-1].payload
    assert isinstance(ended, e.ThreadEnded)
    assert ended.output == Content("so it is")
