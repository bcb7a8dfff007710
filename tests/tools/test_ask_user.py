"""`ask_user`: what may be asked, and that nobody but a person answers."""

import json
from typing import Any

import pytest

from tests.tools.test_groups import MemoryNotes
from treadle_server.core.questions import question_of
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.tools import ToolCall, ToolError
from treadle_server.tools.builtin.ask_user import ASK_USER, QUESTION_CHARACTERS_MAX
from treadle_server.tools.groups import ToolGroups

TOOLS = ToolGroups(MemoryNotes(), lambda: 0)


def problem(**arguments: Any) -> str | None:
    return TOOLS.problem(ASK_USER, json.dumps(arguments))


def test_it_is_the_one_builtin_that_asks() -> None:
    asking = [spec for spec in TOOLS.builtins() if spec.asks]

    assert asking == [ASK_USER]


@pytest.mark.parametrize(
    "arguments",
    [
        {"question": "Which colour?"},
        {"question": "q" * QUESTION_CHARACTERS_MAX},
        {"question": "How many?", "answer_schema": {"type": "integer", "minimum": 1}},
        {"question": "Anything?", "answer_schema": {}},
    ],
)
def test_a_question_may_say_what_its_answer_must_be(arguments: dict[str, Any]) -> None:
    assert problem(**arguments) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "question"),
        ({"question": ""}, "question"),
        ({"question": "q" * (QUESTION_CHARACTERS_MAX + 1)}, "question"),
        ({"question": "How many?", "answer_schema": "an integer"}, "answer_schema"),
        ({"question": "How many?", "answer_schema": {"type": "number of things"}}, "not a valid JSON Schema"),
        ({"question": "How many?", "schema": {}}, "schema"),
    ],
)
def test_the_model_learns_why_a_question_cannot_be_put(arguments: dict[str, Any], says: str) -> None:
    found = problem(**arguments)

    assert found is not None
    assert says in found


@pytest.mark.parametrize(
    ("arguments_json", "question", "schema"),
    [
        ('{"question":"Which?"}', "Which?", ""),
        ('{"answer_schema":{},"question":"Which?"}', "Which?", ""),
        (
            '{"answer_schema":{"type":"integer","minimum":1},"question":"Which?"}',
            "Which?",
            '{"minimum":1,"type":"integer"}',
        ),
        ('{"n":1}', '{"n":1}', ""),
        ('{"question":7}', '{"question":7}', ""),
        ("[1]", "[1]", ""),
        ("no JSON", "no JSON", ""),
    ],
)
def test_a_question_and_its_schema_are_taken_from_the_arguments(
    arguments_json: str, question: str, schema: str
) -> None:
    assert question_of(arguments_json) == (question, schema)


async def test_no_server_answers_a_question() -> None:
    call = ToolCall(1, 1, 0, "call-1-1", 1, "key", '{"question":"Which?"}')

    with pytest.raises(ToolError) as failed:
        await TOOLS.call(ASK_USER, call)

    assert not failed.value.retryable


def test_a_tool_of_another_kind_may_have_an_argument_of_that_name() -> None:
    other = ToolSpec("look", "builtin/look", "Looks.", '{"type":"object"}')

    assert TOOLS.problem(other, '{"question":"Which?","answer_schema":{"type":"nothing"}}') is None
