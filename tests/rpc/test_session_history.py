"""What a model is told besides the inputs: contexts, and what was said before in the session."""

import asyncio
from pathlib import Path
from typing import Any

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, running
from tests.rpc.runs import (
    HANG,
    Thread,
    collected,
    create,
    ended,
    get,
    kinds,
    make_agent,
    pb,
    run,
    until_event,
    watch,
)
from tests.waiting import eventually
from treadle.v1 import thread_pb2

WaitingFor: Any = thread_pb2.WaitingFor
TOLD: dict[str, Any] = {"text": "Told:\n{recalled}"}


def told(thread: Any) -> list[str]:
    """What the model was told before its first input, by its own account."""
    first, *lines = thread.output.text.split("\n")
    assert first == "Told:"
    return [line for line in lines if line]


async def history_of(rig: Rig, name: str) -> Any:
    """The event that tells it; None when there is none."""
    for event in await collected(watch(rig, name)):
        if event.HasField("history_recalled"):
            return event.history_recalled
    return None


async def test_a_thread_knows_what_was_said_before_in_its_session(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "Hello Ada."})
    await make_agent(rig, "teller", TOLD)
    first = await run(rig, session_key="room", agent="teller", input={"text": "I am Ada."})
    await run(rig, session_key="another", agent="teller", input={"text": "I am Bob."})
    second = await run(rig, session_key="room", agent="teller", input={"text": "Who am I?"})
    third = await run(rig, session_key="room", agent="teller", input={"text": "And now?"})

    assert told(first) == []
    assert told(second) == ["user: I am Ada.", "agent: Told:"]
    assert told(third)[:3] == ["user: I am Ada.", "agent: Told:", "user: Who am I?"]
    assert kinds(await collected(watch(rig, first.name))).count("history_recalled") == 0


async def test_the_history_stands_in_the_log_before_the_first_turn(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "Hello."})
    await run(rig, "t1", session_key="room", input={"text": "One."})
    await run(rig, "t2", session_key="room", input={"text": "Two."})

    events = await collected(watch(rig, "threads/t2"))

    order = kinds(events)
    assert order[:3] == ["thread_created", "input_received", "history_recalled"]
    messages = events[2].history_recalled.messages
    assert [(each.thread, each.content.text) for each in messages] == [
        ("threads/t1", "One."),
        ("threads/t1", "Hello."),
    ]
    assert not events[2].history_recalled.older_left_out


async def test_only_as_much_is_recalled_as_the_agent_says(rig: Rig) -> None:
    policy = {"history_messages_max": 2}
    await make_agent(rig, "helper", {"text": "Yes."}, session_policy=policy)
    for number in range(3):
        await run(rig, f"t{number}", session_key="room", input={"text": f"Question {number}."})

    history = await history_of(rig, "threads/t2")

    assert [each.content.text for each in history.messages] == ["Question 1.", "Yes."]
    assert history.older_left_out


async def test_an_agent_can_do_without_history(rig: Rig) -> None:
    await make_agent(rig, "helper", TOLD, session_policy={"history_messages_max": 0})
    await run(rig, session_key="room")

    second = await run(rig, session_key="room")

    assert told(second) == []
    assert await history_of(rig, second.name) is None


async def test_what_is_too_long_is_left_out_with_all_before_it(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "Yes."})
    await run(rig, session_key="room", input={"text": "Short."})
    await run(rig, session_key="room", input={"text": "x" * 65_000})
    await run(rig, session_key="room", input={"text": "y" * 600})

    history = await history_of(rig, (await run(rig, session_key="room")).name)

    assert [each.content.text[:4] for each in history.messages] == ["Yes.", "yyyy", "Yes."]
    assert history.older_left_out


async def test_a_history_is_a_copy_that_outlives_its_threads(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "Yes."})
    await run(rig, "t1", session_key="room", input={"text": "One."})
    await run(rig, "t2", session_key="room")

    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name="threads/t1"))
    third = await run(rig, "t3", session_key="room")

    texts = [each.content.text for each in (await history_of(rig, "threads/t2")).messages]
    assert texts == ["One.", "Yes."]
    assert [each.thread for each in (await history_of(rig, third.name)).messages] == ["threads/t2"] * 2


async def test_a_thread_that_waited_for_another_knows_what_that_one_said(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "{recalled}", "delay_ms": 30})
    names = [
        (await create(rig, f"t{number}", session_key="room", input={"text": f"I say {number}."})).name
        for number in range(3)
    ]

    last = (await asyncio.gather(*(ended(rig, name) for name in names)))[-1]

    lines = last.output.text.split("\n")
    assert [line for line in lines if line.startswith("user: ")] == ["user: I say 0.", "user: I say 1."]


