"""Namespaces of memories, and how what a thread has stands in them."""

import pytest

from treadle_server.core.kinds import MemoryAccess
from treadle_server.core.memory import (
    NAMESPACE_CHARACTERS_MAX,
    PLACEHOLDERS,
    MemoryPlace,
    MemoryRule,
    places,
    template_problem,
)

FACTS = {"agent": "helper", "session": "", "subject.type": "customer", "subject.id": "7"}


def namespaces(template: str, **facts: str) -> list[str]:
    given = {name.replace("__", "."): value for name, value in facts.items()}
    return [place.namespace for place in places([MemoryRule(template)], FACTS | given)]


@pytest.mark.parametrize(
    ("template", "namespace"),
    [
        ("team", "team"),
        ("user:{subject.id}", "user:7"),
        ("{agent}:{subject.type}:{subject.id}", "helper:customer:7"),
        ("{subject.id}{subject.id}", "77"),
    ],
)
def test_a_placeholder_stands_for_what_the_thread_has(template: str, namespace: str) -> None:
    assert template_problem(template) is None
    assert namespaces(template) == [namespace]


@pytest.mark.parametrize(
    ("value", "encoded"),
    [("a:b", "a%3Ab"), ("a/b", "a%2Fb"), ("100%", "100%25"), ("ü", "%C3%BC"), ("a.b_c~d-e", "a.b_c~d-e")],
)
def test_a_value_is_encoded_so_that_it_stays_in_its_place(value: str, encoded: str) -> None:
    assert namespaces("user:{subject.id}", subject__id=value) == [f"user:{encoded}"]


def test_different_values_never_give_one_namespace() -> None:
    pairs = [("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c"), ("a", "b%3Ac"), ("-", "x"), ("%2D", "x")]

    found = [
        name
        for kind, identity in pairs
        for name in namespaces("{subject.type}:{subject.id}", subject__type=kind, subject__id=identity)
    ]

    assert len(set(found)) == len(pairs)


def test_no_namespace_is_the_one_that_stands_for_all() -> None:
    assert namespaces("{subject.id}", subject__id="-") == ["%2D"]


@pytest.mark.parametrize(
    "template", ["{session}", "a:{session}", "{principal}", "{subject.id}:{parent_object}"]
)
def test_a_thread_without_what_a_namespace_is_named_by_has_none(template: str) -> None:
    assert namespaces(template) == []


def test_a_namespace_that_were_too_long_is_none() -> None:
    longest = "x" * (NAMESPACE_CHARACTERS_MAX - 2)

    assert namespaces("u:{subject.id}", subject__id=longest) == [f"u:{longest}"]
    assert namespaces("u:{subject.id}", subject__id=f"{longest}x") == []
    assert namespaces("u:{subject.id}", subject__id="ü" * 60) == []


def test_each_rule_gives_its_place_by_its_alias() -> None:
    rules = [MemoryRule("team", "team", access=MemoryAccess.READ), MemoryRule("{session}", "room")]

    assert places(rules, FACTS) == (MemoryPlace("team", "team"),)
    assert places(rules, FACTS | {"session": "s1"}) == (
        MemoryPlace("team", "team"),
        MemoryPlace("room", "s1"),
    )
    assert [rule.writable for rule in rules] == [False, True]


@pytest.mark.parametrize(
    "template",
    ["", "a b", "a/b", "ü", "a%20", "-", "-{agent}", "{", "}", "{}", "{{agent}}", "{agent", "{name}"],
)
def test_a_faulty_namespace_is_told(template: str) -> None:
    if template:
        assert template_problem(template)
    else:
        assert namespaces(template) == []


def test_a_faulty_placeholder_is_told_with_those_there_are() -> None:
    problem = template_problem("user:{user}")

    assert problem is not None
    assert "{user}" in problem
    assert all(f"{{{name}}}" in problem for name in PLACEHOLDERS)
