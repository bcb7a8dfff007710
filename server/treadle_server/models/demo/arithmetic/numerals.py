"""Numbers in words. Exact: values are decimal text, never floats."""

from collections.abc import Sequence
from decimal import Decimal

_UNITS = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2
    )
}
_SCALES = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000, "trillion": 10**12}
FRACTIONS = {
    "half": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "seventh": 7,
    "eighth": 8,
    "ninth": 9,
    "tenth": 10,
    "twentieth": 20,
    "hundredth": 100,
}
_NOT_A_NUMBER_AFTER = frozenset({"each", "which", "this", "that", "every", "no", "another", "any", "the"})
Reading = tuple[str, int]


def product(left: str, right: str) -> str:
    return text_of(Decimal(left) * Decimal(right))


def text_of(value: Decimal) -> str:
    """Decimal text without an exponent and without trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def denominator(word: str) -> int | None:
    """2 for `half` and `halves`, 3 for `third` and `thirds`, None for other words."""
    if word == "halves":
        return 2
    return FRACTIONS.get(word) or FRACTIONS.get(word.removesuffix("s"))


def leading_number(words: Sequence[str], previous: str = "") -> Reading:
    """The number that the words begin with and how many of them say it; length 0 when there is none."""
    if not words or not words[0]:
        return "", 0
    first = words[0]
    if first in ("a", "an"):
        return _after_article(words)
    if first == "half" and words[1:3] == ["a", "dozen"]:
        return "6", 3
    if first == "one" and (previous in _NOT_A_NUMBER_AFTER or words[1:2] in (["of"], ["another"])):
        return "", 0
    if first == "dozen":
        return "12", 1
    if first[0].isdigit():
        return (
            _with_half(*_scaled(Decimal(first), words, 1), words)
            if first.replace(".", "", 1).isdigit()
            else ("", 0)
        )
    return _with_half(*_spelled(words), words)


def _with_half(value: str, length: int, words: Sequence[str]) -> Reading:
    """Takes `and a half` or `and a quarter` behind a number."""
    tail = tuple(words[length : length + 3])
    parts = {("and", "a", "half"): "0.5", ("and", "a", "quarter"): "0.25"}
    if not length or tail not in parts:
        return value, length
    return text_of(Decimal(value) + Decimal(parts[tail])), length + 3


def _after_article(words: Sequence[str]) -> Reading:
    following = words[1] if len(words) > 1 else ""
    if following in ("hundred", *_SCALES):
        value, length = _spelled(["one", *words[1:]])
        return value, length
    return ("12", 2) if following == "dozen" else ("", 0)


def _spelled(words: Sequence[str]) -> Reading:
    total, part, length, spoken = 0, 0, 0, ""
    while length < len(words):
        word = words[length]
        step = _step(word, spoken)
        if step is None:
            if not _joins(words, length, spoken):
                break
            length += 1
            continue
        if word in _SCALES:
            total, part = total + max(part, 1) * _SCALES[word], 0
        elif word == "hundred":
            part = max(part, 1) * 100
        else:
            part += step
        spoken, length = word.rpartition("-")[2], length + 1
    if not spoken:
        return "", 0
    value = Decimal(total + part)
    if words[length : length + 1] == ["point"]:
        return _with_decimals(value, words, length)
    return _scaled(value, words, length)


def _step(word: str, spoken: str) -> int | None:
    """What a number word adds after the one spoken before, None when it cannot follow."""
    tens, _, unit = word.partition("-")
    if word in _SCALES or word == "hundred":
        return 0 if spoken else None
    fresh = spoken in ("", "hundred", *_SCALES)
    if tens in _TENS and unit in _UNITS:
        return _TENS[tens] + _UNITS[unit] if fresh else None
    if word in _TENS:
        return _TENS[word] if fresh else None
    if word in _UNITS:
        return _UNITS[word] if fresh or (spoken in _TENS and 0 < _UNITS[word] < 10) else None
    return None


def _joins(words: Sequence[str], index: int, spoken: str) -> bool:
    """Whether `and` here stands within one number: `two hundred and five`."""
    after = words[index + 1] if index + 1 < len(words) else ""
    return words[index] == "and" and spoken in ("hundred", *_SCALES) and _step(after, spoken) is not None


def _with_decimals(value: Decimal, words: Sequence[str], length: int) -> Reading:
    digits = ""
    index = length + 1
    while index < len(words) and words[index] in _UNITS and _UNITS[words[index]] < 10:
        digits += str(_UNITS[words[index]])
        index += 1
    return (text_of(Decimal(f"{value}.{digits}")), index) if digits else (text_of(value), length)


def _scaled(value: Decimal, words: Sequence[str], length: int) -> Reading:
    """Takes a scale behind digits or words: `3 million`, `two dozen`."""
    while length < len(words) and words[length] in ("hundred", "dozen", *_SCALES):
        scale = {"hundred": 100, "dozen": 12}.get(words[length]) or _SCALES[words[length]]
        value, length = value * scale, length + 1
    return text_of(value), length
