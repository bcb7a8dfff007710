"""What an execution answers, and how its stream behaves at the edges."""

import asyncio
import json
from contextlib import aclosing

import pytest

from tests.server_process import ServerProcess
from treadle import Client, ThreadEvent
from treadle.errors import OutOfRange
from treadle.v1 import agent_pb2, event_pb2, thread_pb2
from treadle.v1.thread_service_pb2 import ExecuteAgentRequest


def script(*turns: object) -> str:
    return "scripted:" + json.dumps({"turns": turns})


CALCULATE = {
    "thought": "I need a sum.",
    "calls": [{"name": "calculator", "arguments": {"expression": "6*7"}}],
    "usage": {"input_tokens": 100, "output_tokens": 20},
    "cost_micros": 1500,
}
ANSWER = {
    "text": "It is {observation}.",
    "usage": {"input_tokens": 50, "output_tokens": 5},
    "cost_micros": 500,
}


async def collect(events: object) -> list[ThreadEvent]:
    return [event async for event in events]  # type: ignore[attr-defined]


async def test_every_field_of_a_complete_execution_record_is_filled(client: Client) -> None:
    agent = await client.create_agent(
        "recorder", model=script(CALCULATE, ANSWER), tool_groups=["toolGroups/builtin"]
    )
    trigger = thread_pb2.Trigger(type=thread_pb2.Trigger.EVENT, triggered_by="crm/deal-updated")
    subject = thread_pb2.Subject(type="deal", id="deal-17")

    thread = await client.execute(
        "recorder", data={"amount": 42}, trigger=trigger, subject=subject, client_metadata={"case": "7"}
    )

    assert thread.name.startswith("threads/")  # id
    assert thread.agent == agent.name  # agent_id
    assert thread.agent_version == "agents/recorder/versions/1"
    assert thread.trigger.type == thread_pb2.Trigger.EVENT  # trigger_type
    assert thread.trigger.triggered_by == "crm/deal-updated"  # triggered_by
    assert thread.state == thread_pb2.Thread.COMPLETED  # status
    assert json.loads(thread.input.data_json) == {"amount": 42}  # input_data
    assert thread.output.text == "It is 42."  # output_data
    assert not thread.HasField("error")  # error_message
    assert (thread.subject.type, thread.subject.id) == ("deal", "deal-17")  # context_type, context_id
    assert (
        thread.start_time.ToNanoseconds() >= thread.create_time.ToNanoseconds() > 0
    )  # started_at, created_at
    assert thread.end_time.ToNanoseconds() >= thread.start_time.ToNanoseconds()  # completed_at
    assert thread.update_time.ToNanoseconds() >= thread.end_time.ToNanoseconds()  # updated_at
    assert thread.execution_duration.ToNanoseconds() > 0  # execution_time_ms
    assert thread.iteration_count == 2  # iteration_count
    assert list(thread.tools_used) == ["calculator"]  # tools_used
    assert thread.usage.total_tokens == 175  # total_tokens
    assert (thread.cost.cost_micros, thread.cost.currency_code, thread.cost.known) == (2000, "USD", True)
    assert thread.model_used == agent.model[:255]  # model_used; a script is cut
    assert thread.success  # success
    assert thread.actions_taken == 1  # actions_taken
    assert thread.client_metadata["case"] == "7"  # extra_metadata of the caller
    first, second = thread.iterations  # iterations[]
    assert (first.number, first.thought) == (1, "I need a sum.")
    action = first.actions[0]
    assert (action.tool, json.loads(action.arguments_json)) == ("calculator", {"expression": "6*7"})
    assert action.observation == "42"
    assert first.start_time.ToNanoseconds() > 0  # timestamp
    assert first.end_time.ToNanoseconds() >= first.start_time.ToNanoseconds()
    assert second.usage.total_tokens == 55


