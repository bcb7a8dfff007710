"""A process dies, another takes up the file: calls are repeated or not as their effect class says."""

import pytest

from tests.engine.conftest import OpenHouse
from tests.engine.handloop import turns, within
from tests.engine.house import House, say, use
from tests.engine.workbench import Gate, HandModel, Workbench, answer, by_turn, calls
from tests.waiting import eventually
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.kinds import CallStatus, Decision, Effect, StopReason, ThreadState, UnknownPolicy
from treadle_server.core.policy import arguments_digest
from treadle_server.ports.log import ThreadKey
from treadle_server.ports.model import ModelReply, ModelRequest, OnDelta


async def completed(house: House, key: ThreadKey) -> dict[str, CallStatus]:
    done = await house.payloads(key, e.ToolCallCompleted)
    assert len({payload.tool_call_id for payload in done}) == len(done)
    return {payload.tool_call_id: payload.status for payload in done}


async def test_calls_in_flight_at_a_crash_are_repeated_only_where_that_is_safe(build: OpenHouse) -> None:
    gates = {effect: Gate() for effect in (Effect.READ_ONLY, Effect.IDEMPOTENT, Effect.AT_MOST_ONCE)}

    def bench() -> Workbench:
        bench = Workbench()
        for effect, gate in gates.items():
            bench.add(effect.name.lower(), gate, effect)
        return bench

    first = await build(bench=bench())
    key = await first.start(use("read_only", "idempotent", "at_most_once"), say("fine"))
    await eventually(lambda: sum(gate.inside for gate in gates.values()) == 3)
    await first.crash()

    second = await build(bench=bench())
    assert await second.recover() == 1
    await eventually(lambda: gates[Effect.READ_ONLY].inside + gates[Effect.IDEMPOTENT].inside == 2)
    for gate in gates.values():
        gate.open()
    row = await second.ended(key)

    assert row.state == ThreadState.COMPLETED
    await second.check_ended(key)
    assert await completed(second, key) == {
        "call-1-1": CallStatus.SUCCEEDED,
        "call-1-2": CallStatus.SUCCEEDED,
        "call-1-3": CallStatus.UNKNOWN,
    }
    assert second.bench.count("at_most_once") == 0
    (event,) = await second.payloads(key, e.ExecutionRecovered)
    assert event == e.ExecutionRecovered(second.store.epoch, ("call-1-3",))
    keys = {call.idempotency_key for house in (first, second) for _, call in house.bench.calls}
    assert len(keys) == 3


