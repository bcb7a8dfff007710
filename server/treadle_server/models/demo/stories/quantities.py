"""The numbers of a told story, each with what it counts, per what, and the words around it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from treadle_server.models.demo.arithmetic import numerals
from treadle_server.models.demo.arithmetic.formulas import Formula, number, operation
from treadle_server.models.demo.arithmetic.words import Token, plain, stem, word_set

MONEY = "$"
_MONEY_WORDS = frozenset(
    {"dollar", "euro", "buck", "usd", "eur", "gbp", "chf", "pound", "quid", "franc", "yen", "rupee"}
)
_STOPS = word_set(
    """
    a an the of at for to in on by from with and or but then each every per apiece that which who
    while if when so is are was were has have had do does did will would can his her their its my
    our your he she it they we i you among between into after before during as than more less fewer
    costs cost sells sold buys bought gives gave loses lost eats ate spends spent uses used earns
    earned pays paid gets got holds hold contains contain weighs split splits share shares shared
    divide divides off plus minus times left remaining away how what not only also broken rotten
    damaged containing holding equally evenly travels drives runs walks long wide tall high deep
    additional all total together over under about around arrive arrived leave leaves join joined
    come comes went go goes makes make bakes bake produces produce read reads takes take needs need
    drinks drink receive receives there
    """
)
_ADJECTIVES = frozenset(
    ["more", "extra", "new", "other", "additional", "further", "another", "full", "whole", "equal", "of"]
)
_EACH_VERB = (
    r"(?:costs?|has|have|had|holds?|contains?|weighs?|is|are|was|were|sells? for|gets?|"
    r"needs?|takes?|uses?|earns?|earned|receives?|eats?|carries|fits|gives?|produces?|"
    r"makes?|lays?|bakes?|reads?|priced at|priced|charges?|pays?|paid|brings?|brought|"
    r"bought|buys?|sells?|sold|scores?|scored|collects?|collected|donates?|costing|worth|"
    r"plants?|saves?|had|seats?|yields?|packs?|drinks?|requires?|runs?|walks?|comes with|"
    r"ate|contributes?|wins?|won|picked|picks?|made|consumes?|burns?|wants?|should get|"
    r"will get|can hold|can seat|can carry)"
)
_MEASURES = word_set(
    """
    km mile metre cm kg g litre ml second minute hour day week month year mph kph kmh foot inch yard
    gallon ounce tonne ton acre kwh watt calorie
    """
)
_COMPOUND_RATES = {"mph": ("mile", "hour"), "kph": ("km", "hour"), "kmh": ("km", "hour")}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of a story. `kind` is count, share (a percentage or fraction) or multiple."""

    value: Formula
    kind: str
    unit: str
    per: str = ""
    """What a rate is for one of; `each` when the story says only that."""
    soft: bool = False
    """The rate may be a mere description: `a tank holds 500 litres`."""
    spread: bool = False
    """Each one of this count does what follows."""
    before: str = ""
    """The words since the number before, in the same sentence."""
    after: str = ""
    """The words up to the next number."""
    sentence: int = 0
    asked: bool = False
    """Said in a question."""
    counted: Formula | None = None
    """How many there were, when the value is their price or content."""


def quantities_in(tokens: Sequence[Token], sentence: int, *, asked: bool) -> list[Quantity]:
    """All numbers of a sentence in their order."""
    spans = _number_spans(tokens)
    found: list[Quantity] = []
    previous_end = 0
    for index, (start, end, value, kind) in enumerate(spans):
        limit = spans[index + 1][0] if index + 1 < len(spans) else len(tokens)
        before = plain(tokens[previous_end:start])
        rest = tokens[end:limit]
        quantity = Quantity(value, kind, "", before=before, after=plain(rest), sentence=sentence, asked=asked)
        if kind == "count":
            quantity = _with_unit(quantity, tokens[start], rest, followed=limit < len(tokens))
        found.append(quantity)
        previous_end = end
    return _distributed(found)


