"""Words of the index of memories: whatever is kept or asked for, the index takes it."""

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle_server.stores.sqlite.memory_words import (
    TERMS_MAX,
    WORD_CHARACTERS_MAX,
    Term,
    match_of,
    split,
    terms_of,
    words_of,
)

TENANT = 12
texts = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            ['"', "*", "(", ")", "AND", "OR", "NOT", "NEAR", "a", "ß", "東京", "İ", "-", ":", "{", "^"]
        )
    ).map(" ".join),
)


@pytest.fixture(scope="module")
def index() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE VIRTUAL TABLE memory_index USING fts5(words, tokenize='ascii')")
    yield connection
    connection.close()


def found(index: sqlite3.Connection, query: str, *namespaces: str) -> set[int]:
    """Rows that have one of the query's terms."""
    sql = "SELECT rowid FROM memory_index WHERE memory_index MATCH ?"
    return {
        row
        for term in terms_of(query)
        for (row,) in index.execute(sql, (match_of(TENANT, namespaces, term),)).fetchall()
    }


@given(text=texts)
def test_any_text_is_found_by_itself(index: sqlite3.Connection, text: str) -> None:
    index.execute("DELETE FROM memory_index")
    words = words_of(TENANT, "n", "k", text)
    index.execute("INSERT INTO memory_index (rowid, words) VALUES (1, ?)", (words,))

    wanted = {1} if terms_of(text) else set()

    assert found(index, text) == found(index, text, "n", "m") == wanted
    assert found(index, text, "m") == set()


@given(query=texts)
def test_any_query_is_an_expression_that_the_index_takes(index: sqlite3.Connection, query: str) -> None:
    terms = terms_of(query)

    assert len(terms) <= TERMS_MAX
    assert sum(term.begins for term in terms) <= 1
    for term in terms:
        index.execute("SELECT 1 FROM memory_index WHERE memory_index MATCH ?", (match_of(TENANT, (), term),))


@given(text=texts)
def test_the_index_has_just_the_words_that_it_was_given(index: sqlite3.Connection, text: str) -> None:
    index.execute("DELETE FROM memory_index")
    words = words_of(TENANT, "n", "k", text)
    index.execute("INSERT INTO memory_index (rowid, words) VALUES (1, ?)", (words,))
    index.execute("CREATE VIRTUAL TABLE temp.kept USING fts5vocab('main', 'memory_index', 'instance')")

    kept = index.execute("SELECT term, offset FROM temp.kept ORDER BY offset").fetchall()

    index.execute("DROP TABLE temp.kept")
    assert kept == [(word, place) for place, word in enumerate(words.split())]
    assert all(word.startswith(f"{TENANT}") for word in words.split())


@given(text=texts)
def test_words_are_the_same_whatever_their_case(text: str) -> None:
    assert split(text.upper()) == split(text.upper().lower().upper())
    assert all(0 < len(word) <= WORD_CHARACTERS_MAX for word in split(text))


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("red car", [Term(("red",)), Term(("car",))]),
        ('"red car"', [Term(("red", "car"))]),
        ('"red', [Term(("red",))]),
        ("red red RED", [Term(("red",))]),
        ("car*", [Term(("car",), begins=True)]),
        ("ca*", [Term(("ca",))]),
        ("car* red*", [Term(("car",), begins=True), Term(("red",))]),
        ("favourite_colour", [Term(("favourite",)), Term(("colour",))]),
        ("東京都", [Term(("東京", "京都"))]),
        ("京", [Term(("京",), begins=True)]),
        ("𝓐bc ﬁ", [Term(("abc",)), Term(("fi",))]),
        ("Wi-Fi 6", [Term(("wi",)), Term(("fi",)), Term(("6",))]),
        ("... ?!", []),
    ],
)
def test_a_query_is_read_as_terms(query: str, terms: list[Term]) -> None:
    assert terms_of(query) == terms


def test_a_long_query_is_cut_after_its_first_terms() -> None:
    assert terms_of(" ".join(f"w{number}" for number in range(40))) == [
        Term((f"w{number}",)) for number in range(TERMS_MAX)
    ]


def test_a_long_word_is_found_by_its_beginning_alone() -> None:
    assert split("x" * 200) == ["x" * WORD_CHARACTERS_MAX]
