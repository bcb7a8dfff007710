"""JSON as text: one text for one value, and nothing that two readers could read differently."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle_server.core.json_text import JsonTextError, canonical, canonical_json
from treadle_server.core.text import bounded, clean

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (' {"b" : 1, "a" : [true, null]} ', '{"a":[true,null],"b":1}'),
        ('"\\u00fc"', '"ü"'),
        ("9007199254740993", "9007199254740993"),
        ("1.50", "1.5"),
        ('"[{[{"', '"[{[{"'),
        ("[" * 64 + "]" * 64, "[" * 64 + "]" * 64),
        ("[" + ",".join(["[]"] * 100) + "]", "[" + ",".join(["[]"] * 100) + "]"),
        ('["' + "[" * 100 + '"]', '["' + "[" * 100 + '"]'),
        ('["\\"' + "[" * 100 + '"]', '["\\"' + "[" * 100 + '"]'),
        ("[" * 63 + "[],[]" + "]" * 63, "[" * 63 + "[],[]" + "]" * 63),
    ],
)
def test_a_value_has_one_text(text: str, wanted: str) -> None:
    assert canonical(text) == wanted


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be JSON"),
        ("{", "must be JSON"),
        ("[1,]", "must be JSON"),
        ('"x', "must be JSON: Unterminated string starting at character 0"),
        ("[NaN]", "must not have NaN"),
        ("-Infinity", "must not have -Infinity"),
        ("1e999", "must have only numbers of a usual size"),
        ("1" * 5000, "must have only numbers of a usual size"),
        (r'"\ud83d"', "must not have lone surrogates"),
        ('"\ud83d"', "must not have lone surrogates"),
        (r'{"a":{"b":1,"b":2}}', "must not have a key twice in one object"),
        (r'{"b":1,"\u0062":2}', "must not have a key twice in one object"),
        ("[" * 65 + "]" * 65, "must be at most 64 levels deep"),
        ('{"a":' * 65 + "1" + "}" * 65, "must be at most 64 levels deep"),
        ("[" + "[]," * 3 + "[" * 64 + "]" * 65, "must be at most 64 levels deep"),
        ("[" * 200_000, "must be at most 64 levels deep"),
    ],
)
def test_what_is_not_the_same_to_every_reader_is_refused(text: str, problem: str) -> None:
    with pytest.raises(JsonTextError, match=f"^{problem}") as caught:
        canonical(text)

    assert len(str(caught.value)) < 100


@pytest.mark.timeout(5)
@pytest.mark.parametrize("opening", ["[" * 65, '{"a":' * 65])
@pytest.mark.parametrize("repeated", ['\\"', '"', "\\", 'a"'])
def test_refusing_takes_time_in_proportion_to_the_length_only(opening: str, repeated: str) -> None:
    text = opening + '"' + repeated * 200_000

    with pytest.raises(JsonTextError):
        canonical(text)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_the_canonical_text_has_the_same_value_and_is_its_own_canonical_text(value: object) -> None:
    text = canonical_json(value)

    assert json.loads(text) == value
    assert canonical(text) == text
    assert canonical(json.dumps(value, indent=1)) == text


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec=None), max_size=50), st.integers(1, 120))
def test_bounded_text_can_be_stored_and_is_no_longer_than_its_bound(text: str, bytes_max: int) -> None:
    shown, cut = bounded(text, bytes_max)

    assert len(shown.encode()) <= bytes_max
    assert cut or shown == clean(text)
    assert cut is (len(clean(text).encode()) > bytes_max)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("abc", "abc"),
        ("aü😀", "aü😀"),
        ("a\ud83d", "a\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("\ude00b", "\ufffdb"),
    ],
)
def test_cleaned_text_has_no_lone_surrogate(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


MARK = "\n[truncated: it has 200 bytes, at most %s are shown]"


@pytest.mark.parametrize(
    ("text", "bytes_max", "shown"),
    [
        ("x" * 200, 100, "x" * 47 + MARK % 100),
        ("ü" * 100, 100, "ü" * 23 + MARK % 100),
        ("x" * 200, 53, "x" + MARK % 53),
        ("x" * 200, 52, "x" * 52),
        ("x" * 200, 51, "x" * 51),
        ("ü" * 10, 5, "üü"),
    ],
)
def test_text_that_was_cut_says_so_where_there_is_room(text: str, bytes_max: int, shown: str) -> None:
    assert bounded(text, bytes_max) == (shown, True)


def test_text_that_just_fits_is_not_cut() -> None:
    assert bounded("ü" * 100, 200) == ("ü" * 100, False)
