"""Threads, iterations and spliced events as they are served."""

import pytest
from google.protobuf import struct_pb2
from google.rpc import status_pb2

from tests.core.histories import (
    HOUR,
    REFERENCE,
    SECOND,
    SITUATIONS,
    History,
    created,
    payloads,
    tools_in_flight,
    waiting_approval,
)
from treadle.v1 import event_pb2, iteration_pb2, thread_pb2, thread_service_pb2
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.iterations import iterations
from treadle_server.core.kinds import ThreadState, TriggerType
from treadle_server.core.values import Content
from treadle_server.ports.engine import Waiting
from treadle_server.ports.feed import Item
from treadle_server.wire import threads
from treadle_server.wire.codec import ProtoCodec

CODEC = ProtoCodec()


def shown(history: History) -> thread_pb2.Thread:
    return thread_pb2.Thread.FromString(CODEC.summary(history.state))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_thread_shows_its_state_and_where_its_log_ends(situation: str) -> None:
    history = SITUATIONS[situation]()
    state, thread = history.state, shown(history)

    assert thread.state == state.status
    assert thread.last_sequence == state.sequence == len(history.events)
    assert thread.create_time.ToMicroseconds() == history.events[0].time_micros
    assert thread.HasField("end_time") is state.ended
    assert thread.HasField("start_time") is bool(payloads(history, e.IterationStarted))
    assert thread.stop_reason == state.stop_reason
    assert thread.success is (state.status is ThreadState.COMPLETED)
    assert thread.pending_command == (0 if state.pending is None else state.pending.command)


def test_a_thread_shows_what_it_was_created_with() -> None:
    history = History()
    history.ask(
        s.Create,
        spec=REFERENCE,
        input=Content("hello", '{"a":1}'),
        session="sessions/s1",
        parent_object="ticket/7",
        parent_thread="threads/t0",
        subject=e.Subject("customer", "c1"),
        trigger=e.Trigger(TriggerType.MANUAL, "users/ann"),
    )

    thread = shown(history)

    assert (thread.agent, thread.agent_version) == ("agents/a", "agents/a/versions/1")
    assert (thread.session, thread.parent_object, thread.parent_thread) == (
        "sessions/s1",
        "ticket/7",
        "threads/t0",
    )
    assert (thread.subject.type, thread.subject.id) == ("customer", "c1")
    assert (thread.trigger.type, thread.trigger.triggered_by) == (thread_pb2.Trigger.MANUAL, "users/ann")
    assert (thread.input.text, thread.input.data_json) == ("hello", '{"a":1}')


def test_a_thread_shows_the_first_input_and_not_what_steered_it() -> None:
    assert shown(created().steer()).input.text == "hello"


def test_a_thread_shows_its_progress() -> None:
    history = created().turn("", "send", "loook", "look").begin().tool("call-1-1").tool("call-1-3")
    history.turn("42")

    thread = shown(history)

    assert (thread.iteration_count, thread.actions_taken) == (2, 3)
    assert list(thread.tools_used) == ["send", "look"]
    assert (thread.usage.input_tokens, thread.usage.total_tokens) == (20, 30)
    assert (thread.cost.cost_micros, thread.cost.currency_code, thread.cost.known) == (200, "USD", True)
    assert thread.tree_cost == thread.cost
    assert thread.execution_duration.ToMicroseconds() == 6 * SECOND
    assert thread.output.text == "42"


def test_the_model_used_is_empty_before_the_first_call() -> None:
    assert shown(created()).model_used == ""
    assert shown(created().begin()).model_used == "scripted:tests"


def test_the_update_time_is_that_of_the_last_change_of_state() -> None:
    history = created().begin()
    changed = history.now

    history.steer()

    assert shown(history).update_time.ToMicroseconds() == changed


