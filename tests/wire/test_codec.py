"""Events, specs and summaries as bytes."""

import typing
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.histories import History, created, model_in_flight
from tests.core.walks import Choice, choices, starts, walked
from tests.wire.values import values
from treadle.v1 import event_pb2, thread_pb2
from treadle_server.core import events as e
from treadle_server.core.accept import accept
from treadle_server.core.decide import decide, wake_at
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.evolve import fold
from treadle_server.core.kinds import DeltaKind, StopReason, ThreadState
from treadle_server.core.signals import Cancel
from treadle_server.core.spec import Spec
from treadle_server.core.state import State
from treadle_server.core.values import Content, ProviderContent
from treadle_server.ports.log import Record, StoredRecord
from treadle_server.record.v1 import record_pb2
from treadle_server.wire.codec import ProtoCodec, kind_name, snake

CODEC = ProtoCodec()
PAYLOADS = [cls for cls in typing.get_args(e.Payload) if cls is not e.Unknown]
TIMES = st.integers(0, 253_402_300_799 * 1_000_000)


def decoded(event: e.Event) -> e.Event:
    return CODEC.decode(StoredRecord(event.sequence, CODEC.encode(event)))


def message(record: Record) -> event_pb2.ThreadEvent:
    return event_pb2.ThreadEvent.FromString(record.body)


@pytest.mark.parametrize("full", [False, True], ids=["any", "all fields set"])
@pytest.mark.parametrize("cls", PAYLOADS, ids=lambda cls: cls.__name__)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_an_event_comes_back_as_it_went(cls: type[Any], full: bool, data: st.DataObject) -> None:
    payload = data.draw(values(cls, full=full))
    event = e.Event(
        data.draw(st.integers(1, 2**63 - 1)), data.draw(TIMES), data.draw(st.integers(0, 99)), payload
    )

    assert decoded(event) == event


@settings(max_examples=60, deadline=None)
@given(starts, choices)
def test_every_event_that_is_ever_made_comes_back_as_it_went(
    start: Callable[[], History], path: list[Choice]
) -> None:
    for event in walked(start(), path).events:
        assert decoded(event) == event


@pytest.mark.parametrize("cls", PAYLOADS, ids=lambda cls: cls.__name__)
@settings(max_examples=5, deadline=None)
@given(st.data())
def test_the_same_event_is_the_same_bytes_and_of_the_kind_of_its_arm(
    cls: type[Any], data: st.DataObject
) -> None:
    event = e.Event(1, 1, 1, data.draw(values(cls, full=True)))

    record = CODEC.encode(event)

    assert record == ProtoCodec().encode(event)
    assert message(record).WhichOneof("payload") == kind_name(record.kind) == snake(cls.__name__)
    assert CODEC.kind(snake(cls.__name__)) == record.kind


def test_a_stored_body_names_neither_thread_nor_sequence() -> None:
    for event in model_in_flight().reply("42").events:
        body = message(CODEC.encode(event))
        assert (body.thread, body.sequence) == ("", 0)
        assert body.event_time.ToMicroseconds() == event.time_micros
        assert body.iteration == event.iteration


def test_what_is_private_is_not_in_the_body() -> None:
    secret = ProviderContent("google", "gemini", '{"secret":"signature"}')
    history = model_in_flight().reply("", "look", provider_content=secret)

    for event in history.events:
        record = CODEC.encode(event)
        assert b"signature" not in record.body
        assert b"users/ann" not in record.body
    principals = [
        record_pb2.PrivateRecord.FromString(CODEC.encode(event).private or b"").principal
        for event in history.events[:2]
    ]
    assert principals == ["users/ann", "users/ann"]


def test_an_event_with_nothing_private_has_no_private_record() -> None:
    history = model_in_flight().reply("42")

    kinds = {type(event.payload) for event in history.events if CODEC.encode(event).private is not None}
    assert kinds == {e.ThreadCreated, e.InputReceived}


@pytest.mark.parametrize(
    ("payload", "optional"),
    [
        (e.ThreadEnded(ThreadState.FAILED, StopReason.INTERNAL), "output"),
        (e.ThreadEnded(ThreadState.FAILED, StopReason.INTERNAL), "error"),
        (e.ThreadCreated(e.SpecReference("", "", "")), "subject"),
    ],
)
def test_what_is_absent_stays_absent(payload: e.Payload, optional: str) -> None:
    record = CODEC.encode(e.Event(1, 1, 0, payload))

    part = getattr(message(record), kind_name(record.kind))
    assert not part.HasField(optional)


def test_an_empty_content_is_not_an_absent_one() -> None:
    ended = e.ThreadEnded(ThreadState.COMPLETED, StopReason.FINISHED, Content())

    assert decoded(e.Event(1, 1, 0, ended)).payload == ended


