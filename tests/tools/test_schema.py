"""Definitions from signatures, checks of arguments, and the size of observations."""

import inspect
import json
from typing import Annotated, Any, Literal

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle_server.core.kinds import Effect
from treadle_server.core.text import bounded
from treadle_server.tools.arguments import arguments_problem
from treadle_server.tools.schema import parameters_schema, tool_spec


def sample(
    given_by_the_runtime: object,
    /,
    name: Annotated[str, "Who", {"maxLength": 3}],
    count: Annotated[int, "How many"] = 2,
    share: float = 0.5,
    loud: bool = False,
    tags: Annotated[list[Annotated[str, "One tag"]], "All tags"] = [],  # noqa: B006
    unit: Literal["mm", "cm"] = "mm",
) -> str:
    """Measures
    a thing."""
    return f"{name} {count} {share} {loud} {tags} {unit}"


SCHEMA_JSON = json.dumps(parameters_schema(sample))


def test_a_signature_becomes_a_schema() -> None:
    schema = parameters_schema(sample)

    assert schema == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Who", "maxLength": 3},
            "count": {"type": "integer", "description": "How many", "default": 2},
            "share": {"type": "number", "default": 0.5},
            "loud": {"type": "boolean", "default": False},
            "tags": {
                "type": "array",
                "items": {"type": "string", "description": "One tag"},
                "description": "All tags",
                "default": [],
            },
            "unit": {"enum": ["mm", "cm"], "default": "mm"},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    jsonschema_rs.meta.validate(schema)


def test_a_tool_takes_its_name_and_description_from_the_function() -> None:
    spec = tool_spec(sample, tool="builtin/sample", effect=Effect.READ_ONLY)

    assert (spec.name, spec.tool, spec.description) == ("sample", "builtin/sample", "Measures a thing.")
    assert json.loads(spec.parameters_schema_json) == parameters_schema(sample)


def test_a_parameter_of_another_type_is_a_bug_found_at_once() -> None:
    def strange(value: bytes) -> str:
        return str(value)

    with pytest.raises(TypeError, match="bytes"):
        parameters_schema(strange)


ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=4) | st.none(),
        "count": st.integers() | st.booleans() | st.text(max_size=2),
        "share": st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=2),
        "loud": st.booleans() | st.integers(0, 1),
        "tags": st.lists(st.text(max_size=2) | st.integers(), max_size=3),
        "unit": st.sampled_from(["mm", "cm", "km"]),
        "given_by_the_runtime": st.none(),
        "more": st.none(),
    },
)
TYPES = {"name": str, "count": int, "share": float, "loud": bool, "tags": list, "unit": str}


@given(ARGUMENTS)
def test_what_the_schema_lets_through_the_function_can_take(arguments: dict[str, Any]) -> None:
    if arguments_problem(SCHEMA_JSON, json.dumps(arguments)) is not None:
        return

    bound = inspect.signature(sample).bind(None, **arguments)

    for name, value in arguments.items():
        whole = TYPES[name] in (int, float) and type(value) in (int, float)
        assert whole or type(value) is TYPES[name]
    assert sample(*bound.args, **bound.kwargs)


@given(st.text(max_size=3), st.integers(), st.lists(st.text(max_size=3), max_size=3))
def test_what_the_function_is_meant_for_the_schema_lets_through(
    name: str, count: int, tags: list[str]
) -> None:
    arguments = {"name": name, "count": count, "tags": tags, "loud": True, "unit": "cm", "share": 1}

    assert arguments_problem(SCHEMA_JSON, json.dumps(arguments)) is None


@pytest.mark.parametrize(
    ("arguments_json", "reason"),
    [
        ("", "not valid JSON"),
        ("{oops", "not valid JSON"),
        ('{"name":NaN}', "not valid JSON"),
        ('{"share":1e999}', "not valid JSON"),
        ('{"name":"\\ud800"}', "not valid JSON"),
        ('{"name":"\ud800"}', "not valid JSON"),
        ("[" * 5000 + "]" * 5000, "not valid JSON"),
        ("[]", "must be one JSON object"),
        ('"name"', "must be one JSON object"),
        ("null", "must be one JSON object"),
        ('{"a":' * 64 + "[]" + "}" * 64, "more than 64 levels"),
        ("{}", '"name" is a required property'),
        ('{"name":"a","size":1}', "'size' was unexpected"),
        ('{"name":"abcd"}', "name: this value is longer than 3 characters"),
        ('{"name":"a","count":1.5}', 'count: this value is not of type "integer"'),
        ('{"name":"a","tags":["a",1]}', 'tags.1: this value is not of type "string"'),
        ('{"name":"a","unit":"km"}', 'unit: this value is not one of "mm" or "cm"'),
        ('{"name":1,"count":"","loud":0,"unit":1}', "and more"),
    ],
)
def test_arguments_that_do_not_fit_are_told_in_words(arguments_json: str, reason: str) -> None:
    problem = arguments_problem(SCHEMA_JSON, arguments_json)

    assert problem is not None
    assert reason in problem
    problem.encode()


def test_arguments_may_be_nested_up_to_the_limit() -> None:
    assert arguments_problem("true", '{"a":' * 64 + "1" + "}" * 64) is None
    assert arguments_problem("true", '{"a":' * 65 + "1" + "}" * 65) is not None


def test_a_long_value_is_not_repeated_in_the_problem() -> None:
    problem = arguments_problem(SCHEMA_JSON, json.dumps({"name": "x" * 100_000, "y" * 100_000: 1}))

    assert problem is not None
    assert len(problem) < 2000


@pytest.mark.parametrize(
    "schema_json",
    ["{", '{"type":"nothing"}', '{"$ref":"http://127.0.0.1:9/x"}', '{"$ref":"#/nowhere"}', '{"pattern":"("}'],
)
def test_a_schema_that_cannot_be_used_is_a_problem_and_fetches_nothing(schema_json: str) -> None:
    assert "its schema is not valid" in (arguments_problem(schema_json, "{}") or "")


def test_a_pattern_takes_linear_time() -> None:
    schema_json = json.dumps({"properties": {"a": {"pattern": "^(a+)+$"}}})

    assert arguments_problem(schema_json, json.dumps({"a": "a" * 50_000 + "!"})) is not None


@given(st.text(st.characters(), max_size=300), st.integers(0, 400))
def test_an_observation_is_bounded_valid_text(text: str, bytes_max: int) -> None:
    shown, _ = bounded(text, bytes_max)

    assert len(shown.encode()) <= bytes_max
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if len(whole.encode()) <= bytes_max:
        assert shown == whole
    elif bytes_max > 100:
        assert "[truncated: it has " in shown


def test_a_cut_falls_between_characters() -> None:
    shown, _ = bounded("€" * 100, 101)

    assert shown.startswith("€€€")
    assert shown.endswith("\n[truncated: it has 300 bytes, at most 101 are shown]")
    assert "\N{REPLACEMENT CHARACTER}" not in shown


def test_a_surrogate_pair_becomes_its_character_and_a_lone_one_is_replaced() -> None:
    assert bounded("\ud83d\ude00 \ud800", 100)[0] == "\N{GRINNING FACE} \N{REPLACEMENT CHARACTER}"
