"""Pieces of a message: never after it, together equal to it, and no subscriber has half a word."""

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, left_over, say, use
from tests.engine.workbench import Gate, HandModel, answer
from tests.feed.reading import ENDED, Reader, message, read, said, writer
from tests.waiting import eventually
from treadle_server.core import events as e
from treadle_server.core.kinds import DeltaKind
from treadle_server.core.values import Fault
from treadle_server.ports.feed import Watch
from treadle_server.ports.log import ThreadKey
from treadle_server.ports.model import ModelError, ModelReply, ModelRequest, OnDelta
from treadle_server.ports.tools import ToolCall

TEXT, THOUGHT = DeltaKind.TEXT, DeltaKind.THOUGHT
NO_CALL = ToolCall(0, 0, 0, "", 0, "", "")


def piece(house: House, key: ThreadKey, text: str, call_id: str = "model-1", attempt: int = 1) -> None:
    house.feed.delta(key, call_id, attempt, TEXT, text)


async def shown(house: House) -> None:
    """Pieces are shown a moment after they came."""
    house.clock.advance(0.021)
    await turns()


def assert_none_after_its_message(reader: Reader) -> None:
    done: set[str] = set()
    for event in reader.messages:
        assert event.message_delta.call_id not in done or not event.HasField("message_delta")
        if event.HasField("message_completed"):
            done.add(event.message_completed.call_id)


async def test_the_pieces_together_are_the_message(house: House) -> None:
    house.bench.add("look", answer)
    turns_of_it = [
        {**use("look"), "text": "let me see", "thought": "hm, what is it", "pieces": 4, "delay_ms": 30},
        {**say("here it is, äöü 🙂"), "pieces": 9, "delay_ms": 60},
    ]
    plan = house.plan(*turns_of_it)
    readers = [read(house, plan.key, fresh=True, deltas=deltas) for deltas in (True, False)]
    await within(house.engine.start(plan))
    for reader in readers:
        await reader.end()

    assert readers[0].texts("model-1") == "let me see"
    assert readers[0].texts("model-1", kind=THOUGHT) == "hm, what is it"
    assert readers[0].texts("model-2") == "here it is, äöü 🙂"
    assert_none_after_its_message(readers[0])
    assert "message_delta" not in readers[1].kinds
    assert readers[0].sequences == readers[1].sequences
    assert left_over(house.feed) == {}


async def test_pieces_that_come_together_are_shown_as_one(house: House) -> None:
    log = writer(house)
    reader = read(house, log.key, fresh=True, deltas=True)
    await log.inputs("hello")
    await eventually(lambda: len(reader.items) == 1)
    for word in ("once ", "upon ", "a ", "time"):
        piece(house, log.key, word)
    await turns()
    assert reader.kinds == ["input_received"]

    await shown(house)
    piece(house, log.key, " there")
    await shown(house)

    assert reader.kinds == ["input_received", "message_delta", "message_delta"]
    assert reader.texts("model-1") == "once upon a time there"
    await reader.stop()


async def test_what_is_not_shown_yet_comes_right_before_the_message(house: House) -> None:
    log = writer(house)
    reader = read(house, log.key, fresh=True, deltas=True)
    await log.inputs("hello")
    piece(house, log.key, "shown ")
    await shown(house)
    piece(house, log.key, "not shown")
    house.feed.delta(log.key, "model-1", 1, THOUGHT, "a thought")
    thought = e.ThoughtRecorded("model-1", "a thought")
    await log.add(thought, *message("model-1", "shown not shown"), ENDED)
    await reader.end()

    assert reader.texts("model-1") == "shown not shown"
    assert reader.texts("model-1", kind=THOUGHT) == "a thought"
    assert [kind for kind in reader.kinds if kind != "message_delta"] == [
        *("input_received", "thought_recorded", "message_completed", "usage_recorded", "thread_ended")
    ]
    assert reader.kinds.index("thought_recorded") > max(
        place for place, kind in enumerate(reader.kinds) if kind == "message_delta"
    )


@pytest.mark.parametrize("watched", [True, False])
async def test_who_comes_late_gets_the_text_so_far(house: House, watched: bool) -> None:
    log = writer(house)
    early = read(house, log.key, fresh=True, deltas=True) if watched else None
    await log.inputs("hello")
    piece(house, log.key, "once upon ")
    await shown(house)
    late = read(house, log.key, 1, deltas=True)
    behind = read(house, log.key, 0, deltas=True)
    await eventually(lambda: bool(late.items) and len(behind.items) >= 2)
    assert late.texts("model-1") == behind.texts("model-1") == "once upon "

    piece(house, log.key, "a time")
    await log.add(*message("model-1", "once upon a time"), ENDED)
    for reader in (late, behind, early):
        if reader is not None:
            await reader.end()
            assert reader.texts("model-1") == "once upon a time"
            assert_none_after_its_message(reader)
    assert left_over(house.feed) == {}


