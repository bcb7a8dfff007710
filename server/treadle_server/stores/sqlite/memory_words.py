"""Texts and queries as the words of the index.

A word begins with the key of its tenant, so that tenants share no list of the index: nobody's search takes
longer, or comes out otherwise, because of what others keep.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

WORD_CHARACTERS_MAX = 64
TERMS_MAX = 16
BEGINNING_CHARACTERS_MIN = 3

_WORD = re.compile(r"[^\W_]+")
_TERM = re.compile(r'"([^"]*)"|([^\W_]+)(\*?)')
# Scripts that are written without spaces between words are found by pairs of their characters.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


@dataclass(frozen=True, slots=True)
class Term:
    """What a query asks for: words one after the other, or the beginning of one."""

    words: tuple[str, ...]
    begins: bool = False


def words_of(tenant: int, namespace: str, item_key: str, text: str) -> str:
    """All that a memory is found by, as the index has it."""
    words = (*split(item_key), *split(text))
    return " ".join((_namespace_word(tenant, namespace), *(_word(tenant, word) for word in words)))


def split(text: str) -> list[str]:
    """The words of a text, without case and accents."""
    words: list[str] = []
    for found in _WORD.finditer(_folded(text)):
        words += _pieces(found[0])
    return words


def terms_of(query: str) -> list[Term]:
    """What is asked for, each once. Whatever is no word separates words."""
    terms: dict[Term, None] = {}
    may_begin = True
    for found in _TERM.finditer(_folded(query)):
        phrase, word, star = found.groups()
        words = tuple(split(word if phrase is None else phrase))
        begins = may_begin and len(words) == 1 and _is_beginning(words[0], bool(star))
        may_begin = may_begin and not begins
        if words:
            terms[Term(words, begins)] = None
        if len(terms) == TERMS_MAX:
            break
    return list(terms)


def match_of(tenant: int, namespaces: Sequence[str], term: Term) -> str:
    """The expression of the index for one term. It holds nothing but words and operators of ours."""
    phrase = " ".join(_word(tenant, word) for word in term.words)
    wanted = f'"{phrase}"' + (" *" if term.begins else "")
    if not namespaces:
        return wanted
    places = " OR ".join(f'"{_namespace_word(tenant, namespace)}"' for namespace in namespaces)
    return f"({places}) AND {wanted}"


def _folded(text: str) -> str:
    # Twice: what is taken apart may have case, and what was folded may be taken apart.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(one for one in decomposed if not unicodedata.combining(one))


def _pieces(word: str) -> list[str]:
    pieces: list[str] = []
    end = 0
    for run in _UNSPACED.finditer(word):
        pieces += [word[end : run.start()], *_pairs(run[0])]
        end = run.end()
    return [piece[:WORD_CHARACTERS_MAX] for piece in (*pieces, word[end:]) if piece]


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)] or [run]


def _is_beginning(word: str, starred: bool) -> bool:
    """Only one in a query, and no short one: the index reads every word that begins so."""
    if starred and len(word) >= BEGINNING_CHARACTERS_MIN:
        return True
    return len(word) == 1 and _UNSPACED.match(word) is not None  # half of a pair


def _word(tenant: int, word: str) -> str:
    return f"{tenant}w{word}"


def _namespace_word(tenant: int, namespace: str) -> str:
    return (
        f"{tenant}n{hashlib.blake2b(namespace.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"
    )
