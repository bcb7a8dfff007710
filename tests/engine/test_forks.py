"""Forks are driven like any thread, and what was made of them survives a crash."""

import asyncio
from hashlib import sha256
from typing import Any

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import within
from tests.engine.house import House, say, use
from tests.engine.workbench import Gate, Workbench
from tests.waiting import eventually
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.evolve import fold
from treadle_server.core.kinds import CallStatus, Decision, Effect, ThreadState
from treadle_server.core.policy import arguments_digest
from treadle_server.core.spec import Spec
from treadle_server.core.state import State
from treadle_server.core.values import Content
from treadle_server.ports.engine import Start
from treadle_server.ports.log import NewThread, StoredRecord, ThreadKey
from treadle_server.services.file_check import differences
from treadle_server.services.thread_prefixes import SHARED_EVENTS_MAX, ThreadPrefixes


async def planned(
    house: House, source: ThreadKey, through: int, *, text: str = "", spec: Spec | None = None, **row: Any
) -> Start:
    """A fork to start."""
    original = await house.row(source)
    spec = spec or (await house.specs.of_thread(source))[0]
    prefix = await ThreadPrefixes(house.log, house.codec, house.specs).prefix(original, through, spec)
    key = ThreadKey(source.tenant, house.log.allocate_thread())
    body, now = house.codec.encode_spec(spec), house.clock.now()
    digest = sha256(body)
    reference = e.SpecReference(spec.agent_version, f"sha256:{digest.hexdigest()}", spec.model[:255])
    given = {"id": f"fork-{key.thread}", "agent": original.agent, "version": original.version, **row}
    new = NewThread(session=0, spec_digest=digest.digest(), spec=body, create_time=now, **given)
    ask = s.Fork(now, reference, f"threads/{original.id}", Content(text) if text else None, "users/eve")
    return Start(key, spec, ask, new, None, prefix)


async def fork(house: House, source: ThreadKey, through: int, **options: Any) -> ThreadKey:
    start = await planned(house, source, through, **options)
    await within(house.engine.start(start))
    return start.key


async def stored(house: House, key: ThreadKey) -> list[StoredRecord]:
    return await house.store.log.read(key, 0, 10_000)


def bench() -> Workbench:
    made = Workbench()
    made.add("look", effect=Effect.READ_ONLY)
    made.add("save", effect=Effect.IDEMPOTENT)
    made.add("send", effect=Effect.AT_MOST_ONCE)
    return made


RECORDED = (use("look", "save", "send"), use("loook", "send"), say("fine"))


async def test_the_fold_of_a_fork_at_each_event_of_a_recorded_thread_is_that_of_the_original_up_to_there(
    build: OpenHouse,
) -> None:
    house = await build(bench=bench())
    original = await house.run(*RECORDED)
    records, events = await stored(house, original), await house.events(original)
    spec, _ = await house.specs.of_thread(original)

    for through in range(2, len(events)):
        key = await fork(house, original, through)
        await house.ended(key)

        log = await house.check_ended(key)
        assert (await stored(house, key))[:through] == records[:through]
        assert fold(State(spec), log[:through]) == fold(State(spec), events[:through])
        assert isinstance(log[through].payload, e.ThreadForked)
        assert list(differences(await house.row(key), fold(State(spec), log))) == []
        assert fold(State(spec), log).status is ThreadState.COMPLETED

    assert await stored(house, original) == records


async def test_a_fork_at_each_event_repeats_no_call_that_must_not_be_repeated(build: OpenHouse) -> None:
    house = await build(bench=bench())
    original = await house.run(*RECORDED)
    events = await house.events(original)
    sent = {"call-1-3", "call-2-2"}

    for through in range(2, len(events)):
        house.bench.calls.clear()
        key = await fork(house, original, through)
        await house.ended(key)

        begun = {
            event.payload.tool_call_id
            for event in events[:through]
            if isinstance(event.payload, e.ToolCallStarted)
        }
        made = {call.tool_call_id for name, call in house.bench.calls if name == "send"}
        assert not made & begun
        shared_outcome = {
            event.payload.tool_call_id
            for event in events[:through]
            if isinstance(event.payload, e.ToolCallCompleted)
        }
        unknown = {
            done.tool_call_id
            for done in await house.payloads(key, e.ToolCallCompleted)
            if done.status is CallStatus.UNKNOWN
        }
        assert unknown == (begun - shared_outcome) & sent


async def test_a_forks_calls_have_idempotency_keys_of_their_own(build: OpenHouse) -> None:
    house = await build(bench=bench())
    original = await house.run(use("save"), say("fine"))
    asked = [event.sequence for event in await house.events(original)]
    started = (await house.kinds(original)).index("tool_call_started") + 1
    assert started in asked

    await house.ended(await fork(house, original, started))

    first, second = (call for name, call in house.bench.calls if name == "save")
    assert first.tool_call_id == second.tool_call_id
    assert first.idempotency_key != second.idempotency_key


async def test_a_fork_goes_on_while_the_other_thread_does(build: OpenHouse) -> None:
    gate = Gate()
    house = await build()
    house.bench.add("look", gate)
    original = await house.start(use("look"), say("fine"))
    await house.committed(original, "tool_call_started")
    row = await house.row(original)

    key = await fork(house, original, row.sequence)
    await eventually(lambda: gate.inside == 2)
    await house.cancel(key)
    await house.ended(key)

    assert (await house.row(original)).sequence == row.sequence
    gate.open()
    assert (await house.ended(original)).state == ThreadState.COMPLETED