async def test_the_first_context_of_a_session_holds_for_all_its_threads(rig: Rig) -> None:
    await make_agent(rig, "helper", TOLD, session_policy={"history_messages_max": 0})
    context = {"initial": "Speak French.", "additional": "It rains."}

    first = await run(rig, "t1", session_key="room", context=context)
    second = await run(rig, "t2", session_key="room")
    third = await run(
        rig, "t3", session_key="room", context={"initial": "Speak Latin.", "additional": "Sun."}
    )

    assert told(first) == ["context: Speak French.", "context: It rains."]
    assert told(second) == ["context: Speak French."]
    assert told(third) == ["context: Speak French.", "context: Sun."]
    created = [(await collected(watch(rig, each.name)))[0].thread_created for each in (first, second, third)]
    assert [each.initial_context_ignored for each in created] == [False, False, True]
    assert [each.context.initial for each in created] == ["Speak French."] * 3
    assert (third.context.initial, third.context.additional) == ("Speak French.", "Sun.")


async def test_of_threads_that_start_a_session_together_one_gives_the_context(rig: Rig) -> None:
    await make_agent(rig, "helper", TOLD, session_policy={"history_messages_max": 0})

    threads = await asyncio.gather(
        *(run(rig, session_key="room", context={"initial": f"I am {number}."}) for number in range(12))
    )

    assert len({tuple(told(thread)) for thread in threads}) == 1
    created = [(await collected(watch(rig, each.name)))[0].thread_created for each in threads]
    assert sum(not each.initial_context_ignored for each in created) == 1


async def test_a_context_without_a_session_holds_for_its_thread(rig: Rig) -> None:
    await make_agent(rig, "helper", TOLD)

    thread = await run(rig, context={"initial": "Be brief.", "additional": "It rains."})

    assert told(thread) == ["context: Be brief.", "context: It rains."]


async def test_contexts_that_are_too_long_are_refused(rig: Rig) -> None:
    await make_agent(rig)

    for field, characters in (("initial", 4_097), ("additional", 1_025)):
        failure = await failure_of(create(rig, context={field: "x" * characters}))
        assert failure.reason == "FIELD_INVALID"
        assert f"thread.context.{field}" in failure.message


async def test_inputs_in_quick_succession_are_taken_together(rig: Rig) -> None:
    await make_agent(rig, "helper", session_policy={"input_debounce": {"nanos": 300_000_000}})
    thread = await create(rig, "t1", session_key="room", input={"text": "One."})
    for text in ("Two.", "Three."):
        again = await create(rig, session_key="room", busy_policy=Thread.STEER, input={"text": text})
        assert again.name == thread.name
        assert again.state == Thread.PENDING

    events = await collected(watch(rig, "threads/t1"))

    started = next(event for event in events if event.HasField("iteration_started"))
    assert len(started.iteration_started.consumed_inputs) == 3
    assert kinds(events).count("iteration_started") == 1
    last_input = max(
        event.event_time.ToMicroseconds() for event in events if event.HasField("input_received")
    )
    assert started.event_time.ToMicroseconds() >= last_input + 300_000


async def waits_for_session(rig: Rig, name: str) -> bool:
    thread = await get(rig, name)
    return (thread.state, [each.kind for each in thread.waiting_for]) == (
        Thread.PENDING,
        [WaitingFor.SESSION],
    )


async def test_a_thread_that_waits_for_further_input_says_so_and_takes_no_room(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        policy = {"input_debounce": {"seconds": 60}}
        await make_agent(rig, "helper", HANG, session_policy=policy, limits={"max_concurrent_threads": 1})
        thread = await create(rig, "t1", session_key="room")

        assert thread.state == Thread.PENDING
        assert [(each.kind, each.resource) for each in thread.waiting_for] == [
            (WaitingFor.SESSION, thread.session)
        ]
        await create(rig, "t2")
        await until_event(rig, "threads/t2", "model_call_started")
        await rig.threads.CancelThread(pb.CancelThreadRequest(name="threads/t2"))
        behind = await create(rig, "t3", session_key="room")
        assert [each.kind for each in behind.waiting_for] == [WaitingFor.SESSION]

    async with running(tmp_path / "t.db") as rig:
        await eventually(lambda: waits_for_session(rig, "threads/t1"))
        await create(rig, "t4")
        await until_event(rig, "threads/t4", "model_call_started")
        for name in ("t1", "t3", "t4"):
            await rig.threads.CancelThread(pb.CancelThreadRequest(name=f"threads/{name}"))


async def test_a_thread_without_a_session_begins_at_once(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG, session_policy={"input_debounce": {"seconds": 60}})

    thread = await create(rig)

    await until_event(rig, thread.name, "model_call_started")