async def test_a_slow_subscriber_gets_the_rest_of_each_message_before_it(house: House) -> None:
    log = writer(house)
    subscription = house.feed.follow(Watch(log.key, 0, deltas=True, fresh=True))
    for number in range(1, 4):
        piece(house, log.key, f"text {number}", f"model-{number}")
        await log.add(*message(f"model-{number}", f"text {number}"))
    await log.add(ENDED)
    reader = Reader(house, Watch(log.key, 0))
    reader.items = [item async for batch in subscription for item in batch]

    assert [reader.texts(f"model-{number}") for number in range(1, 4)] == ["text 1", "text 2", "text 3"]
    assert_none_after_its_message(reader)


async def test_a_higher_attempt_begins_anew(house: House) -> None:
    log = writer(house)
    reader = read(house, log.key, fresh=True, deltas=True)
    await log.inputs("hello")
    piece(house, log.key, "first try, brok")
    await shown(house)
    await log.add(e.ModelCallFailed("model-1", 1, Fault(14, "gone"), will_retry=True))
    late = read(house, log.key, 2, deltas=True)
    await turns(50)
    assert late.items == []

    await log.add(e.ModelCallStarted("model-1", 2, "m"))
    piece(house, log.key, "second try", attempt=2)
    await shown(house)
    await log.add(*message("model-1", "second try"), ENDED)
    await reader.end()
    await late.end()

    assert reader.texts("model-1", attempt=1) == "first try, brok"
    assert reader.texts("model-1", attempt=2) == "second try"
    assert late.texts("model-1", attempt=1) == ""
    assert late.texts("model-1", attempt=2) == "second try"


async def test_pieces_of_an_attempt_that_was_lost_are_not_taken_for_the_next_message(house: House) -> None:
    """Without an event of its failure, as after events that the store refused."""
    log = writer(house)
    reader = read(house, log.key, fresh=True, deltas=True)
    await log.inputs("hello")
    piece(house, log.key, "lost")
    await log.add(e.ExecutionRecovered(2), e.ModelCallStarted("model-1", 2, "m"))
    await log.add(*message("model-1", ""), ENDED)
    await reader.end()

    assert reader.texts("model-1", attempt=1) == ""
    assert left_over(house.feed) == {}


async def test_pieces_wait_until_the_subscriber_has_what_came_before(house: House) -> None:
    log = writer(house)
    await log.inputs(*(f"text {number}" for number in range(200)))
    piece(house, log.key, "new")
    reader = read(house, log.key, 0, deltas=True)
    await eventually(lambda: len(reader.items) == 201)

    assert reader.kinds == ["input_received"] * 200 + ["message_delta"]
    await reader.stop()


async def test_a_model_that_goes_on_after_it_was_given_up_shows_nothing_more(build: OpenHouse) -> None:
    gate = Gate(stubborn=True)

    async def reply(request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        on_delta(TEXT, "seen")
        await gate(NO_CALL)
        on_delta(TEXT, " and unseen")
        return ModelReply(text="seen and unseen")

    house = await build(models={"hand": lambda: HandModel(reply)})
    plan = house.plan(model="hand:x")
    reader = read(house, plan.key, fresh=True, deltas=True)
    await within(house.engine.start(plan))
    await eventually(lambda: gate.inside == 1)
    house.clock.advance(0.1)
    await eventually(lambda: "message_delta" in reader.kinds)
    await house.cancel(plan.key)
    house.clock.advance(5.1)
    await reader.end()
    gate.open()
    await eventually(lambda: gate.inside == 0)
    await turns()

    assert reader.texts("model-1") == "seen"
    assert left_over(house.feed) == {}


async def test_a_failed_attempt_and_its_repetition_are_told_apart_by_a_watcher(build: OpenHouse) -> None:
    async def reply(request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        on_delta(TEXT, f"attempt {request.attempt}")
        if request.attempt == 1:
            raise ModelError(14, "overloaded", retryable=True)
        return ModelReply(text="attempt 2")

    house = await build(models={"hand": lambda: HandModel(reply)})
    plan = house.plan(model="hand:x")
    reader = read(house, plan.key, fresh=True, deltas=True)
    await within(house.engine.start(plan))
    await house.committed(plan.key, "model_call_failed")
    house.clock.advance(1)
    await reader.end()

    assert reader.texts("model-1", attempt=2) == "attempt 2"
    assert_none_after_its_message(reader)


async def test_a_message_that_the_store_shows_before_the_feed_is_told_gets_no_pieces_afterwards(
    house: House,
) -> None:
    """Whatever the moment at which a subscriber reads the store, around a commit."""
    for attempt in range(60):
        log = writer(house)
        await log.inputs("hello")
        piece(house, log.key, "once upon a time")
        ticket = log.append(*message("model-1", "once upon a time"))
        await turns(attempt % 12)
        reader = read(house, log.key, 0, deltas=True)
        await within(ticket.wait())
        await log.add(said("more"), ENDED)
        await reader.end()
        assert_none_after_its_message(reader)
        assert reader.texts("model-1") in ("", "once upon a time")
    assert left_over(house.feed) == {}
