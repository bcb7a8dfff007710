"""The loop: what is begun when, what is awaited before, what is one append, and every limit of time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, left_over, say, scripted, use
from tests.engine.workbench import Gate, HandModel, answer, by_turn, calls, failing
from tests.waiting import eventually
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.kinds import CallStatus, Decision, Effect, StopReason, ThreadState
from treadle_server.core.policy import arguments_digest
from treadle_server.core.spec import SECOND_MICROS, Limits
from treadle_server.core.transcript import ToolEntry, UserEntry
from treadle_server.core.values import Content, ProposedCall, ProviderContent
from treadle_server.ports.log import ThreadKey
from treadle_server.ports.model import ModelReply, ModelRequest, OnDelta
from treadle_server.ports.tools import ToolCall


async def appends(house: House, key: ThreadKey) -> list[list[str]]:
    """The kinds of event of each append of a thread."""
    page = await house.store.commits.read(key.tenant, after=0, limit=1000)
    kinds = await house.kinds(key)
    return [kinds[row.first - 1 : row.last] for row in page.items if row.key == key]


async def test_an_outcome_and_what_begins_next_are_one_append(house: House) -> None:
    house.bench.add("look", effect=Effect.IDEMPOTENT)

    key = await house.run(use("look"), use("look", "look"), say("fine"))

    made = await appends(house, key)
    assert ["tool_call_completed", "iteration_started", "model_call_started"] in made
    assert ["message_completed", "usage_recorded", "tool_call_requested", "tool_call_started"] in made
    assert {append[-1] for append in made} <= {
        *("input_received", "model_call_started", "tool_call_started", "tool_call_completed", "thread_ended")
    }
    await house.check_ended(key)


async def test_four_iterations_with_a_read_only_tool_take_at_most_two_commits_each(house: House) -> None:
    house.bench.add("look")

    key = await house.run(*[use("look")] * 4, say("fine"))

    assert len(await appends(house, key)) <= 2 * 4 + 3
    assert len(await house.payloads(key, e.IterationStarted)) == 5


async def test_what_people_must_approve_waits_until_their_decision_is_durable(house: House) -> None:
    gate = Gate()
    house.bench.add("slow", gate)
    house.bench.add("secrets", approvers_needed=1)
    key = await house.start(use("slow", "secrets"), say("fine"))
    await within(house.committed(key, "approval_requested"))
    await eventually(lambda: gate.inside == 1)

    house.log.hold()
    digest = arguments_digest("{}")
    ask = s.Decide(house.clock.now(), "approval-call-1-2", Decision.APPROVE, "users/bob", digest)
    deciding = asyncio.create_task(house.engine.ask(key, ask))
    await turns()
    gate.open()  # the driver looks again, and what it sees is not on the disk yet
    await turns(50)

    assert house.bench.count("secrets") == 0
    house.log.release()
    await within(deciding)
    await house.ended(key)
    assert house.bench.count("secrets") == 1


async def test_a_read_only_tool_does_not_wait_for_the_disk(build: OpenHouse) -> None:
    async def hold() -> ModelReply:
        house.log.hold()
        return calls("look")

    house = await build(models={"hand": lambda: HandModel(by_turn(hold, ModelReply(text="fine")))})
    gate = Gate()
    house.bench.add("look", gate)

    key = await house.start(model="hand:x")
    await eventually(lambda: gate.inside == 1)
    assert house.log.waiting == 1
    assert "tool_call_started" not in await house.kinds(key)

    gate.open()
    house.log.release()
    await house.ended(key)


@pytest.mark.parametrize("effect", [Effect.IDEMPOTENT, Effect.AT_MOST_ONCE])
async def test_a_tool_with_effects_runs_only_after_its_intent_is_durable(
    build: OpenHouse, effect: Effect
) -> None:
    async def hold() -> ModelReply:
        house.log.hold()
        return calls("send", "send")

    async def send(call: ToolCall) -> str:
        started = await house.payloads(key, e.ToolCallStarted)
        assert call.tool_call_id in [payload.tool_call_id for payload in started]
        return "sent"

    house = await build(models={"hand": lambda: HandModel(by_turn(hold, ModelReply(text="fine")))})
    house.bench.add("send", send, effect)
    key = await house.start(model="hand:x")
    await eventually(lambda: house.log.waiting == 1)
    await turns(100)
    assert house.bench.calls == []

    house.log.release()
    await house.ended(key)
    completed = await house.payloads(key, e.ToolCallCompleted)
    assert [payload.status for payload in completed] == [CallStatus.SUCCEEDED] * 2


async def test_the_model_is_called_only_after_the_intent_is_durable(build: OpenHouse) -> None:
    async def hold(call: ToolCall) -> str:
        house.log.hold()
        return "held"

    model = HandModel(by_turn(calls("look"), ModelReply(text="fine")))
    house = await build(models={"hand": lambda: model})
    house.bench.add("look", hold)
    key = await house.start(model="hand:x")
    await eventually(lambda: house.log.waiting == 1)
    await turns(100)
    assert len(model.requests) == 1

    house.log.release()
    await house.ended(key)
    assert len(model.requests) == 2


async def test_tools_of_one_turn_run_at_the_same_time_and_stand_in_call_order(build: OpenHouse) -> None:
    seen: list[ModelRequest] = []

    async def reply(request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        seen.append(request)
        return calls("slow", "quick", "quick") if len(seen) == 1 else ModelReply(text="fine")

    house = await build(models={"hand": lambda: HandModel(reply)})
    slow, quick = Gate(), Gate()
    house.bench.add("slow", slow)
    house.bench.add("quick", quick, Effect.AT_MOST_ONCE)
    key = await house.start(model="hand:x")
    await eventually(lambda: slow.inside + quick.inside == 3)
    quick.open()
    await house.committed(key, "tool_call_completed", 2)
    slow.open()
    await house.ended(key)

    completed = await house.payloads(key, e.ToolCallCompleted)
    assert [payload.tool_call_id for payload in completed] == ["call-1-2", "call-1-3", "call-1-1"]
    results = [entry for entry in seen[1].transcript.entries if isinstance(entry, ToolEntry)]
    assert [entry.tool_call_id for entry in results] == ["call-1-1", "call-1-2", "call-1-3"]


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_tool_over_its_time_is_given_up_whether_it_stops_or_not(house: House, stubborn: bool) -> None:
    gate = Gate(stubborn=stubborn)
    house.bench.add("send", gate, Effect.AT_MOST_ONCE, timeout_micros=60 * SECOND_MICROS, attempts_max=3)
    key = await house.start(use("send"), say("fine"))
    await eventually(lambda: gate.inside == 1)

    house.clock.advance(59)
    await turns()
    assert (await house.row(key)).state == ThreadState.RUNNING
    house.clock.advance(2)
    await house.ended(key)

    (completed,) = await house.payloads(key, e.ToolCallCompleted)
    assert completed.status is CallStatus.TIMED_OUT
    assert gate.stops == 1
    before = await house.check_ended(key)
    gate.open()
    await eventually(lambda: gate.inside == 0)
    await turns()
    assert await house.events(key) == before


async def test_a_repeatable_tool_over_its_time_is_tried_again(house: House) -> None:
    gate = Gate()
    house.bench.add("look", gate, timeout_micros=10 * SECOND_MICROS, attempts_max=2)
    key = await house.start(use("look"), say("fine"))
    await eventually(lambda: gate.inside == 1)

    house.clock.advance(10.1)
    await house.committed(key, "tool_attempt_failed")
    house.clock.advance(1)
    await eventually(lambda: house.bench.count("look") == 2)
    gate.open()
    await house.ended(key)

    (completed,) = await house.payloads(key, e.ToolCallCompleted)
    assert completed.status is CallStatus.SUCCEEDED
    started = await house.payloads(key, e.ToolCallStarted)
    assert [payload.attempt for payload in started] == [1, 2]


async def test_a_failed_tool_is_tried_again_after_its_backoff_with_the_same_key(house: House) -> None:
    house.bench.add("save", failing(2), Effect.IDEMPOTENT, attempts_max=3)
    key = await house.start(use("save"), say("fine"))
    for count in (1, 2):
        await house.committed(key, "tool_attempt_failed", count)
        house.clock.advance(1)
    await house.ended(key)

    (completed,) = await house.payloads(key, e.ToolCallCompleted)
    assert completed.status is CallStatus.SUCCEEDED
    assert [call.attempt for _, call in house.bench.calls] == [1, 2, 3]
    assert len({call.idempotency_key for _, call in house.bench.calls}) == 1
    await assert_waited(house, key, e.ToolAttemptFailed, e.ToolCallStarted)


async def test_a_tool_that_may_run_once_is_not_tried_again(house: House) -> None:
    house.bench.add("send", failing(1), Effect.AT_MOST_ONCE, attempts_max=3)

    key = await house.run(use("send"), say("fine"))

    (completed,) = await house.payloads(key, e.ToolCallCompleted)
    assert completed.status is CallStatus.FAILED
    assert house.bench.count("send") == 1


async def assert_waited(house: House, key: ThreadKey, failed: type[Any], started: type[Any]) -> None:
    """Every attempt after a failed one began no earlier than the failure said."""
    due = 0
    for event in await house.events(key):
        if isinstance(event.payload, started):
            assert event.time_micros >= due
        if isinstance(event.payload, failed):
            assert event.payload.retry_delay_micros > 0
            due = event.time_micros + event.payload.retry_delay_micros
    assert due


async def test_the_model_is_asked_again_after_its_backoff(house: House) -> None:
    error = {"code": "UNAVAILABLE", "message": "overloaded", "retryable": True, "attempts": 2}
    key = await house.start({**say("fine"), "error": error})
    for count in (1, 2):
        await house.committed(key, "model_call_failed", count)
        await turns()
        assert (await house.kinds(key)).count("model_call_started") == count
        house.clock.advance(2)
    row = await house.ended(key)

    assert row.state == ThreadState.COMPLETED
    failed = await house.payloads(key, e.ModelCallFailed)
    assert [payload.will_retry for payload in failed] == [True, True]
    await assert_waited(house, key, e.ModelCallFailed, e.ModelCallStarted)


async def test_what_the_provider_asks_for_is_waited(house: House) -> None:
    error = {"message": "slow down", "retryable": True, "attempts": 1, "retry_after_ms": 60_000}
    key = await house.start({**say("fine"), "error": error})
    await house.committed(key, "model_call_failed")

    house.clock.advance(59)
    await turns()
    assert (await house.kinds(key)).count("model_call_started") == 1
    house.clock.advance(2)
    assert (await house.ended(key)).state == ThreadState.COMPLETED


async def test_a_model_that_never_answers_is_given_up_and_asked_again(build: OpenHouse) -> None:
    async def hang() -> ModelReply:
        if len(model.requests) == 1:
            await asyncio.get_running_loop().create_future()
        return ModelReply(text="fine")

    model = HandModel(by_turn(hang))
    house = await build(models={"hand": lambda: model})
    key = await house.start(model="hand:x")
    await eventually(lambda: len(model.requests) == 1)

    house.clock.advance(601)
    await house.committed(key, "model_call_failed")
    house.clock.advance(1)
    assert (await house.ended(key)).state == ThreadState.COMPLETED


async def test_the_time_limit_of_a_thread_counts_while_it_runs(house: House) -> None:
    key = await house.start({"hang": True}, limits=Limits(timeout_micros=10 * SECOND_MICROS))
    await house.committed(key, "model_call_started")

    house.clock.advance(9)
    await turns()
    assert (await house.row(key)).state == ThreadState.RUNNING
    house.clock.advance(1.5)
    row = await house.ended(key)

    assert (row.state, row.stop_reason) == (ThreadState.TIMED_OUT, StopReason.DEADLINE)
    await house.check_ended(key)


async def test_the_lifetime_of_a_thread_ends_it_whatever_it_does(house: House) -> None:
    gate = Gate(stubborn=True)
    house.bench.add("look", gate, timeout_micros=1000 * SECOND_MICROS)
    key = await house.start(use("look"), limits=Limits(max_lifetime_micros=100 * SECOND_MICROS))
    await eventually(lambda: gate.inside == 1)

    house.clock.advance(101)
    row = await house.ended(key)

    assert row.state == ThreadState.TIMED_OUT
    (completed,) = await house.payloads(key, e.ToolCallCompleted)
    assert completed.status is CallStatus.ABANDONED
    gate.open()


async def raise_bug() -> ModelReply:
    raise KeyError("a bug of the adapter")


async def answer_nonsense() -> ModelReply:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize("reply", [raise_bug, answer_nonsense])
async def test_an_adapter_with_a_bug_fails_the_thread_and_does_not_hang_it(
    build: OpenHouse, reply: Callable[[], Awaitable[ModelReply]]
) -> None:
    house = await build(models={"hand": lambda: HandModel(by_turn(reply))})

    key = await house.start(model="hand:x")
    row = await house.ended(key)

    assert (row.state, row.stop_reason) == (ThreadState.FAILED, StopReason.MODEL_ERROR)
    (failed,) = await house.payloads(key, e.ModelCallFailed)
    assert "adapter failed" in failed.error.message
    assert "a bug" not in failed.error.message


async def cancel_itself(*_: Any) -> Any:
    raise asyncio.CancelledError


async def test_an_adapter_that_lets_itself_be_cancelled_counts_as_a_failed_attempt(build: OpenHouse) -> None:
    async def reply(request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        if request.attempt == 1:
            await cancel_itself()
        return ModelReply(text="fine")

    house = await build(models={"hand": lambda: HandModel(reply)})
    key = await house.start(model="hand:x")
    await house.committed(key, "model_call_failed")
    house.clock.advance(1)

    assert (await house.ended(key)).state == ThreadState.COMPLETED
    (failed,) = await house.payloads(key, e.ModelCallFailed)
    assert failed.will_retry


async def raise_a_bug(call: ToolCall) -> str:
    raise ZeroDivisionError("a secret path")


async def answer_no_text(call: ToolCall) -> str:
    return 42  # type: ignore[return-value]


@pytest.mark.parametrize("work", [raise_a_bug, answer_no_text, cancel_itself])
async def test_a_tool_with_a_bug_is_a_failed_call_that_the_agent_sees(house: House, work: Any) -> None:
    house.bench.add("look", work, Effect.AT_MOST_ONCE)

    key = await house.run(use("look"), say("{observation}"))

    (completed,) = await house.payloads(key, e.ToolCallCompleted)
    assert completed.status is CallStatus.FAILED
    assert "secret" not in completed.observation
    assert (await house.row(key)).state == ThreadState.COMPLETED


async def test_text_that_utf8_cannot_hold_does_not_stop_a_thread(build: OpenHouse) -> None:
    broken = "a\ud83d"
    proposal = ProposedCall(broken, f'{{"x":"{broken}"}}', "", broken)
    replies = by_turn(ModelReply(text=broken, thought=broken, calls=(proposal,)), ModelReply(refusal=broken))
    house = await build(models={"hand": lambda: HandModel(replies)})

    key = await house.start(model="hand:x")
    row = await house.ended(key)

    assert row.stop_reason == StopReason.MODEL_REFUSAL
    messages = await house.payloads(key, e.MessageCompleted)
    assert messages[0].text == "a\ufffd"


async def test_a_thread_whose_driver_fails_is_tried_again_less_and_less_often(build: OpenHouse) -> None:
    async def reply(request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        broken = ProviderContent(provider=request.attempt)  # type: ignore[arg-type]
        return ModelReply(text="fine", provider_content=broken if request.attempt < 3 else None)

    model = HandModel(reply)
    house = await build(models={"hand": lambda: model})
    key = await house.start(model="hand:x")
    for attempt, seconds in ((1, 30), (2, 60)):
        await eventually(lambda: house.engine.running_count == 0)
        assert len(model.requests) == attempt
        house.clock.advance(seconds - 1)
        await turns()
        assert house.engine.running_count == 0
        house.clock.advance(1.1)
        await eventually(lambda: house.engine.running_count == 1)

    assert (await house.ended(key)).state == ThreadState.COMPLETED
    assert len(await house.payloads(key, e.ExecutionRecovered)) == 2
    await house.check_ended(key)
    await eventually(lambda: left_over(house.engine) == {})


async def test_a_pause_lets_what_runs_end_and_begins_nothing(house: House) -> None:
    gate = Gate()
    house.bench.add("look", gate)
    key = await house.start(use("look"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    await within(house.engine.ask(key, s.Pause(house.clock.now())))
    assert (await house.row(key)).state == ThreadState.RUNNING

    gate.open()
    await within(house.reached(key, ThreadState.PAUSED))
    await eventually(lambda: house.engine.running_count == 0)
    assert (await house.kinds(key)).count("model_call_started") == 1

    await within(house.engine.ask(key, s.Resume(house.clock.now())))
    assert (await house.ended(key)).state == ThreadState.COMPLETED


async def test_what_a_caller_says_meanwhile_is_taken_by_the_next_turn(build: OpenHouse) -> None:
    model = HandModel(by_turn(calls("look"), ModelReply(text="fine")))
    house = await build(models={"hand": lambda: model})
    gate = Gate()
    house.bench.add("look", gate)
    key = await house.start(model="hand:x")
    await eventually(lambda: gate.inside == 1)
    await within(house.engine.ask(key, s.SendInput(house.clock.now(), Content("and hurry"))))
    gate.open()
    await house.ended(key)

    said = [entry for entry in model.requests[1].transcript.entries if isinstance(entry, UserEntry)]
    assert [entry.content.text for entry in said] == ["hello", "and hurry"]


async def test_a_thread_at_its_end_leaves_nothing_in_memory(house: House) -> None:
    house.bench.add("look", answer)
    await house.run(use("look", "look"), use("look"), say("fine"))
    await house.run(model=scripted(use("nothing")))

    await eventually(lambda: left_over(house.engine) == {})
    assert left_over(house.journal) == {}
    assert left_over(house.feed) == {}