def unreadable(record: Record) -> State:
    """The state of a thread whose third event is this record."""
    return fold(created().state, [CODEC.decode(StoredRecord(3, record))])


def newer_arm() -> Record:
    """An arm that this release does not have."""
    return Record(99, event_pb2.ThreadEvent(iteration=1).SerializeToString() + b"\x9a\x06\x00")


def served_arm() -> Record:
    """An arm that this release serves and its core does not know."""
    return Record(41, event_pb2.ThreadEvent(heartbeat=event_pb2.Heartbeat()).SerializeToString())


def newer_number() -> Record:
    """An enum value that this release does not have."""
    body = event_pb2.ThreadEvent(state_changed=event_pb2.StateChanged(to=77))  # type: ignore[arg-type]
    return Record(12, body.SerializeToString())


def newer_number_inside() -> Record:
    """The same in a message within the arm."""
    body = event_pb2.ThreadEvent()
    body.thread_created.trigger.type = 77  # type: ignore[assignment]
    return Record(10, body.SerializeToString())


def another_arm() -> Record:
    """A record whose kind and body disagree."""
    body = event_pb2.ThreadEvent(state_changed=event_pb2.StateChanged())
    return Record(13, body.SerializeToString())


def broken_private() -> Record:
    """A private part that is no message."""
    body = event_pb2.ThreadEvent(input_received=event_pb2.InputReceived())
    return Record(14, body.SerializeToString(), b"\xff")


@pytest.mark.parametrize(
    "make",
    [newer_arm, served_arm, newer_number, newer_number_inside, another_arm, broken_private],
    ids=lambda make: make.__name__,
)
def test_what_cannot_be_understood_is_unknown_and_stops_the_thread_but_not_its_log(
    make: Callable[[], Record],
) -> None:
    record = make()

    event = CODEC.decode(StoredRecord(3, record))
    state = unreadable(record)

    assert event.payload == e.Unknown(record.kind)
    assert (state.unreadable, state.sequence) == (True, 3)
    assert decide(state) == frozenset()
    assert wake_at(state) is None
    refused = accept(state, Cancel(1))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.RECORD_CORRUPT


def test_a_field_of_a_newer_release_is_passed_over() -> None:
    event = e.Event(3, 1, 0, e.Redacted("input_received"))
    record = CODEC.encode(event)

    newer = Record(record.kind, record.body + b"\xa2\x06\x02hi")

    assert CODEC.decode(StoredRecord(3, newer)) == event


def test_kinds_are_known_by_the_names_of_the_api() -> None:
    assert CODEC.kind("tool_call_completed") == 27
    assert CODEC.kind("heartbeat") == 41
    assert CODEC.kind("iteration") is None
    assert CODEC.kind("nothing") is None
    assert kind_name(27) == "tool_call_completed"
    assert kind_name(999) == "event_999"


@pytest.mark.parametrize("full", [False, True], ids=["any", "all fields set"])
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_spec_comes_back_as_it_went(full: bool, data: st.DataObject) -> None:
    spec = data.draw(values(Spec, full=full))

    assert CODEC.decode_spec(CODEC.encode_spec(spec)) == spec
    assert CODEC.encode_spec(CODEC.decode_spec(CODEC.encode_spec(spec))) == CODEC.encode_spec(spec)


def test_a_limit_of_zero_is_not_the_default() -> None:
    spec = created().state.spec
    zero = Spec(spec.agent_version, spec.model, limits=type(spec.limits)(max_iterations=0))

    assert CODEC.decode_spec(CODEC.encode_spec(zero)).limits.max_iterations == 0


def test_a_decoded_spec_finds_its_tools_by_name() -> None:
    spec = created().state.spec

    assert CODEC.decode_spec(CODEC.encode_spec(spec)).tool_by_name == spec.tool_by_name


def test_a_delta_and_a_heartbeat_are_events_of_their_kind() -> None:
    delta = event_pb2.ThreadEvent.FromString(CODEC.delta("model-1", 2, DeltaKind.THOUGHT, 7, "hm"))
    heartbeat = event_pb2.ThreadEvent.FromString(CODEC.heartbeat(41))
    silent = event_pb2.ThreadEvent.FromString(CODEC.heartbeat(0))

    assert delta.message_delta == event_pb2.MessageDelta(
        call_id="model-1", attempt=2, kind=event_pb2.MessageDelta.THOUGHT, offset=7, text="hm"
    )
    assert heartbeat.heartbeat.last_sequence == 41
    assert silent.WhichOneof("payload") == "heartbeat"


def test_a_summary_is_the_thread_as_its_log_tells_it() -> None:
    state = model_in_flight().reply("42").state

    thread = thread_pb2.Thread.FromString(CODEC.summary(state))

    assert (thread.state, thread.output.text) == (thread_pb2.Thread.COMPLETED, "42")