async def test_a_call_whose_intent_was_not_durable_was_never_made(build: OpenHouse) -> None:
    async def reply(request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        if request.attempt == 1:
            first.log.hold()
        return await by_turn(calls("send"), ModelReply(text="fine"))(request, on_delta)

    models = {"hand": lambda: HandModel(reply)}
    first = await build(models=models)
    first.bench.add("send", effect=Effect.AT_MOST_ONCE)
    key = await first.start(model="hand:x")
    await eventually(lambda: first.log.waiting == 1)
    await turns(50)
    await first.crash()
    assert first.bench.count("send") == 0

    second = await build(bench=first.bench, models=models)
    await second.recover()
    assert (await second.ended(key)).state == ThreadState.COMPLETED
    assert second.bench.count("send") == 1
    assert await completed(second, key) == {"call-1-1": CallStatus.SUCCEEDED}


async def test_a_result_that_was_durable_is_never_computed_again(build: OpenHouse) -> None:
    gate = Gate()
    first = await build()
    first.bench.add("send", effect=Effect.AT_MOST_ONCE)
    first.bench.add("look", gate)
    key = await first.start(use("send"), use("look"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    await first.crash()

    second = await build(bench=first.bench)
    await second.recover()
    gate.open()
    assert (await second.ended(key)).state == ThreadState.COMPLETED
    assert second.bench.count("send") == 1


async def test_the_agents_policy_decides_what_an_unknown_outcome_means(build: OpenHouse) -> None:
    gate = Gate()
    first = await build()
    first.bench.add("send", gate, Effect.AT_MOST_ONCE)
    key = await first.start(use("send"), say("fine"), on_unknown_outcome=UnknownPolicy.FAIL)
    await eventually(lambda: gate.inside == 1)
    await first.crash()

    second = await build(bench=first.bench)
    await second.recover()
    row = await second.ended(key)
    assert (row.state, row.stop_reason) == (ThreadState.FAILED, StopReason.TOOL_OUTCOME_UNKNOWN)


async def test_a_model_call_in_flight_is_made_again_and_both_attempts_count(
    build: OpenHouse,
) -> None:
    first = await build()
    key = await first.start({"hang": True}, thread_id="t")
    await first.committed(key, "model_call_started")
    await first.crash()

    second = await build()
    await second.recover()
    await second.committed(key, "model_call_started", 2)
    await second.cancel(key)
    await second.ended(key)

    usages = await second.payloads(key, e.UsageRecorded)
    assert [(usage.attempt, usage.estimated) for usage in usages] == [(1, True), (2, True)]


async def test_a_cancel_that_was_durable_holds_after_a_crash(build: OpenHouse) -> None:
    gate = Gate(stubborn=True)
    first = await build()
    first.bench.add("look", gate)
    key = await first.start(use("look"), say("fine"))
    await eventually(lambda: gate.inside == 1)
    await first.cancel(key)
    await first.crash()
    gate.open()

    second = await build(bench=first.bench)
    await second.recover()
    assert (await second.ended(key)).state == ThreadState.CANCELLED
    await second.check_ended(key)
    assert second.bench.count("look") == 1


async def test_an_approval_survives_and_its_decision_runs_the_call_once(build: OpenHouse) -> None:
    first = await build()
    first.bench.add("pay", effect=Effect.AT_MOST_ONCE, approvers_needed=1)
    key = await first.start(use("pay"), say("fine"))
    await within(first.reached(key, ThreadState.WAITING_APPROVAL))
    await first.crash()

    second = await build(bench=first.bench)
    await second.recover()
    ask = s.Decide(
        second.clock.now(), "approval-call-1-1", Decision.APPROVE, "users/bob", arguments_digest("{}")
    )
    await within(second.engine.ask(key, ask))
    assert (await second.ended(key)).state == ThreadState.COMPLETED
    assert second.bench.count("pay") == 1


@pytest.mark.parametrize("appends", range(1, 10))
async def test_a_crash_after_any_append_changes_nothing_in_the_end(build: OpenHouse, appends: int) -> None:
    """Nothing with effects is lost or done twice. What may be repeated is."""
    bench = Workbench()
    bench.add("look", answer)
    bench.add("save", answer, Effect.IDEMPOTENT)
    first = await build(bench=bench)
    plan = first.plan(use("look"), use("save", "look"), use("save"), say("{observation}"))
    first.log.hold(after_units=appends)
    await within(first.engine.start(plan))
    await eventually(lambda: first.log.held or first.engine.running_count == 0)
    await turns(50)
    await first.crash()

    second = await build(bench=bench)
    assert await second.recover() <= 1
    row = await second.ended(plan.key)

    assert row.state == ThreadState.COMPLETED
    end = (await second.check_ended(plan.key))[-1].payload
    assert isinstance(end, e.ThreadEnded)
    assert end.output is not None
    assert end.output.text == "done call-3-1"
    assert set((await completed(second, plan.key)).values()) == {CallStatus.SUCCEEDED}
    assert len(await completed(second, plan.key)) == 4


async def die_after_two_appends(house: House) -> None:
    house.log.hold(after_units=2)
    await eventually(lambda: house.log.held or house.engine.running_count == 0)
    await house.crash()


async def test_a_process_that_dies_again_and_again_gets_on_all_the_same(build: OpenHouse) -> None:
    bench = Workbench()
    bench.add("save", answer, Effect.IDEMPOTENT)
    house = await build(bench=bench)
    key = await house.start(*[use("save")] * 4, say("fine"))
    for _ in range(6):
        await die_after_two_appends(house)
        house = await build(bench=bench)
        await house.recover()

    assert (await house.ended(key)).state == ThreadState.COMPLETED
    await house.check_ended(key)
    assert len(await completed(house, key)) == 4
