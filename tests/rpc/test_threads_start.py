"""CreateThread, ExecuteAgent and ExecuteAgentStream: threads begin, once."""

import asyncio
import json
from typing import Any

import grpc
import pytest

from tests.rpc.failures import Failure, failure_of
from tests.rpc.rig import Rig
from tests.rpc.runs import (
    ADD,
    DONE,
    HANG,
    Thread,
    collected,
    create,
    create_request,
    get,
    kinds,
    make_agent,
    pb,
    run,
    scripted,
    sequences,
    taken,
    thread_of,
    until_event,
    watch,
)
from treadle.v1 import agent_service_pb2

_agents: Any = agent_service_pb2
NAMES = ("CreateThread", "ExecuteAgent", "ExecuteAgentStream")
_REQUESTS: dict[str, Any] = {
    "CreateThread": pb.CreateThreadRequest,
    "ExecuteAgent": pb.ExecuteAgentRequest,
    "ExecuteAgentStream": pb.ExecuteAgentStreamRequest,
}
_ANSWERS: dict[str, Any] = {"ExecuteAgent": Thread, "ExecuteAgentStream": pb.WatchThreadResponse}


def begun(rig: Rig, method: str, **fields: Any) -> Any:
    """The call of one of the three methods."""
    return getattr(rig.threads, method)(_REQUESTS[method](**{"thread": thread_of(), **fields}))


def early(rig: Rig, method: str, *, timeout: float | None = None, **fields: Any) -> Any:
    """The same as a stream: this client shows metadata of a unary call only with its answer."""
    path = f"/treadle.v1.ThreadService/{method}"
    to_bytes, of_bytes = _REQUESTS[method].SerializeToString, _ANSWERS[method].FromString
    call: Any = rig.channel.unary_stream(path, to_bytes, of_bytes)
    return call(_REQUESTS[method](**{"thread": thread_of(), **fields}), timeout=timeout)


async def name_of(call: Any) -> str:
    """The thread as initial metadata names it."""
    metadata = {key: value async for key, value in _pairs(call)}
    return str(metadata["treadle-thread"])


async def _pairs(call: Any) -> Any:
    for pair in await call.initial_metadata():
        yield pair


async def finished(call: Any, method: str) -> None:
    """Returns once the call has ended well."""
    if method == "ExecuteAgentStream":
        await collected(call)
    else:
        await call


async def refusal(rig: Rig, method: str, **fields: Any) -> Failure:
    return await failure_of(finished(begun(rig, method, **fields), method))


async def test_a_created_thread_is_answered_at_once_with_what_was_asked_for(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)
    fields: dict[str, Any] = {
        "tags": ["a", "b", "a"],
        "labels": {"team": "x"},
        "client_metadata": {"case": "7", "deep": {"list": [1, True, None]}},
        "subject": {"type": "ticket", "id": "17"},
        "trigger": {"type": 1, "triggered_by": "ann"},
        "session_key": "room",
        "busy_policy": 1,
    }

    call = rig.threads.CreateThread(create_request(thread_id="t1", **fields))
    created = await call

    assert await name_of(call) == created.name == "threads/t1"
    assert (created.agent, created.agent_version) == ("agents/helper", "agents/helper/versions/1")
    assert created.state in (Thread.PENDING, Thread.RUNNING)
    assert created.input.text == "Go."
    assert list(created.tags) == ["a", "b"]
    assert dict(created.labels) == {"team": "x"}
    assert dict(created.client_metadata) == {"case": "7", "deep": {"list": [1, True, None]}}
    assert (created.subject.type, created.subject.id) == ("ticket", "17")
    assert (created.trigger.type, created.trigger.triggered_by) == (1, "ann")
    assert created.session.startswith("sessions/")
    assert (created.session_key, created.busy_policy) == ("room", Thread.ENQUEUE)
    assert (created.etag, created.last_sequence) == ("1", created.last_sequence)
    assert created.last_sequence >= 2
    assert not created.iterations
    assert not created.HasField("end_time")


async def test_who_says_nothing_of_the_trigger_is_it(rig: Rig) -> None:
    await make_agent(rig)

    made = await run(rig)

    assert (made.trigger.type, made.trigger.triggered_by) == (4, "local")
    page = await rig.threads.ListThreads(pb.ListThreadsRequest(filter='trigger.triggered_by = "local"'))
    assert [thread.name for thread in page.threads] == [made.name]


async def test_an_executed_thread_is_answered_in_full_once_it_has_ended(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, {"text": "It is {observation}."})

    call = begun(rig, "ExecuteAgent", thread_id="t1")
    answered = await call

    assert await name_of(call) == answered.name == "threads/t1"
    assert (answered.state, answered.stop_reason) == (Thread.COMPLETED, Thread.FINISHED)
    assert (answered.success, answered.output.text) == (True, "It is 42.")
    assert [(turn.number, len(turn.actions)) for turn in answered.iterations] == [(1, 1), (2, 0)]
    assert answered == await get(rig, "threads/t1", full=True)