async def test_a_failed_execution_says_why(client: Client) -> None:
    error = {"error": {"code": "INVALID_ARGUMENT", "message": "no such model", "retryable": False}}
    await client.create_agent("failing", model=script(error))

    thread = await client.execute("failing", "Go.")

    assert thread.state == thread_pb2.Thread.FAILED
    assert thread.stop_reason == thread_pb2.Thread.MODEL_ERROR
    assert "no such model" in thread.error.message
    assert not thread.success


async def test_what_is_streamed_is_what_is_stored(client: Client) -> None:
    await client.create_agent("helper", model=script(CALCULATE, ANSWER), tool_groups=["toolGroups/builtin"])

    streamed = await collect(client.stream("helper", "Go."))
    stored = await collect(client.list_events(streamed[0].thread))
    watched = await collect(client.watch(streamed[0].thread))

    assert streamed == stored == watched
    assert [event.sequence for event in streamed] == list(range(1, len(streamed) + 1))
    assert [event.WhichOneof("payload") for event in streamed].count("thread_ended") == 1
    assert streamed[-1].WhichOneof("payload") == "thread_ended"


async def test_a_watch_at_the_end_of_an_ended_thread_is_over_at_once(client: Client) -> None:
    await client.create_agent("helper", model=script(ANSWER))
    thread = await client.execute("helper", "Go.")

    async with asyncio.timeout(5):
        assert await collect(client.watch(thread.name, after_sequence=thread.last_sequence)) == []
        with pytest.raises(OutOfRange) as refused:
            await collect(client.watch(thread.name, after_sequence=thread.last_sequence + 1))

    assert refused.value.reason == "SEQUENCE_OUT_OF_RANGE"
    assert refused.value.metadata["last"] == str(thread.last_sequence)


async def test_the_deltas_of_a_message_joined_equal_the_message(client: Client) -> None:
    words = " ".join(f"word{index}" for index in range(400))
    turn = {"thought": "Slowly now. " * 20, "text": words, "pieces": 60, "delay_ms": 600}
    await client.create_agent("talker", model=script(turn))

    events = await collect(client.stream("talker", "Go.", include_deltas=True))

    joined = {event_pb2.MessageDelta.TEXT: "", event_pb2.MessageDelta.THOUGHT: ""}
    pieces = 0
    for event in events:
        if event.WhichOneof("payload") == "message_delta":
            delta = event.message_delta
            assert delta.offset == len(joined[delta.kind])
            joined[delta.kind] += delta.text
            pieces += 1
            assert event.sequence == 0
    completed = next(e.message_completed for e in events if e.WhichOneof("payload") == "message_completed")
    thought = next(e.thought_recorded for e in events if e.WhichOneof("payload") == "thought_recorded")
    assert joined[event_pb2.MessageDelta.TEXT] == completed.text == words
    assert joined[event_pb2.MessageDelta.THOUGHT] == thought.text
    assert pieces > 5
    names = [event.WhichOneof("payload") for event in events]
    assert "message_delta" not in names[names.index("message_completed") :]


async def test_a_late_watcher_gets_the_text_so_far(client: Client) -> None:
    turn = {"text": "abcdefghij" * 20, "pieces": 40, "delay_ms": 2000}
    await client.create_agent("talker", model=script(turn))
    thread = await client.create_thread("talker", "Go.")
    async with aclosing(client.watch(thread.name, include_deltas=True)) as early:
        async for event in early:
            if event.WhichOneof("payload") == "message_delta" and event.message_delta.offset > 40:
                break

    events = await collect(client.watch(thread.name, include_deltas=True))

    deltas = [e.message_delta for e in events if e.WhichOneof("payload") == "message_delta"]
    assert deltas[0].offset == 0
    assert len(deltas[0].text) > 40
    assert "".join(delta.text for delta in deltas) == "abcdefghij" * 20


async def test_a_stream_at_the_head_costs_no_read_of_the_store(client: Client, server: ServerProcess) -> None:
    turns = [CALCULATE] * 10 + [ANSWER]
    await client.create_agent("long", model=script(*turns), tool_groups=["toolGroups/builtin"])
    await collect(client.stream("long", "Go."))
    before = (await client.get_server_info()).statistics.read_count

    events = await collect(client.stream("long", "Go."))

    reads = (await client.get_server_info()).statistics.read_count - before
    assert len(events) > 80
    # Starting reads the request id, the agent and its version; none of the events is read back.
    assert reads <= 6