def _number_spans(tokens: Sequence[Token]) -> list[tuple[int, int, Formula, str]]:
    spans: list[tuple[int, int, Formula, str]] = []
    at = 0
    while at < len(tokens):
        span = _span_at(tokens, at)
        if span is None:
            at += 1
            continue
        spans.append(span)
        at = span[1]
    return spans


def _span_at(tokens: Sequence[Token], at: int) -> tuple[int, int, Formula, str] | None:
    token = tokens[at]
    following = [item.text for item in tokens[at + 1 : at + 4]]
    if token.kind == "percent":
        return at, at + 1, operation("/", number(token.text), number(100)), "share"
    if token.kind == "number":
        if following[:1] == ["/"] and len(tokens) > at + 2 and tokens[at + 2].kind == "number":
            return at, at + 3, operation("/", number(token.text), number(following[1])), "share"
        lower = numerals.denominator(following[0]) if following else None
        if lower and tokens[at + 1].kind == "word" and following[0] not in ("second", "seconds"):
            return at, at + 2, operation("/", number(token.text), number(lower)), "share"
        if following[:1] in (["times"], ["x"]) and following[1:2] == ["as"]:
            return at, at + 2, number(token.text), "multiple"
        return at, at + 1, number(token.text), "count"
    if token.kind != "word":
        return None
    lower = numerals.denominator(token.text)
    if (
        lower
        and (
            following[:1] == ["of"]
            or token.text == "half"
            or (token.text == "quarter" and at and tokens[at - 1].text in ("a", "one"))
        )
        and following[:2] != ["an", "hour"]
    ):
        return at, at + 1, operation("/", number(1), number(lower)), "share"
    multiples = {
        "doubles": 2,
        "doubled": 2,
        "triples": 3,
        "tripled": 3,
        "quadruples": 4,
        "quadrupled": 4,
        "twice": 2,
    }
    if token.text in multiples:
        return at, at + 1, number(multiples[token.text]), "multiple"
    if token.text in ("halves", "halved"):
        return at, at + 1, operation("/", number(1), number(2)), "multiple"
    return None


def _with_unit(quantity: Quantity, token: Token, rest: Sequence[Token], *, followed: bool) -> Quantity:
    words = [item.text for item in rest]
    unit, used = (MONEY, 0) if token.money else _unit(words)
    if words[:1] == ["times"] and words[1:2] in (["a"], ["per"], ["each"], ["every"]):
        unit, used = "time", 1
    if token.money and words[:1] and stem(words[0]) in _MONEY_WORDS:
        used = 1
    if unit in _COMPOUND_RATES:
        unit, per = _COMPOUND_RATES[unit]
        return replace(quantity, unit=unit, per=per)
    after = words[used:]
    per, spread = _per_after(after, followed=followed, money=unit == MONEY)
    soft = False
    if not per and not spread:
        per, soft = _per_before(quantity.before)
    if (
        not per
        and unit == MONEY
        and re.search(r"(?:^|\s)(?:at|costing|priced at)(?: (?:only|just|a price of))?$", quantity.before)
    ):
        per = "each"
    return replace(quantity, unit=unit, per=per, soft=soft, spread=spread)


def _unit(words: Sequence[str]) -> tuple[str, int]:
    """The noun behind a number, and how many words it takes."""
    chunk: list[str] = []
    for word in words[:5]:
        if word in _ADJECTIVES and not chunk and word != "of":
            chunk.append("")
            continue
        if word in _STOPS or not word[0].isalpha():
            break
        chunk.append(word)
    measured = next((index for index, word in enumerate(chunk[:2]) if stem(word) in _MEASURES), None)
    if measured is not None:
        return stem(chunk[measured]), measured + 1
    nouns = [
        index
        for index, word in enumerate(chunk)
        if word and (stem(word) != word or stem(word) in _MONEY_WORDS)
    ]
    if not nouns:
        last = len(chunk) - 1
        return (stem(chunk[last]), last + 1) if chunk and chunk[last] else ("", len(chunk))
    at = nouns[0]
    if at + 1 in nouns and chunk[at + 1] not in ("hours", "days", "weeks"):
        at += 1
    unit = stem(chunk[at])
    unit = MONEY if unit in _MONEY_WORDS else unit
    square = at > 0 and chunk[at - 1] in ("square", "cubic")
    return (f"{chunk[at - 1]} {unit}" if square else unit), at + 1