async def test_a_thread_that_failed_is_an_answer(rig: Rig) -> None:
    await make_agent(rig, "helper", {"error": {"code": "INVALID_ARGUMENT", "message": "no such model"}})

    answered = await run(rig)

    assert (answered.state, answered.stop_reason) == (Thread.FAILED, Thread.MODEL_ERROR)
    assert "no such model" in answered.error.message


async def test_the_name_is_known_before_the_thread_has_ended(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG)

    for method in ("ExecuteAgent", "ExecuteAgentStream"):
        call = early(rig, method)
        async with asyncio.timeout(10):
            name = await name_of(call)
        assert (await get(rig, name)).state in (Thread.PENDING, Thread.RUNNING)
        assert not call.done()
        call.cancel()


async def test_a_stream_has_every_event_of_its_thread_from_the_first_to_the_last(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE)

    call = begun(rig, "ExecuteAgentStream", thread_id="t1")
    streamed = await collected(call)

    assert await name_of(call) == "threads/t1"
    assert {event.thread for event in streamed} == {"threads/t1"}
    assert sequences(streamed) == list(range(1, len(streamed) + 1))
    assert (kinds(streamed)[0], kinds(streamed)[-1]) == ("thread_created", "thread_ended")
    assert kinds(streamed).count("thread_ended") == 1
    listed = await rig.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent="threads/t1"))
    assert list(listed.events) == streamed


async def test_a_stream_gives_the_types_of_event_that_are_asked_for(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE)
    wanted = ["thread_ended", "tool_call_completed"]

    streamed = await collected(begun(rig, "ExecuteAgentStream", event_types=wanted))

    assert kinds(streamed) == ["tool_call_completed", "thread_ended"]
    unknown = await refusal(rig, "ExecuteAgentStream", event_types=["thread_ended", "no_such"])
    assert unknown.fields.keys() == {"event_types[1]"}


async def test_pieces_of_a_message_come_if_they_are_asked_for(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "abcdef" * 10, "pieces": 6, "delay_ms": 200})

    with_deltas = await collected(begun(rig, "ExecuteAgentStream", include_deltas=True))
    without = await collected(begun(rig, "ExecuteAgentStream"))
    filtered = await collected(
        begun(rig, "ExecuteAgentStream", include_deltas=True, event_types=["thread_ended"])
    )
    only = await collected(
        begun(rig, "ExecuteAgentStream", include_deltas=True, event_types=["message_delta"])
    )

    pieces = [event.message_delta.text for event in with_deltas if event.HasField("message_delta")]
    assert "".join(pieces) == "abcdef" * 10
    assert "message_delta" not in kinds(without)
    assert kinds(filtered) == ["thread_ended"]
    assert set(kinds(only)) == {"message_delta"}


@pytest.mark.parametrize("method", NAMES)
async def test_an_id_that_is_or_was_taken_is_refused(rig: Rig, method: str) -> None:
    await make_agent(rig)
    await run(rig, "t1")
    await run(rig, "gone")
    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name="threads/gone"))

    for thread_id in ("t1", "gone"):
        failure = await refusal(rig, method, thread_id=thread_id)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")
        assert failure.metadata == {"resource": f"threads/{thread_id}"}
        assert failure.details["ResourceInfo"].resource_name == f"threads/{thread_id}"


@pytest.mark.parametrize("method", NAMES)
async def test_an_absent_agent_is_not_found(rig: Rig, method: str) -> None:
    failure = await refusal(rig, method, thread=thread_of("nobody"))

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert failure.metadata == {"resource": "agents/nobody"}
    assert failure.details["ResourceInfo"].resource_type == "treadle.dev/Agent"


@pytest.mark.parametrize("method", NAMES)
async def test_a_disabled_or_deleted_agent_starts_nothing(rig: Rig, method: str) -> None:
    await make_agent(rig, "off", disabled=True)
    await make_agent(rig, "gone")
    await rig.agents.DeleteAgent(_agents.DeleteAgentRequest(name="agents/gone"))

    for agent in ("off", "gone"):
        failure = await refusal(rig, method, thread=thread_of(agent))
        assert (failure.code, failure.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "AGENT_DISABLED",
        )
        assert failure.metadata == {"agent": f"agents/{agent}"}
        violation = failure.details["PreconditionFailure"].violations[0]
        assert (violation.type, violation.subject) == ("AGENT_DISABLED", f"agents/{agent}")


