"""The part of AIP-160 that lists understand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.thread_queries import Operator
from treadle_server.rpc.filter_fields import (
    EQUALITY,
    Choice,
    Entries,
    FilterField,
    Integer,
    Members,
    Time,
    Truth,
    parse_order_by,
)
from treadle_server.rpc.filters import Comparison, parse_filter

FIELDS = {
    "title": FilterField(),
    "state": Choice(EQUALITY, {"RUNNING": 2, "PAUSED": 5, "DONE": 6}),
    "disabled": Truth(),
    "size": Integer(),
    "cost.micros": Integer(),
    "create_time": Time(),
    "tags": Members(),
    "labels": Entries(),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   ", []),
        ('title = "a b"', [Comparison("title", Operator.EQUAL, "a b")]),
        ('title="say \\"hi\\""', [Comparison("title", Operator.EQUAL, 'say "hi"')]),
        ("title = plain", [Comparison("title", Operator.EQUAL, "plain")]),
        ("title != 'x'", [Comparison("title", Operator.NOT_EQUAL, "x")]),
        ("state = RUNNING", [Comparison("state", Operator.EQUAL, 2)]),
        ("disabled=true", [Comparison("disabled", Operator.EQUAL, True)]),
        (
            "size >= 10 AND size<20",
            [Comparison("size", Operator.GREATER_OR_EQUAL, 10), Comparison("size", Operator.LESS, 20)],
        ),
        ("cost.micros > -5", [Comparison("cost.micros", Operator.GREATER, -5)]),
        ('create_time > "1970-01-01T00:00:01Z"', [Comparison("create_time", Operator.GREATER, 1_000_000)]),
        (
            "create_time <= 1970-01-01T01:00:00.5+01:00",
            [Comparison("create_time", Operator.LESS_OR_EQUAL, 500_000)],
        ),
        ('tags:"nightly"', [Comparison("tags", Operator.HAS, "nightly")]),
        ("tags:nightly", [Comparison("tags", Operator.HAS, "nightly")]),
        ('labels.team = "a"', [Comparison("labels", Operator.EQUAL, "a", "team")]),
        ("labels.a.b = c", [Comparison("labels", Operator.EQUAL, "c", "a.b")]),
        ("labels.team:*", [Comparison("labels", Operator.HAS, None, "team")]),
        ("labels:team", [Comparison("labels", Operator.HAS, None, "team")]),
        ("(state = RUNNING OR state = PAUSED)", [Comparison("state", Operator.IN, (2, 5))]),
        (
            "state = RUNNING OR state = PAUSED OR state = DONE AND size = 1",
            [Comparison("state", Operator.IN, (2, 5, 6)), Comparison("size", Operator.EQUAL, 1)],
        ),
        (
            "((size = 1 AND (disabled = false)))",
            [Comparison("size", Operator.EQUAL, 1), Comparison("disabled", Operator.EQUAL, False)],
        ),
    ],
)
def test_a_filter_is_read_as_comparisons(text: str, expected: list[Comparison]) -> None:
    assert list(parse_filter(text, FIELDS)) == expected


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("nonsense = 1", 1, "nonsense"),
        ("title", 6, "expected one of"),
        ("title =", 8, "value"),
        ("title = 'x", 9, "read"),
        ("title = a b", 11, "AND"),
        ("title = a AND", 14, "field"),
        ("NOT title = a", 1, "field"),
        ("-title = a", 1, "field"),
        ("title > a", 7, "compared"),
        ("state = SLEEPING", 9, "RUNNING"),
        ("state = running", 9, "RUNNING"),
        ("size = 1.5", 8, "whole"),
        ("size = 99999999999999999999", 8, "whole"),
        ('disabled = "true"', 12, "true"),
        ("create_time > yesterday", 15, "time"),
        ("create_time > 2026-13-01T00:00:00Z", 15, "time"),
        ("create_time > 2026-01-01T00:00:00", 15, "time"),
        ("tags = x", 6, "compared"),
        ("labels = x", 8, "labels"),
        ("labels. = x", 1, "labels"),
        ("(size = 1", 10, ")"),
        ("size = 1)", 9, "AND"),
        ("state = RUNNING OR size = 1", 1, "one field"),
        ("size > 1 OR size > 2", 1, "= comparisons"),
        ("labels.a = x OR labels.b = x", 1, "one field"),
        ("(" * 100 + "size = 1" + ")" * 100, 33, "brackets"),
    ],
)
def test_a_faulty_filter_is_refused_with_the_place_of_the_fault(text: str, place: int, word: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_filter(text, FIELDS)

    (fault,) = caught.value.violations
    assert fault.field == "filter"
    assert fault.description.startswith(f"at character {place}: ")
    assert word in fault.description


def test_a_filter_has_a_limit_of_terms_and_of_alternatives() -> None:
    parse_filter(" AND ".join(["size = 1"] * 32), FIELDS)
    parse_filter(" OR ".join(["size = 1"] * 100), FIELDS)

    for text in (" AND ".join(["size = 1"] * 33), " OR ".join(["size = 1"] * 101)):
        with pytest.raises(Refused):
            parse_filter(text, FIELDS)


@given(text=st.text(alphabet=st.sampled_from("ab =!<>:()\"'\\.*ANDOR0-é\n"), max_size=60))
def test_no_text_fails_otherwise_than_by_refusing(text: str) -> None:
    fault = "filter"
    try:
        parse_filter(text, FIELDS)
    except Refused as refused:
        fault = refused.violations[0].field

    assert fault == "filter"


@given(value=st.text(max_size=40))
def test_any_text_can_be_quoted(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')

    assert parse_filter(f'title = "{quoted}"', FIELDS) == (Comparison("title", Operator.EQUAL, value),)


def test_an_order_is_one_field_with_an_optional_direction() -> None:
    fields = frozenset({"a", "b"})

    assert parse_order_by("", fields, "a") == ("a", True)
    assert parse_order_by("b", fields, "a") == ("b", False)
    assert parse_order_by(" b  desc ", fields, "a") == ("b", True)
    assert parse_order_by("b asc", fields, "a") == ("b", False)
    for faulty in ("c", "b down", ",", "b,", "b desc desc"):
        with pytest.raises(Refused) as caught:
            parse_order_by(faulty, fields, "a")
        assert caught.value.reason is Reason.FIELD_INVALID
    with pytest.raises(Refused) as caught:
        parse_order_by("a, b desc", fields, "a")
    assert caught.value.reason is Reason.NOT_SUPPORTED
