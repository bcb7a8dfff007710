"""JMESPath queries: what they find, and that a hostile one is stopped."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle_server.tools.builtin.json_query import DOCUMENT_BYTES_MAX, json_query

SECONDS_MAX = 5.0
SHOP = '{"items":[{"name":"pen","price":12},{"name":"ink","price":3}],"n":9007199254740993}'


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("items[?price > `10`].name", '["pen"]'),
        ("items[*].price | sum(@)", "15"),
        ("items[-1]", '{"name":"ink","price":3}'),
        ("sort_by(items, &price)[0].name", '"ink"'),
        ("length(items)", "2"),
        ("n", "9007199254740993"),
        ("nothing.there", "null"),
        ("items[].{n: name, a: price}", '[{"a":12,"n":"pen"},{"a":3,"n":"ink"}]'),
    ],
)
def test_it_finds(query: str, found: str) -> None:
    assert json_query(SHOP, query) == found


@pytest.mark.parametrize(
    ("document", "query", "reason"),
    [
        ("{", "@", "the document is not valid JSON"),
        ("[NaN]", "@", "NaN is not JSON"),
        ("[1e999]", "@", "does not fit the document"),
        ("[" * 5000, "@", "nested too deeply"),
        (" " * DOCUMENT_BYTES_MAX + "1", "@", "larger than 65536 bytes"),
        (SHOP, "items[", "the query is not valid"),
        (SHOP, "nope(@)", "Unknown function"),
        (SHOP, "length(n)", "length() takes string or array or object, not number"),
        (SHOP, "items[?name > `1`]", "does not fit the document"),
        (SHOP, "a" * 2000, "longer than 1000 characters"),
        (SHOP, "[" * 900, "query"),
    ],
)
def test_it_says_why_it_cannot(document: str, query: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        json_query(document, query)

    assert reason in str(caught.value)


LONG = "[" + "1," * 32_000 + "1]"


@pytest.mark.parametrize(
    ("document", "query"),
    [
        (SHOP, "|".join(["[@,@]"] * 150)),
        (SHOP, "|".join(["[@,@][]"] * 100)),
        (SHOP, "to_string(" + "|".join(["[@,@]"] * 60) + ")"),
        (SHOP, f"({'|'.join(['[@,@]'] * 60)}) == ({'|'.join(['[@,@]'] * 60)})"),
        (SHOP, "|".join(["{a:@,b:@}"] * 90)),
        ('["' + "a" * 60_000 + '"]', "|".join(["[join('',@),join('',@)]"] * 40)),
        (LONG, "[?length([@,@,@,@,@,@,@,@,@]) > `0`]"),
        (LONG, "|".join(["[?@ > `0`]"] * 80)),
    ],
)
def test_a_query_that_would_grow_without_end_is_stopped(document: str, query: str) -> None:
    begin = time.monotonic()

    with pytest.raises(ValueError, match="too many steps"):
        json_query(document, query)

    assert time.monotonic() - begin < SECONDS_MAX


def test_a_large_document_can_be_filtered_in_one_go() -> None:
    people = json.dumps([{"id": index, "name": f"person {index}"} for index in range(1700)])
    assert len(people) > DOCUMENT_BYTES_MAX * 0.9

    assert json_query(people, "[?id == `1699`].name | [0]") == '"person 1699"'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(VALUES, st.text("ab@[]{}()*&|.:?!'`\"0123,- ", max_size=30))
def test_any_query_gives_json_or_a_reason(document: object, query: str) -> None:
    found = "null"
    with suppress(ValueError):
        found = json_query(json.dumps(document), query)

    json.loads(found)


@given(VALUES)
def test_the_whole_document_comes_back_as_canonical_json(document: object) -> None:
    expected = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    assert json_query(json.dumps(document), "@") == expected