async def test_a_thread_runs_the_version_that_it_names_or_else_the_newest(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "first"})
    second = {"name": "agents/helper", "model": scripted({"text": "second"})}
    await rig.agents.UpdateAgent(_agents.UpdateAgentRequest(agent=second))
    await make_agent(rig, "other")

    newest = await run(rig)
    pinned = await run(rig, agent_version="agents/helper/versions/1")

    assert (newest.agent_version, newest.output.text) == ("agents/helper/versions/2", "second")
    assert (pinned.agent_version, pinned.output.text) == ("agents/helper/versions/1", "first")
    absent = await failure_of(run(rig, agent_version="agents/helper/versions/3"))
    assert (absent.code, absent.metadata) == (
        grpc.StatusCode.NOT_FOUND,
        {"resource": "agents/helper/versions/3"},
    )
    foreign = await failure_of(run(rig, agent_version="agents/other/versions/1"))
    assert (foreign.reason, *foreign.fields) == ("FIELD_INVALID", "thread.agent_version")
    malformed = await failure_of(run(rig, agent_version="agents/helper/versions/0"))
    assert (malformed.reason, *malformed.fields) == ("FIELD_INVALID", "thread.agent_version")


async def test_a_session_is_made_by_its_key_and_found_by_key_and_name(rig: Rig) -> None:
    await make_agent(rig)

    first = await run(rig, session_key="room")
    by_key = await run(rig, session_key="room")
    by_name = await run(rig, session=first.session)
    by_both = await run(rig, session=first.session, session_key="room")
    other = await run(rig, session_key="hall")
    none = await run(rig)

    assert {thread.session for thread in (first, by_key, by_name, by_both)} == {first.session}
    assert {thread.session_key for thread in (first, by_key, by_name, by_both)} == {"room"}
    assert other.session not in ("", first.session)
    assert (none.session, none.session_key) == ("", "")


async def test_a_session_that_is_absent_or_does_not_fit_is_refused(rig: Rig) -> None:
    await make_agent(rig)
    await make_agent(rig, "other")
    made = await run(rig, session_key="room")

    absent = await failure_of(run(rig, session="sessions/none"))
    assert (absent.reason, absent.metadata) == ("RESOURCE_NOT_FOUND", {"resource": "sessions/none"})
    assert absent.details["ResourceInfo"].resource_type == "treadle.dev/Session"
    for fields in ({"session_key": "room"}, {"session": made.session}):
        failure = await failure_of(run(rig, agent="other", **fields))
        assert (failure.reason, *failure.fields) == ("FIELD_INVALID", "thread.agent")
    mismatch = await failure_of(run(rig, session=made.session, session_key="hall"))
    assert (mismatch.reason, *mismatch.fields) == ("FIELD_INVALID", "thread.session_key")
    alone = await failure_of(run(rig, busy_policy=1))
    assert (alone.reason, *alone.fields) == ("FIELD_INVALID", "thread.busy_policy")


async def test_an_input_must_fit_the_agents_schema(rig: Rig) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    await make_agent(rig, "helper", input_schema_json=json.dumps(schema))

    for faulty in ({"text": "n is 1"}, {"data_json": '{"n": "one"}'}, {"data": {"m": 1}}):
        failure = await failure_of(run(rig, input=faulty))
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert failure.fields.keys() == {"thread.input.data_json"}
    by_text = await run(rig, input={"data_json": '{ "n" : 1 }', "text": "one"})
    by_struct = await run(rig, input={"data": {"n": 1}})
    assert by_text.input.data_json == by_struct.input.data_json == '{"n":1}'
    assert by_text.input.text == "one"


@pytest.mark.parametrize("second", NAMES)
@pytest.mark.parametrize("first", NAMES)
async def test_a_repeated_start_attaches_however_it_is_asked_for(rig: Rig, first: str, second: str) -> None:
    await make_agent(rig, "helper", ADD, DONE)
    body = {"thread": thread_of(tags=["a"]), "request_id": "r1"}
    call = begun(rig, first, **body)
    await finished(call, first)

    again = begun(rig, second, **body)
    await finished(again, second)
    failure = await refusal(rig, second, thread=thread_of(tags=["b"]), request_id="r1")

    assert await name_of(again) == await name_of(call)
    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert failure.metadata == {"request_id": "r1"}
    assert len((await rig.threads.ListThreads(pb.ListThreadsRequest())).threads) == 1


async def test_what_only_changes_the_answer_does_not_change_the_call(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE)
    first = await collected(begun(rig, "ExecuteAgentStream", request_id="r1"))

    rest = await collected(
        begun(
            rig,
            "ExecuteAgentStream",
            request_id="r1",
            after_sequence=5,
            event_types=["thread_ended"],
            include_deltas=True,
            on_deadline=2,
        )
    )

    assert rest == first[-1:]