async def test_a_fork_that_waits_for_people_waits_through_a_crash_and_then_goes_on(build: OpenHouse) -> None:
    first = await build()
    first.bench.add("pay", effect=Effect.AT_MOST_ONCE, approvers_needed=1)
    original = await first.start(use("pay"), say("fine"))
    waiting = await within(first.reached(original, ThreadState.WAITING_APPROVAL))
    key = await fork(first, original, waiting.sequence)
    assert (await first.row(key)).state == ThreadState.WAITING_APPROVAL
    await first.crash()

    second = await build(bench=first.bench)
    await second.recover()
    (asked,) = [
        event.payload
        for event in (await second.events(key))[waiting.sequence :]
        if isinstance(event.payload, e.ApprovalRequested)
    ]
    digest = arguments_digest(asked.arguments_json)
    decide = s.Decide(second.clock.now(), asked.approval_id, Decision.APPROVE, "users/bob", digest)
    await within(second.engine.ask(key, decide))

    assert (await second.ended(key)).state == ThreadState.COMPLETED
    assert (await second.row(original)).state == ThreadState.WAITING_APPROVAL
    assert second.bench.count("pay") == 1


async def test_a_fork_that_waits_is_driven_on_by_the_server_that_made_it(house: House) -> None:
    house.bench.add("pay", effect=Effect.AT_MOST_ONCE, approvers_needed=1)
    original = await house.start(use("pay"), say("fine"))
    waiting = await within(house.reached(original, ThreadState.WAITING_APPROVAL))
    key = await fork(house, original, waiting.sequence)
    asked = (await house.payloads(key, e.ApprovalRequested))[-1]

    digest = arguments_digest(asked.arguments_json)
    decide = s.Decide(house.clock.now(), asked.approval_id, Decision.APPROVE, "users/bob", digest)
    await within(house.engine.ask(key, decide))

    assert (await house.ended(key)).state == ThreadState.COMPLETED


@pytest.mark.parametrize("through", [2, 5, 8, 11])
async def test_a_fork_that_a_crash_overtakes_goes_on_from_where_it_was(
    build: OpenHouse, through: int
) -> None:
    first = await build(bench=bench())
    original = await first.run(*RECORDED)
    start = await planned(first, original, through)
    await within(first.engine.start(start))
    await first.crash()

    second = await build(bench=bench())
    await second.recover()
    await second.ended(start.key)

    log = await second.check_ended(start.key)
    assert (await stored(second, start.key))[:through] == (await stored(second, original))[:through]
    assert fold(State(start.spec), log).status is ThreadState.COMPLETED


async def test_a_fork_that_was_not_durable_at_a_crash_is_not_there(build: OpenHouse) -> None:
    first = await build(bench=bench())
    original = await first.run(*RECORDED)
    start = await planned(first, original, 8)
    first.log.hold()
    making = asyncio.create_task(first.engine.start(start))
    await eventually(lambda: first.log.waiting == 1)
    await first.crash()
    await asyncio.gather(making, return_exceptions=True)

    second = await build(bench=bench())
    await second.recover()
    assert await second.store.threads.get_by_key(start.key) is None
    assert await stored(second, start.key) == []


async def test_a_fork_of_a_thread_that_is_deleted_meanwhile_is_refused(house: House) -> None:
    original = await house.run(say("fine"))
    start = await planned(house, original, 3)
    await house.store.threads.delete(await house.row(original), delete_time=house.clock.now())

    with pytest.raises(Refused) as refused:
        await within(house.engine.start(start))

    assert refused.value.reason is Reason.RESOURCE_NOT_FOUND
    assert await house.store.threads.get_by_key(start.key) is None


async def test_a_fork_outlives_the_thread_that_it_was_made_of(build: OpenHouse) -> None:
    house = await build(bench=bench())
    original = await house.run(*RECORDED)
    key = await fork(house, original, 8)
    await house.ended(key)
    before = await stored(house, key)

    await house.store.threads.delete(await house.row(original), delete_time=house.clock.now())
    while await house.store.housekeeping.purge_threads():
        pass

    assert await stored(house, original) == []
    assert await stored(house, key) == before


async def test_more_than_can_be_copied_at_once_is_refused_by_the_field_that_cures_it(house: House) -> None:
    original = await house.run(say("fine"))
    row, (spec, _) = await house.row(original), await house.specs.of_thread(original)
    prefixes = ThreadPrefixes(house.log, house.codec, house.specs, bytes_max=100)

    for through in (SHARED_EVENTS_MAX + 1, row.sequence - 1):
        with pytest.raises(Refused) as refused:
            await prefixes.prefix(row, through, spec)
        assert refused.value.reason is Reason.FIELD_INVALID
        assert [fault.field for fault in refused.value.violations] == ["sequence"]


async def test_another_versions_model_goes_on_with_the_shared_conversation(build: OpenHouse) -> None:
    house = await build(bench=bench())
    original = await house.run(use("look"), say("fine"))
    spec = house.spec('scripted:{"turns":[{"text":"unused"},{"text":"otherwise"}]}')
    answered = (await house.kinds(original)).index("iteration_started", 4)

    key = await fork(house, original, answered, spec=spec)
    await house.ended(key)

    ended = (await house.payloads(key, e.ThreadEnded))[-1]
    assert ended.output == Content("otherwise")
