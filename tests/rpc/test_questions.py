"""What agents ask of people and of their callers, and how it is answered."""

from pathlib import Path
from typing import Any

import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig
from tests.rpc.runs import Thread, collected, create, ended, get, make_agent, pb, run, until_event, watch
from tests.rpc.stages import CLIENT_CALL, OPEN_FILE, QUESTION, T1, staged
from treadle.v1 import event_pb2, iteration_pb2, thread_pb2
from treadle_server.core.kinds import ThreadState

INPUT = thread_pb2.WaitingFor.INPUT
CLIENT_TOOL = thread_pb2.WaitingFor.CLIENT_TOOL
Verdict = event_pb2.ToolCallRequested
FIRST_CALL = "call-1-1"
TOLD = {"text": "I was told {observation}"}


def asking(**arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": "ask_user", "arguments": {"question": "How many?", **arguments}}]}


def opening(**arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": "open_file", "arguments": arguments}]}


def schema(kind: str) -> dict[str, Any]:
    return {"type": kind}


async def send(rig: Rig, tool_call_id: str = FIRST_CALL, **content: Any) -> Any:
    request = pb.SendThreadInputRequest(name=T1, input=content, tool_call_id=tool_call_id)
    return await rig.threads.SendThreadInput(request)


async def submit(rig: Rig, tool_call_id: str = FIRST_CALL, **result: Any) -> Any:
    request = pb.SubmitToolResultRequest(name=T1, tool_call_id=tool_call_id, **result)
    return await rig.threads.SubmitToolResult(request)


def waits(thread: Any) -> list[tuple[int, str]]:
    return [(waiting.kind, waiting.resource) for waiting in thread.waiting_for]


# Questions


async def test_a_question_waits_for_its_answer_which_the_model_reads(rig: Rig) -> None:
    await make_agent(rig, "helper", asking(), TOLD)

    waiting = await run(rig, "t1")
    answered = await send(rig, text="seven")
    after = await ended(rig, T1)
    log = await collected(watch(rig, T1))

    assert (waiting.state, waits(waiting)) == (Thread.WAITING_INPUT, [(INPUT, FIRST_CALL)])
    (asked,) = [event for event in log if event.HasField("question_asked")]
    assert (asked.question_asked.question, asked.question_asked.answer_schema_json) == ("How many?", "")
    assert waiting.waiting_for[0].since == asked.event_time
    assert waits(answered) == []
    assert (after.state, after.output.text) == (Thread.COMPLETED, "I was told seven")
    (received,) = [e.input_received for e in log if e.input_received.tool_call_id]
    assert (received.tool_call_id, received.content.text) == (FIRST_CALL, "seven")


async def test_an_answer_must_fit_the_schema_that_the_question_gave(rig: Rig) -> None:
    await make_agent(rig, "helper", asking(answer_schema=schema("integer")), TOLD)
    await run(rig, "t1")
    before = await get(rig, T1)

    refusals = [
        await failure_of(send(rig, **content))
        for content in ({"text": "7"}, {"data_json": '"seven"'}, {"data_json": "7.5", "text": "7"})
    ]
    unchanged = await get(rig, T1)
    await send(rig, data_json=" 7 ")
    after = await ended(rig, T1)
    log = await collected(watch(rig, T1))

    assert [failure.reason for failure in refusals] == ["FIELD_INVALID"] * 3
    assert [list(failure.fields) for failure in refusals] == [["input.data_json"]] * 3
    assert "not of type" in refusals[1].fields["input.data_json"]
    assert unchanged == before
    assert after.output.text == "I was told 7"
    (asked,) = [event.question_asked for event in log if event.HasField("question_asked")]
    assert asked.answer_schema_json == '{"type":"integer"}'


async def test_an_answer_that_does_not_fit_uses_up_no_request_id(rig: Rig) -> None:
    await make_agent(rig, "helper", asking(answer_schema=schema("integer")), TOLD)
    await run(rig, "t1")

    for data_json, fits in (('"x"', False), ("1", True)):
        request = pb.SendThreadInputRequest(
            name=T1, input={"data_json": data_json}, tool_call_id=FIRST_CALL, request_id="r1"
        )
        call = rig.threads.SendThreadInput(request)
        if fits:
            await call
        else:
            assert (await failure_of(call)).reason == "FIELD_INVALID"

    assert (await ended(rig, T1)).output.text == "I was told 1"


async def test_a_question_that_nobody_could_answer_is_told_to_the_model(rig: Rig) -> None:
    await make_agent(rig, "helper", asking(answer_schema=schema("number of things")), TOLD)

    after = await run(rig, "t1")

    assert after.state == Thread.COMPLETED
    assert "answer_schema is not a valid JSON Schema" in after.output.text


async def test_several_open_calls_are_answered_in_any_order(tmp_path: Path) -> None:
    async with staged(tmp_path / "t.db", ThreadState.WAITING_INPUT) as stage:
        both = await stage.thread()
        one = await submit(stage.rig, CLIENT_CALL, result_json='{"b": 1, "a": [2]}')
        await send(stage.rig, QUESTION, text="blue")
        after = await stage.ended()

    assert waits(both) == [(INPUT, QUESTION), (CLIENT_TOOL, CLIENT_CALL)]
    assert (one.state, waits(one)) == (Thread.WAITING_INPUT, [(INPUT, QUESTION)])
    observations = [action.observation for action in after.iterations[0].actions]
    assert observations == ["held", "blue", '{"a":[2],"b":1}']
    assert list(after.tools_used) == ["hold", "open_file", "ask_user"]


async def test_open_calls_are_answered_while_others_still_run(tmp_path: Path) -> None:
    async with staged(tmp_path / "t.db", ThreadState.RUNNING) as stage:
        waiting = await stage.thread()
        answered = await send(stage.rig, QUESTION, text="blue")
        await submit(stage.rig, CLIENT_CALL, result_json="1")
        after = await stage.ended()
        log = await stage.log()

    assert waits(waiting) == [(INPUT, QUESTION), (CLIENT_TOOL, CLIENT_CALL)]
    assert (answered.state, waits(answered)) == (Thread.RUNNING, [(CLIENT_TOOL, CLIENT_CALL)])
    assert after.state == Thread.COMPLETED
    assert Thread.WAITING_INPUT not in [event.state_changed.to for event in log]


@pytest.mark.parametrize("tool_call_id", ["call-1-1", CLIENT_CALL, "call-9-9"])
async def test_only_a_question_is_answered(tmp_path: Path, tool_call_id: str) -> None:
    async with staged(tmp_path / "t.db", ThreadState.WAITING_INPUT) as stage:
        failure = await failure_of(send(stage.rig, tool_call_id, text="blue"))

    assert failure.reason == "THREAD_STATE_CONFLICT"
    assert failure.message == f"tool_call_id: {tool_call_id} is no open question; open are {QUESTION}"


# Client tools


async def test_a_clients_tool_is_run_by_the_client(rig: Rig) -> None:
    tool = {
        **OPEN_FILE,
        "parameters_schema_json": '{"type": "object", "properties": {"path": {"type": "string"}}}',
        "result_schema_json": '{"type": "object", "required": ["text"]}',
    }
    await make_agent(rig, "helper", opening(path="a.txt"), TOLD)

    waiting = await run(rig, "t1", client_tools=[tool])
    bad = [await failure_of(submit(rig, result_json=text)) for text in ("1", "{}", '"text"')]
    unchanged = await get(rig, T1, full=True)
    await submit(rig, result_json='{"text":"hello"}')
    after = await ended(rig, T1)
    log = await collected(watch(rig, T1))

    assert waits(waiting) == [(CLIENT_TOOL, FIRST_CALL)]
    (asked,) = [event.tool_call_requested for event in log if event.HasField("tool_call_requested")]
    assert (asked.verdict, asked.arguments_json) == (Verdict.CLIENT, '{"path":"a.txt"}')
    assert [list(failure.fields) for failure in bad] == [["result_json"]] * 3
    assert unchanged == waiting
    assert after.output.text == 'I was told {"text":"hello"}'
    (shown,) = after.client_tools
    assert (shown.name, shown.description) == ("open_file", OPEN_FILE["description"])
    assert shown.parameters_schema_json == '{"properties":{"path":{"type":"string"}},"type":"object"}'
    assert shown.result_schema_json == '{"required":["text"],"type":"object"}'


@pytest.mark.parametrize(
    ("error", "observation"),
    [
        ({"code": 5, "message": "no such file"}, "NOT_FOUND: no such file"),
        ({"code": 2, "message": "it broke"}, "it broke"),
        ({"code": 4}, "DEADLINE_EXCEEDED"),
    ],
)
async def test_a_client_says_what_went_wrong(rig: Rig, error: dict[str, Any], observation: str) -> None:
    tool = {**OPEN_FILE, "result_schema_json": '{"type": "object"}'}
    await make_agent(rig, "helper", opening(), TOLD)
    await run(rig, "t1", client_tools=[tool])

    await submit(rig, error=error)

    await ended(rig, T1)
    after = await get(rig, T1, full=True)
    (action,) = after.iterations[0].actions
    assert (action.status, action.observation) == (iteration_pb2.Action.FAILED, observation)
    assert after.output.text == f"I was told {observation}"


async def test_arguments_that_do_not_fit_never_reach_the_client(rig: Rig) -> None:
    await make_agent(rig, "helper", opening(path="a.txt"), TOLD)

    after = await run(rig, "t1", client_tools=[OPEN_FILE])

    assert after.state == Thread.COMPLETED
    assert after.iterations[0].actions[0].status == iteration_pb2.Action.INVALID
    assert "path" in after.output.text


@pytest.mark.parametrize(
    ("tools", "fields"),
    [
        ([{**OPEN_FILE, "name": "calculator"}], ["thread.client_tools[0].name"]),
        ([OPEN_FILE, OPEN_FILE], ["thread.client_tools[1].name"]),
        (
            [{**OPEN_FILE, "parameters_schema_json": '{"type": "array"}'}],
            ["thread.client_tools[0].parameters_schema_json"],
        ),
        (
            [{**OPEN_FILE, "parameters_schema_json": "true"}],
            ["thread.client_tools[0].parameters_schema_json"],
        ),
        (
            [{**OPEN_FILE, "parameters_schema_json": '{"type":1}', "result_schema_json": '{"type":"x"}'}],
            ["thread.client_tools[0].parameters_schema_json", "thread.client_tools[0].result_schema_json"],
        ),
    ],
)
async def test_a_clients_tool_that_could_not_be_called_is_refused(
    rig: Rig, tools: list[dict[str, Any]], fields: list[str]
) -> None:
    await make_agent(rig)

    failure = await failure_of(create(rig, "t1", client_tools=tools, session_key="room"))

    assert (failure.reason, list(failure.fields)) == ("FIELD_INVALID", fields)
    assert (await failure_of(get(rig, T1))).reason == "RESOURCE_NOT_FOUND"


async def test_clients_tools_are_those_of_one_thread(rig: Rig) -> None:
    await make_agent(rig, "helper", opening(), TOLD)
    await create(rig, "t1", client_tools=[OPEN_FILE])
    await until_event(rig, T1, "tool_call_requested")

    other = await run(rig, "t2")

    assert other.state == Thread.COMPLETED
    assert "there is no tool 'open_file'" in other.output.text
    created = [
        (await rig.threads.ListThreadEvents(pb.ListThreadEventsRequest(parent=name))).events[0].thread_created
        for name in (T1, "threads/t2")
    ]
    assert created[0].spec.agent_version == created[1].spec.agent_version
    assert created[0].spec.digest != created[1].spec.digest


async def test_who_submitted_a_result_is_kept(rig: Rig) -> None:
    """Beside the event, as the sender of an input is: the server's own record, shown to nobody."""
    await make_agent(rig, "helper", opening(), TOLD)
    await run(rig, "t1", client_tools=[OPEN_FILE])
    await submit(rig, result_json="1")
    await ended(rig, T1)

    store = rig.server.store
    row = await store.threads.get(1, "t1")
    assert row is not None
    records = await store.log.read(row.key, 0, 100)
    privates = [stored.record.private for stored in records if stored.record.private]
    assert sum(b"local" in private for private in privates) == 3  # the caller began it and gave two things