async def test_a_stream_that_attaches_goes_on_after_a_sequence_that_there_is(rig: Rig) -> None:
    await make_agent(rig)
    whole = await collected(begun(rig, "ExecuteAgentStream", request_id="r1"))
    last = len(whole)

    for after in (1, last - 1, last):
        rest = await collected(begun(rig, "ExecuteAgentStream", request_id="r1", after_sequence=after))
        assert rest == whole[after:]

    beyond = await refusal(rig, "ExecuteAgentStream", request_id="r1", after_sequence=last + 1)
    assert (beyond.code, beyond.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE")
    assert beyond.metadata == {"first": "1", "last": str(last)}
    fresh = await refusal(rig, "ExecuteAgentStream", request_id="r2", after_sequence=1)
    assert (fresh.reason, *fresh.fields) == ("FIELD_INVALID", "after_sequence")
    negative = await refusal(rig, "ExecuteAgentStream", after_sequence=-1)
    assert (negative.reason, *negative.fields) == ("FIELD_INVALID", "after_sequence")


async def test_many_that_start_the_same_at_once_share_one_thread(rig: Rig) -> None:
    await make_agent(rig, "helper", ADD, DONE)
    calls = [(begun(rig, method, request_id="r1"), method) for method in NAMES * 10]

    await asyncio.gather(*(finished(call, method) for call, method in calls))

    assert len({await name_of(call) for call, _ in calls}) == 1
    assert len((await rig.threads.ListThreads(pb.ListThreadsRequest())).threads) == 1


async def test_a_repeated_start_of_a_deleted_thread_finds_none(rig: Rig) -> None:
    await make_agent(rig)
    made = await rig.threads.CreateThread(create_request(request_id="r1"))
    await collected(watch(rig, made.name))
    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name=made.name))

    for method in NAMES:
        failure = await refusal(rig, method, request_id="r1")
        assert (failure.reason, failure.metadata) == ("RESOURCE_NOT_FOUND", {"resource": made.name})


async def test_a_refused_start_leaves_its_request_id_and_its_id_free(rig: Rig) -> None:
    body = {"request_id": "r1", "thread_id": "t1"}
    assert (await refusal(rig, "CreateThread", **body)).reason == "RESOURCE_NOT_FOUND"
    await make_agent(rig)

    assert (await begun(rig, "CreateThread", **body)).name == "threads/t1"


async def test_an_execution_attaches_to_a_thread_at_work_and_waits_for_it(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "slow", "delay_ms": 300})
    created = await begun(rig, "CreateThread", request_id="r1")
    assert created.state != Thread.COMPLETED

    answered = await begun(rig, "ExecuteAgent", request_id="r1")

    assert (answered.name, answered.state) == (created.name, Thread.COMPLETED)


@pytest.mark.parametrize("leave", ["cancel", "deadline"])
async def test_a_caller_who_leaves_while_the_model_hangs_leaves_the_thread_or_cancels_it(
    rig: Rig, leave: str
) -> None:
    await make_agent(rig, "helper", HANG)
    timeout = 0.5 if leave == "deadline" else None
    left: dict[str, str] = {}

    async def leaves(method: str, on_deadline: int) -> None:
        call = early(rig, method, timeout=timeout, on_deadline=on_deadline)
        name = left[f"{method} {on_deadline}"] = await name_of(call)
        await until_event(rig, name, "model_call_started")
        if leave == "cancel":
            call.cancel()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            async for _ in call:
                pass

    choices = [(method, choice) for method in NAMES[1:] for choice in (0, 1, 2)]
    await asyncio.gather(*(leaves(*choice) for choice in choices))

    for method, choice in choices:
        name = left[f"{method} {choice}"]
        if choice == pb.ExecuteAgentRequest.CANCEL:
            end = (await collected(watch(rig, name)))[-1].thread_ended
            assert (end.state, end.stop_reason) == (Thread.CANCELLED, Thread.CANCELLED_BY_CALLER)
        else:
            assert (await get(rig, name)).state == Thread.RUNNING


async def test_a_stream_that_its_reader_leaves_early_lets_the_thread_end(rig: Rig) -> None:
    await make_agent(rig, "helper", {"text": "slow", "delay_ms": 200})
    call = begun(rig, "ExecuteAgentStream", on_deadline=1)
    name = await name_of(call)

    await taken(call, lambda events: "model_call_started" in kinds(events))

    assert (await collected(watch(rig, name)))[-1].thread_ended.state == Thread.COMPLETED


async def test_a_name_that_is_given_with_the_thread_is_not_read(rig: Rig) -> None:
    await make_agent(rig)

    made = await create(rig, "t1", name="threads/other", etag="x", state=Thread.PAUSED)

    assert (made.name, made.etag) == ("threads/t1", "1")
    assert made.state != Thread.PAUSED
