"""Text as tokens: words, numbers however they are written, percentages, quotes and documents."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from treadle_server.models.demo.arithmetic import numerals

_TOKEN = re.compile(
    r"""
    (?P<document>⟦\d+⟧)
  | (?P<quote>"[^"\n]*"|“[^”\n]*”|`[^`\n]*`|(?<!\w)'[^'\n]*'(?!\w)|(?<!\w)‘[^’\n]*’)
  | (?P<number>(?P<currency>[$€£¥]\s?)?
        (?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|(?<![\w.])\.\d+)
        (?:(?P<thousands>[kK])(?![A-Za-z]))?(?P<currency_after>\s?[€£])?(?!\d*(?:st|nd|rd|th)\b))
  | (?P<word>[^\W\d]\w*(?:(?:\.[^\W\d]\w*|\[\d*\])+|(?:['’-][^\W\d_]+)*)|\d+(?:st|nd|rd|th)\b)
  | (?P<symbol>\*\*|//|>=|<=|!=|==|[-+*/^%()=!,:;.?<>×÷·√\[\]])
    """,
    re.VERBOSE,
)
_SYMBOLS = {"×": "*", "·": "*", "÷": "/", "^": "**", "==": "="}
_DASHES = str.maketrans({"−": "-", "–": "-", "—": "-", "’": "'", "\u00a0": " "})


@dataclass(frozen=True, slots=True)
class Token:
    """One unit of a sentence. `kind` is word, number, percent, symbol, quote or document."""

    kind: str
    text: str
    """Lower case; digits for numbers; without the marks for quotes."""
    typed: str
    money: bool = False

    @property
    def numeric(self) -> bool:
        return self.kind in ("number", "percent")


@lru_cache(maxsize=1024)
def tokens_of(text: str) -> tuple[Token, ...]:
    raw = [_token(match) for match in _TOKEN.finditer(text.translate(_DASHES))]
    return tuple(_percentages(_numbers(raw)))


def _token(match: re.Match[str]) -> Token:
    kind, typed = str(match.lastgroup), match.group()
    if match.group("number"):
        digits = re.sub(r"[^\d.]", "", typed)
        digits = "0" + digits if digits.startswith(".") else digits
        if match.group("thousands"):
            digits = numerals.product(digits, "1000")
        money = bool(match.group("currency") or match.group("currency_after"))
        return Token("number", digits, typed, money)
    if match.group("quote"):
        return Token("quote", typed[1:-1], typed)
    if match.group("symbol"):
        return Token("symbol", _SYMBOLS.get(typed, typed), typed)
    if match.group("document"):
        return Token("document", typed, typed)
    return Token("word", typed.lower() if kind else typed, typed)


def _numbers(raw: list[Token]) -> list[Token]:
    """Joins number words into numbers: `two dozen`, `one hundred and five`, `3 million`."""
    done: list[Token] = []
    index = 0
    while index < len(raw):
        words = [token.text if token.kind in ("word", "number") else "" for token in raw[index : index + 14]]
        value, length = numerals.leading_number(words, previous=done[-1].text if done else "")
        if length == 0 or (length == 1 and raw[index].kind == "number"):
            done.append(raw[index])
            index += 1
            continue
        typed = " ".join(token.typed for token in raw[index : index + length])
        done.append(Token("number", value, typed, any(t.money for t in raw[index : index + length])))
        index += length
    return done


def _percentages(raw: list[Token]) -> list[Token]:
    done: list[Token] = []
    index = 0
    while index < len(raw):
        token = raw[index]
        length = _percent_length(raw, index + 1) if token.kind == "number" else 0
        if length:
            typed = " ".join(part.typed for part in raw[index : index + 1 + length])
            token = Token("percent", token.text, typed)
        done.append(token)
        index += 1 + length
    return done


def _percent_length(raw: list[Token], index: int) -> int:
    """How many tokens from here on say percent. A `%` between two numbers is a remainder."""
    following = [token.text for token in raw[index : index + 2]]
    if following[:1] == ["%"]:
        return 0 if len(raw) > index + 1 and raw[index + 1].kind == "number" else 1
    if following[:1] in (["percent"], ["pct"], ["percents"]):
        return 1
    return 2 if following == ["per", "cent"] else 0


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def stem(word: str) -> str:
    """The word without a plural ending, so that `boxes` meets `box`."""
    word = word.lower()
    irregular = _IRREGULAR.get(word)
    if irregular:
        return irregular
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


_IRREGULAR = {
    "children": "child",
    "men": "man",
    "women": "woman",
    "people": "person",
    "persons": "person",
    "feet": "foot",
    "teeth": "tooth",
    "mice": "mouse",
    "geese": "goose",
    "loaves": "loaf",
    "shelves": "shelf",
    "knives": "knife",
    "halves": "half",
    "leaves": "leave",
    "data": "data",
    "series": "series",
    "lens": "lens",
    "gas": "gas",
    "bus": "bus",
    "is": "is",
    "has": "has",
    "was": "was",
    "hrs": "hour",
    "hr": "hour",
    "h": "hour",
    "mins": "minute",
    "min": "minute",
    "litres": "litre",
    "liters": "litre",
    "liter": "litre",
    "l": "litre",
    "kilometers": "km",
    "kilometres": "km",
    "kilometer": "km",
    "kilometre": "km",
    "metres": "metre",
    "meters": "metre",
    "meter": "metre",
    "m": "metre",
    "kilograms": "kg",
    "kilogram": "kg",
    "kilos": "kg",
    "kilo": "kg",
    "grams": "g",
    "gram": "g",
    "sec": "second",
    "secs": "second",
}


def plain(tokens: Sequence[Token]) -> str:
    """The tokens as normalised text, for patterns: numbers in digits, words in lower case."""
    parts = []
    for token in tokens:
        if token.kind == "percent":
            parts.append(token.text + "%")
        elif token.kind == "quote":
            parts.append(f'"{token.text}"')
        else:
            parts.append(token.text)
    return " ".join(parts)