_JOINS = ("and", "with", "for", "at", "plus", "or", "but", "of", "then")


def _per_after(words: list[str], *, followed: bool, money: bool) -> tuple[str, bool]:
    """What a rate is per, or whether the number is one of `N workers each earn`."""
    if words[:1] == ["of"] and len(words) > 1:
        at = next(
            (
                index
                for index, word in enumerate(words[:6])
                if word in ("per", "each", "every", "/", "for", "a", "an") and index
            ),
            0,
        )
        words = words[at:] if at else words
    if words[:1] and words[0] in ("for", "in", "on", "to") and words[1:2] in (["each"], ["every"]):
        return _noun(words[2:]) or "each", False
    if money and words[:2] in (["for", "a"], ["for", "one"], ["for", "1"], ["for", "an"]):
        return _noun(words[2:]), False
    if words[:1] == ["each"]:
        following = words[1:2]
        if (
            followed
            and 2 <= len(words) <= 4
            and all(word.isalpha() for word in words)
            and words[-1] not in _JOINS
        ):
            return "", True
        if following and re.fullmatch(_EACH_VERB, following[0]):
            return "", True
        noun = (
            _noun(words[1:]) if following and following[0] not in _STOPS and following[0][0].isalpha() else ""
        )
        return noun or "each", False
    if words[:1] in (["per"], ["every"], ["/"]):
        return _noun(words[1:]) or "each", False
    if words[:1] == ["apiece"] or words[:2] in (["a", "piece"], ["a", "pop"]):
        return "each", False
    if words[:1] in (["a"], ["an"]):
        noun = _noun(words[1:])
        return (
            noun
            if noun in TIMES
            or noun in ("piece", "head", "km", "mile", "kg", "litre", "person", "ticket", "pound")
            else ""
        ), False
    return "", False


def _noun(words: Sequence[str]) -> str:
    chunk: list[str] = []
    for word in words[:3]:
        if word in _STOPS or not word or not word[0].isalpha():
            break
        chunk.append(word)
    if chunk[:1] and chunk[0] in ("square", "cubic") and len(chunk) > 1:
        return f"{chunk[0]} {stem(chunk[1])}"
    known = [word for word in chunk if stem(word) in TIMES]
    return stem(known[0] if known else chunk[-1]) if chunk else ""


_SUBJECT_RATE = re.compile(
    r"(?:^|\s)(?P<article>each|every|a|an|one|1|per)(?P<noun>(?: (?!and\b|with\b|of\b|"
    rf"for\b)[a-z'-]+){{1,3}}?) (?:{_EACH_VERB}|for|at)(?: (?:about|only|exactly|up to|a|an|"
    r"just|for|at|sold for))*$"
)
_EACH_RATE = re.compile(
    rf"\beach(?: one)?(?: of (?:them|which|whom|these))?(?: {_EACH_VERB}| (?:is |was "
    r")?(?:cut|sliced|divided|split) into)(?: (?:a|an|for|up to|only|exactly|at))*$|\beach "
    r"(?:cut|sliced|divided|split) into$"
)
_DAILY = {"night": "day", "morning": "day", "evening": "day", "weekday": "day"}


def _per_before(before: str) -> tuple[str, bool]:
    """`each box holds`, `every day she walks`; and whether it is only `a box holds`."""
    if _EACH_RATE.search(before):
        return "each", False
    match = _SUBJECT_RATE.search(before)
    if match:
        return stem(match["noun"].split()[-1]), match["article"] in ("a", "an", "one", "1")
    match = re.search(
        r"(?:^|\s)(?:each|every) (second|minute|hour|day|week|month|year|night|morning|evening|weekday)\b",
        before,
    )
    if match:
        return _DAILY.get(match.group(1), match.group(1)), False
    match = re.search(
        r"(?:each|per) ([a-z]+)\b.*(?:^|\s)(?:costs?|sells? for|sold for|priced at|is|are)(?: only)?$", before
    )
    if match:
        return stem(match.group(1)), False
    plural = re.search(
        r"(?:^|\s)([a-z]+s) (?:cost|are priced at|sell for|are sold for|are|go for|sold at|at)(?: only)?$",
        before,
    )
    return (stem(plural.group(1)), True) if plural else ("", False)


