"""What people and callers give, against the schemas of the state that it would be accepted on."""

import json
from typing import Any

import pytest

from tests.core.histories import DAY, created, spec, tool
from tests.tools.test_groups import MemoryNotes
from treadle_server.core import signals as s
from treadle_server.core.accept import Ask
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import Decision, Effect
from treadle_server.core.spec import Spec, ToolSpec
from treadle_server.core.state import State
from treadle_server.core.values import Content, ProposedCall
from treadle_server.engine.checks import Checks
from treadle_server.tools.groups import ToolGroups
from treadle_server.tools.schemas import JsonSchemas

OBJECT = '{"type":"object","properties":{"n":{"type":"integer"}}}'
CHECK = Checks(JsonSchemas(), ToolGroups(MemoryNotes(), lambda: 0))


def schemed(name: str, **fields: Any) -> ToolSpec:
    return ToolSpec(name, "", f"{name} something", OBJECT, Effect.AT_MOST_ONCE, **fields)


SPEC: Spec = spec(
    tools=(
        tool("ask", asks=True),
        schemed("open_file", client=True, result_schema_json='{"type":"string"}'),
        schemed("list_files", client=True),
        schemed("delete_file", client=True, approvers_needed=1, result_schema_json='{"type":"string"}'),
        schemed("pay", approvers_needed=1, approval_lifetime_micros=DAY),
        tool("ask_boss", asks=True, approvers_needed=1),
    )
)


def state_of(name: str, **arguments: Any) -> State:
    """A thread with one open call, `call-1-1`."""
    history = created(SPEC).begin().reply("", calls=(ProposedCall(name, json.dumps(arguments)),))
    return history.state


def fault(state: State, ask: Ask) -> tuple[str, str] | None:
    """The field that is refused, and why."""
    try:
        CHECK(state, ask)
    except Refused as found:
        refused = found
    else:
        return None
    assert refused.reason is Reason.FIELD_INVALID
    (violation,) = refused.violations
    return violation.field, violation.description


def answer(content: Content, call_id: str = "call-1-1") -> s.SendInput:
    return s.SendInput(1, content, call_id)


def result(observation: str, ok: bool = True) -> s.SubmitToolResult:
    return s.SubmitToolResult(1, "call-1-1", observation, ok)


def decide(edited: str, decision: Decision = Decision.APPROVE) -> s.Decide:
    return s.Decide(1, "approval-call-1-1", decision, "users/bob", edited_arguments_json=edited)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (Content("7"), "asks for JSON data"),
        (Content(data_json='"7"'), "does not fit the question's answer_schema_json"),
        (Content("seven", "7.5"), "does not fit the question's answer_schema_json"),
        (Content(data_json="7"), None),
        (Content("seven", "7"), None),
    ],
)
def test_an_answer_fits_the_questions_schema(content: Content, says: str | None) -> None:
    found = fault(state_of("ask", question="How many?", answer_schema={"type": "integer"}), answer(content))

    assert (found is None) == (says is None)
    if found is not None:
        assert found[0] == "input.data_json"
        assert str(says) in found[1]


def test_a_question_without_a_schema_takes_any_answer_and_steering_has_none() -> None:
    plain = state_of("ask", question="How many?")
    strict = state_of("ask", question="How many?", answer_schema={"type": "integer"})

    assert fault(plain, answer(Content("many"))) is None
    assert fault(strict, answer(Content("be quick"), "")) is None


@pytest.mark.parametrize(
    ("tool_name", "ask", "field"),
    [
        ("open_file", result("7"), "result_json"),
        ("open_file", result('"text"'), None),
        ("open_file", result("no such file", ok=False), None),
        ("list_files", result("7"), None),
    ],
)
def test_a_result_fits_the_clients_tools_schema(tool_name: str, ask: Ask, field: str | None) -> None:
    found = fault(state_of(tool_name), ask)

    assert (found and found[0]) == field


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (decide('{"n":"many"}'), "arguments_json"),
        (decide("[1]"), "arguments_json"),
        (decide('{"n":7}'), None),
        (decide(""), None),
        (decide('{"n":"many"}', Decision.REJECT), None),
    ],
)
def test_edited_arguments_fit_the_tools_schema(ask: Ask, field: str | None) -> None:
    found = fault(state_of("pay", n=1), ask)

    assert (found and found[0]) == field


def test_an_edited_question_must_be_one_that_somebody_can_answer() -> None:
    edited = '{"answer_schema":{"type":"nothing of the kind"},"question":"How many?"}'

    found = fault(state_of("ask_boss", question="How many?"), decide(edited))

    assert found is not None
    assert "answer_schema" in found[1]


def answered() -> State:
    """Its question is settled, and another call still open."""
    call = ProposedCall("ask", '{"answer_schema":{"type":"integer"},"question":"How many?"}')
    history = created(SPEC).begin().reply("", calls=(call, ProposedCall("open_file", "{}")))
    history.ask(s.SendInput, content=Content(data_json="7"), tool_call_id="call-1-1")
    return history.state


@pytest.mark.parametrize(
    ("state", "ask"),
    [
        (answered(), answer(Content("late"))),
        (state_of("open_file"), answer(Content("x"))),
        (state_of("ask", question="?", answer_schema={"type": "integer"}), result("7")),
        (state_of("delete_file"), result("7")),
        (state_of("pay"), answer(Content("x"), "call-9-9")),
    ],
)
def test_what_the_state_does_not_allow_is_left_to_those_who_say_so(state: State, ask: Ask) -> None:
    assert fault(state, ask) is None