def test_time_spent_waiting_is_not_in_the_duration() -> None:
    history = waiting_approval()
    history.at(history.now + HOUR // 2).reject("call-1-1")

    assert shown(history).execution_duration.ToMicroseconds() == SECOND


def test_a_thread_shows_all_that_it_waits_for() -> None:
    waiting = [
        (thread_pb2.WaitingFor.Kind.Name(w.kind), w.resource) for w in shown(tools_in_flight()).waiting_for
    ]

    assert waiting == [
        ("APPROVAL", "approval-call-1-3"),
        ("INPUT", "call-1-4"),
        ("CLIENT_TOOL", "call-1-5"),
    ]


def test_an_approved_clients_call_waits_for_the_client() -> None:
    history = created().turn("", "delete_file")
    assert [w.kind for w in shown(history).waiting_for] == [thread_pb2.WaitingFor.APPROVAL]

    history.approve("call-1-1")

    assert [w.kind for w in shown(history).waiting_for] == [thread_pb2.WaitingFor.CLIENT_TOOL]


def test_a_thread_that_waits_for_nothing_says_so() -> None:
    assert not shown(created().begin()).waiting_for
    assert not shown(SITUATIONS["cancelled"]()).waiting_for


def test_why_a_thread_failed_is_its_error() -> None:
    thread = shown(SITUATIONS["failed"]())

    assert thread.error == status_pb2.Status(code=14, message="overloaded")
    assert not shown(SITUATIONS["completed"]()).HasField("error")


def test_a_thread_without_output_shows_none() -> None:
    assert not shown(created()).HasField("output")


def test_a_queued_thread_shows_what_holds_it_back() -> None:
    thread = shown(created())

    threads.fill_waiting(thread, Waiting("SESSION", "threads/t0", 5 * SECOND))

    (waiting,) = thread.waiting_for
    assert (waiting.kind, waiting.resource) == (thread_pb2.WaitingFor.SESSION, "threads/t0")
    assert waiting.since.ToMicroseconds() == 5 * SECOND


def test_an_iteration_is_served_with_its_actions() -> None:
    history = created().turn("let me look", "look", "pay", thought="where?").begin()
    history.tool("call-1-1", "a cat", duration_micros=1_500_000)
    (value,) = iterations(history.events)

    message = threads.iteration(value)

    assert (message.number, message.thought) == (1, "where?")
    assert message.start_time.ToMicroseconds() == value.start_time_micros
    assert not message.HasField("end_time")
    assert message.usage.total_tokens == 15
    assert (message.cost.cost_micros, message.cost.known) == (100, True)
    done, waiting = message.actions
    assert (done.tool_call_id, done.tool, done.arguments_json, done.observation) == (
        "call-1-1",
        "look",
        '{"n":1}',
        "a cat",
    )
    assert done.status == iteration_pb2.Action.SUCCEEDED
    assert (done.duration.seconds, done.duration.nanos) == (1, 500_000_000)
    assert (waiting.status, waiting.HasField("duration")) == (0, False)


def test_a_finished_iteration_has_its_end() -> None:
    history = created().turn("42")

    message = threads.iteration(iterations(history.events)[0])

    assert message.end_time.ToMicroseconds() == history.now


def items(history: History) -> list[Item]:
    return [Item(event.sequence, CODEC.encode(event).body) for event in history.events]


@pytest.mark.parametrize("name", ["threads/t1", "threads/" + "t" * 200])
def test_spliced_events_are_a_response_of_a_watch(name: str) -> None:
    history = tools_in_flight().due()
    prefix = threads.thread_prefix(name)

    data = threads.spliced_events(prefix, items(history), "cursor-1")

    response = thread_service_pb2.WatchThreadResponse.FromString(data)
    assert response.cursor == "cursor-1"
    assert {event.thread for event in response.events} == {name}
    assert [event.sequence for event in response.events] == [*range(1, len(history.events) + 1)]
    for event, item in zip(response.events, items(history), strict=True):
        bare = event_pb2.ThreadEvent()
        bare.CopyFrom(event)
        bare.thread, bare.sequence = "", 0
        assert bare == event_pb2.ThreadEvent.FromString(item.body)


def test_sequences_of_any_size_are_spliced() -> None:
    body = CODEC.encode(created().events[0]).body
    for sequence in (1, 127, 128, 2**31, 2**63 - 1):
        data = threads.spliced_event(threads.thread_prefix("threads/t1"), sequence, body)
        assert event_pb2.ThreadEvent.FromString(data).sequence == sequence


def test_an_ephemeral_event_has_no_sequence_and_a_batch_needs_no_cursor() -> None:
    data = threads.spliced_events(threads.thread_prefix("threads/t1"), [Item(0, CODEC.heartbeat(7))])

    (event,) = thread_service_pb2.WatchThreadResponse.FromString(data).events
    assert (event.thread, event.sequence, event.heartbeat.last_sequence) == ("threads/t1", 0, 7)


def test_nothing_is_spliced_to_an_empty_response() -> None:
    assert threads.spliced_events(threads.thread_prefix("threads/t1"), []) == b""


def test_a_page_of_events_is_spliced_like_a_batch() -> None:
    data = threads.spliced_events(threads.thread_prefix("threads/t1"), items(created()))

    response = thread_service_pb2.ListThreadEventsResponse.FromString(data)
    assert [event.sequence for event in response.events] == [1, 2]


def test_a_stored_struct_is_a_struct() -> None:
    value = struct_pb2.Struct()
    value.update({"a": 1})

    assert threads.struct(value.SerializeToString()) == value