async def test_a_watcher_that_joins_a_waiting_thread_reads_the_store_only_for_the_past(
    client: Client, server: ServerProcess
) -> None:
    turns = [{"text": "", "delay_ms": 300, **CALCULATE}] * 4 + [ANSWER]
    await client.create_agent("slow", model=script(*turns), tool_groups=["toolGroups/builtin"])
    thread = await client.create_thread("slow", "Go.")
    counts = []
    async for event in client.watch(thread.name):
        if event.WhichOneof("payload") == "iteration_started":
            counts.append((await client.get_server_info()).statistics.read_count)

    assert len(counts) == 5
    assert counts[1] == counts[-1]  # the first was read before the watcher had got to the head


async def test_a_caller_who_gives_up_leaves_the_thread_running_or_cancels_it(client: Client) -> None:
    turn = {"text": "Done.", "delay_ms": 1500, "pieces": 3}
    await client.create_agent("slow", model=script(turn))
    choices = {"detached": ExecuteAgentRequest.DETACH, "cancelled": ExecuteAgentRequest.CANCEL}

    threads = {}
    for name, choice in choices.items():
        async with aclosing(client.stream("slow", "Go.", thread_id=name, on_deadline=choice)) as events:
            async for event in events:
                if event.WhichOneof("payload") == "model_call_started":
                    break
        threads[name] = [e async for e in client.watch(name)][-1].thread_ended

    assert threads["detached"].state == thread_pb2.Thread.COMPLETED
    assert threads["cancelled"].stop_reason == thread_pb2.Thread.CANCELLED_BY_CALLER


async def test_one_thread_runs_in_a_session_and_the_others_wait_in_order(client: Client) -> None:
    turn = {"text": "Done.", "delay_ms": 150, "pieces": 2}
    await client.create_agent("turns", model=script(turn))

    made = [await client.create_thread("turns", f"Nr {n}", session_key="room-1") for n in range(4)]
    held = await client.get_thread(made[3].name)
    ended = [[e async for e in client.watch(thread.name)] for thread in made]

    assert len({thread.session for thread in made}) == 1
    assert held.state == thread_pb2.Thread.PENDING
    assert held.waiting_for[0].kind == thread_pb2.WaitingFor.SESSION
    assert held.waiting_for[0].resource in {thread.name for thread in made[:3]}
    starts = [next(e for e in log if e.WhichOneof("payload") == "state_changed") for log in ended]
    ends = [log[-1] for log in ended]
    for earlier, later in zip(ends, starts[1:], strict=False):
        assert earlier.event_time.ToMicroseconds() <= later.event_time.ToMicroseconds()


async def test_notes_are_remembered_across_threads_of_a_session(client: Client) -> None:
    await client.create_agent("helper", model="demo:react", tool_groups=["toolGroups/builtin"])

    await client.execute("helper", "Remember that my badge number is 4411.", session_key="s")
    same = await client.execute("helper", "What is my badge number?", session_key="s")
    other = await client.execute("helper", "What is my badge number?", session_key="t")

    assert "4411" in same.output.text
    assert "4411" not in other.output.text


async def test_an_agents_limit_of_concurrent_threads_holds(client: Client) -> None:
    turn = {"text": "Done.", "delay_ms": 200, "pieces": 2}
    limits = agent_pb2.AgentLimits(max_concurrent_threads=1)
    await client.create_agent("narrow", model=script(turn), limits=limits)

    made = [await client.create_thread("narrow", "Go.") for _ in range(3)]
    waiting = await client.get_thread(made[2].name)
    for thread in made:
        assert (await collect(client.watch(thread.name)))[-1].thread_ended.stop_reason == 1

    assert waiting.waiting_for[0].kind == thread_pb2.WaitingFor.AGENT_LIMIT
    assert waiting.waiting_for[0].resource == "agents/narrow"
