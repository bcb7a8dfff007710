"""docs/guarantees.md names for each promise the tests that hold it; here, that they are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
_COMMAND = re.compile(r"`make (\w+)`")
_PROMISE = re.compile(r"^### (\d+)\. (.+)$", re.MULTILINE)


def promises() -> dict[str, str]:
    """The text of each promise by its heading."""
    parts = _PROMISE.split(PAGE.split("\n## ")[1])
    return dict(
        zip((f"{n}. {t}" for n, t in zip(parts[1::3], parts[2::3], strict=True)), parts[3::3], strict=True)
    )


@pytest.mark.parametrize(("file", "name"), sorted(set(_TEST.findall(PAGE))))
def test_a_test_that_the_page_names_is_there(file: str, name: str) -> None:
    source = ROOT / file

    assert source.is_file()
    if name:
        assert re.search(rf"^(async )?def {name}\(", source.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("promise", promises())
def test_a_promise_is_held_by_a_test(promise: str) -> None:
    assert _TEST.search(promises()[promise]), f"{promise}: no test is named"


def test_promises_are_numbered_without_holes() -> None:
    assert [int(number) for number, _ in _PROMISE.findall(PAGE)] == list(range(1, len(promises()) + 1))


@pytest.mark.parametrize("target", sorted(set(_COMMAND.findall(PAGE))))
def test_a_command_that_the_page_names_is_there(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")

    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_nothing_is_left_to_be_filled_in() -> None:
    assert not re.search(r"@[A-Z]+@", PAGE)