def _distributed(found: list[Quantity]) -> list[Quantity]:
    """Marks rates that only their neighbour shows: `15 rows of 22 seats`, `each of 6 shelves holds 25`."""
    done: list[Quantity] = []
    for index, quantity in enumerate(found):
        before, left = quantity.before, found[index - 1] if index else None
        if left is not None and left.kind == quantity.kind == "count":
            quantity = _beside(left, quantity)
        if done and done[-1].per in ("", "each") and _ON_EACH.search(before + " "):
            done[-1] = replace(done[-1], per=quantity.unit)
        elif _EACH_OF.search(before + " "):
            quantity = replace(quantity, spread=True)
        if done and _repeats(done[-1], quantity):
            quantity = replace(quantity, per=done[-1].per)
        done.append(quantity)
    return done


_EACH_OF = re.compile(r"\beach of (?:the |his |her |their |our |these )?$")
_ON_EACH = re.compile(r"\b(?:on|in|for|to|at|from|with) each of (?:the |his |her |their |our |these )?$")
_CONTAINS = ("of", "with", "containing", "holding", "contain", "contains", "hold", "holds")


def _beside(left: Quantity, quantity: Quantity) -> Quantity:
    """The right one of two counts in a row, as a rate per the left one where it is one."""
    words = quantity.before.split()
    if not words:
        return quantity if left.unit else replace(quantity, per="each")
    counted = (
        bool(left.unit) and left.unit not in (MONEY, quantity.unit, *TIMES) and (not left.per or left.soft)
    )
    if not quantity.per and counted and words[-1] in _CONTAINS and len(words) <= 4:
        grouped = left.before.split(" ")[-1] in ("into", "in")
        return replace(quantity, per="" if grouped else left.unit)
    price = re.search(r"\b(?:costs?|are|sell for|go for)$", quantity.before)
    if quantity.soft and price and stem(words[0]) == quantity.per:
        return replace(quantity, per="", soft=False)
    return quantity


def _repeats(left: Quantity, quantity: Quantity) -> bool:
    """Whether `every day 45 litres are used and 20 added` means the second number daily too."""
    daily = left.per in TIMES and re.search(r"\b(?:every|each) [a-z]+\b", left.before)
    same = not quantity.per and quantity.unit == left.unit
    return bool(daily) and same and quantity.before.split()[-1:] == ["and"]


TIMES = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86400,
    "week": 604800,
    "month": 0,
    "year": 0,
    "night": 0,
    "weekend": 0,
    "shift": 0,
}
_CONVERSIONS = {
    ("minute", "second"): 60,
    ("hour", "minute"): 60,
    ("hour", "second"): 3600,
    ("day", "hour"): 24,
    ("week", "day"): 7,
    ("year", "month"): 12,
    ("year", "week"): 52,
    ("year", "day"): 365,
    ("km", "metre"): 1000,
    ("kg", "g"): 1000,
    ("metre", "cm"): 100,
    ("litre", "ml"): 1000,
    ("litre", "millilitre"): 1000,
    ("litre", "milliliter"): 1000,
    ("dozen", "egg"): 12,
    (MONEY, "cent"): 100,
    ("decade", "year"): 10,
}


def converted(value: Formula, unit: str, wanted: str) -> Formula | None:
    """The value in another unit of the same kind, None when there is no fixed rate."""
    if (unit, wanted) in _CONVERSIONS:
        return operation("*", value, number(_CONVERSIONS[unit, wanted]))
    if (wanted, unit) in _CONVERSIONS:
        return operation("/", value, number(_CONVERSIONS[wanted, unit]))
    return None
