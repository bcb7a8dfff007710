"""Orders such as `add 5 to it` and `take 15% off`: the clauses that change a value."""

from collections.abc import Callable

from treadle_server.models.demo.arithmetic.formulas import (
    Formula,
    grown,
    number,
    operation,
    shrunk,
)
from treadle_server.models.demo.arithmetic.operators import ORDINAL_POWERS
from treadle_server.models.demo.arithmetic.phrases import Phrase, Unreadable


def read_order(phrase: Phrase, last: Formula | None) -> Formula | None:
    verb = phrase.word()
    handler = _ORDERS.get(verb)
    if handler is None or phrase.word(1) in ("root", "roots"):
        return None
    phrase.at += 1
    return handler(phrase, last)


def _needed(value: Formula | None) -> Formula:
    if value is None:
        raise Unreadable
    return value


def _add(phrase: Phrase, last: Formula | None) -> Formula:
    phrase.accept(("together",), ("up",), ("on",), ("back",), ("another",), ("in",))
    phrase.accept((":",))
    percent = _percent_change(phrase)
    if percent is not None:
        phrase.accept(
            ("tax",),
            ("sales", "tax"),
            ("vat",),
            ("tip",),
            ("interest",),
            ("more",),
            ("extra",),
            ("on", "top"),
        )
        whole = phrase.expression() if phrase.accept(("to",), ("on",)) else _needed(last)
        return grown(whole, percent)
    parts = [phrase.term()]
    while phrase.accept((",", "and"), ("and",), (",",)):
        parts.append(phrase.term())
    phrase.accept(("more",), ("extra",))
    if phrase.accept(("to", "that", "sum"), ("on", "top")):
        return operation("+", _needed(last), *parts)
    if phrase.accept(("to",), ("with",), ("onto",)):
        return operation("+", phrase.expression(), *parts)
    phrase.accept(("together",), ("up",))
    return operation("+", *parts) if len(parts) > 1 else operation("+", _needed(last), *parts)


def _percent_change(phrase: Phrase) -> Formula | None:
    """`10%`, with or without an article, and not `10% of` something."""
    mark = phrase.at
    phrase.accept(("a",), ("an",), ("another",))
    phrase.accept(("further",))
    percent = phrase.percentage() if phrase.word(1) not in ("of",) else None
    if percent is None:
        phrase.at = mark
    return percent


def _subtract(phrase: Phrase, last: Formula | None) -> Formula:
    phrase.accept(("away",), ("off",), ("out",))
    mark = phrase.at
    percent = phrase.tokens[phrase.at] if not phrase.ended() else None
    if percent and percent.kind == "percent" and phrase.word(1) != "of":
        phrase.at += 1
        phrase.accept(("tax",), ("discount",), ("away",), ("off",), ("for", "tax"))
        whole = (
            phrase.expression() if phrase.accept(("from",), ("off",), ("of",)) else _after_noun(phrase, last)
        )
        return shrunk(whole, number(percent.text))
    phrase.at = mark
    parts = [phrase.term()]
    while phrase.accept(("and",)):
        parts.append(phrase.term())
    phrase.accept(("away",), ("off",))
    if phrase.accept(("from",), ("off",)):
        return operation("-", phrase.expression(), *parts)
    return operation("-", _needed(last), *parts)


def _after_noun(phrase: Phrase, last: Formula | None) -> Formula:
    """The thing named behind `20% off`, or the last result when nothing is named."""
    return _needed(last) if phrase.ended() else phrase.expression()


def _take(phrase: Phrase, last: Formula | None) -> Formula | None:
    mark = phrase.at
    if phrase.word() == "away":
        return _subtract(phrase, last)
    for reading in (_took_off, _took_root):
        phrase.at = mark
        try:
            value = reading(phrase, last)
        except Unreadable:
            continue
        if value is not None and phrase.ended():
            return value
    phrase.at = mark
    phrase.accept(("the", "number"), ("a", "number"))
    return phrase.expression()


def _took_off(phrase: Phrase, last: Formula | None) -> Formula | None:
    percent = phrase.percentage()
    if percent is None and phrase.tokens[phrase.at].kind == "percent" and phrase.word(1) in ("off", "from"):
        percent = number(phrase.word())
        phrase.at += 1
    if percent is not None:
        if phrase.accept(("off", "of"), ("off",), ("away", "from"), ("from",), ("away",)):
            return shrunk(_after_noun(phrase, last), percent)
        return None
    part = phrase.term()
    if phrase.accept(("away", "from"), ("from",), ("off", "of"), ("off",), ("out", "of")):
        return operation("-", _after_noun(phrase, last), part)
    return operation("-", _needed(last), part) if phrase.accept(("away",)) else None


def _took_root(phrase: Phrase, last: Formula | None) -> Formula | None:
    phrase.skip("the", "its")
    roots = {("square", "root"): "sqrt", ("root",): "sqrt", ("absolute", "value"): "abs"}
    for words, symbol in roots.items():
        if phrase.accept(words) and phrase.ended():
            return operation(symbol, _needed(last))
    return None


def _multiply(phrase: Phrase, last: Formula | None) -> Formula:
    if phrase.accept(("by",), ("with",)):
        return operation("*", _needed(last), phrase.term())
    parts = [_factor(phrase)]
    while phrase.accept(("by",), ("and",), ("with",), ("times",), (",", "and"), (",",)):
        parts.append(_factor(phrase))
    phrase.accept(("together",))
    return operation("*", *parts) if len(parts) > 1 else operation("*", _needed(last), *parts)


def _factor(phrase: Phrase) -> Formula:
    return phrase.power()


def _divide(phrase: Phrase, last: Formula | None) -> Formula:
    ways = (
        ("by",),
        ("evenly", "by"),
        ("among",),
        ("between",),
        ("evenly", "among"),
        ("evenly", "between"),
        ("equally", "among"),
        ("equally", "between"),
        ("into",),
        ("in",),
    )
    if phrase.accept(*ways):
        whole = _needed(last)
    else:
        whole = phrase.power()
        if not phrase.accept(*ways):
            raise Unreadable
    if phrase.accept(("half",), ("two", "halves")):
        return operation("/", whole, number(2))
    parts = phrase.power()
    phrase.accept(
        ("people",), ("persons",), ("ways",), ("equal", "parts"), ("parts",), ("friends",), ("of", "us")
    )
    return operation("/", whole, parts)


def _scale(symbol: str, by: int) -> Callable[[Phrase, Formula | None], Formula]:
    def scaled(phrase: Phrase, last: Formula | None) -> Formula:
        whole = _needed(last) if phrase.ended() else phrase.expression()
        return operation(symbol, whole, number(by))

    return scaled


def _raise(phrase: Phrase, last: Formula | None) -> Formula:
    whole = _needed(last) if phrase.word() == "to" else phrase.primary()
    if phrase.accept(("to", "the", "power", "of"), ("to", "the", "power"), ("to", "the"), ("to",)):
        exponent = _ordinal(phrase) or phrase.primary()
        phrase.accept(("power",))
        return operation("**", whole, exponent)
    return _changed(phrase, whole, grow=True)


def _ordinal(phrase: Phrase) -> Formula | None:
    digits = phrase.word().rstrip("stndrh")
    if phrase.word() in ORDINAL_POWERS:
        phrase.at += 1
        return number(ORDINAL_POWERS[phrase.word(-1)])
    if digits.isdigit() and digits != phrase.word():
        phrase.at += 1
        return number(digits)
    return None


def _change(grow: bool) -> Callable[[Phrase, Formula | None], Formula]:
    def change(phrase: Phrase, last: Formula | None) -> Formula:
        if phrase.word() == "by":
            return _changed(phrase, _needed(last), grow=grow)
        return _changed(phrase, phrase.primary(), grow=grow)

    return change


def _changed(phrase: Phrase, whole: Formula, *, grow: bool) -> Formula:
    if not phrase.accept(("by", "another"), ("by",)):
        raise Unreadable
    percent = phrase.percentage()
    if percent is not None:
        return grown(whole, percent) if grow else shrunk(whole, percent)
    return operation("+" if grow else "-", whole, phrase.expression())


def _apply(phrase: Phrase, last: Formula | None) -> Formula:
    phrase.skip("a", "an", "the")
    percent = phrase.percentage()
    if percent is None:
        raise Unreadable
    phrase.accept(("sales",))
    loss = phrase.word() in ("discount", "reduction", "deduction", "rebate", "cut")
    if not loss and phrase.word() not in (
        "tax",
        "vat",
        "tip",
        "increase",
        "markup",
        "surcharge",
        "interest",
        "raise",
        "fee",
    ):
        raise Unreadable
    phrase.at += 1
    whole = phrase.expression() if phrase.accept(("to",), ("on",)) else _needed(last)
    return shrunk(whole, percent) if loss else grown(whole, percent)


def _round(phrase: Phrase, last: Formula | None) -> Formula:
    phrase.accept(("off",), ("up",), ("down",))
    value = _needed(last) if phrase.ended() or phrase.word() == "to" else phrase.expression()
    if phrase.accept(("to", "the", "nearest")):
        steps = {"ten": 10, "10": 10, "hundred": 100, "100": 100, "thousand": 1000, "1000": 1000, "5": 5}
        nearest = steps.get(phrase.word(), 1)
        phrase.at += 1
        phrase.skip("number", "integer", "dollar")
        return (
            operation("round", value)
            if nearest == 1
            else operation("*", operation("round", operation("/", value, number(nearest))), number(nearest))
        )
    if phrase.accept(("to",)):
        places = phrase.primary()
        phrase.skip("decimal", "decimals", "places", "place", "digits", "digit", "after", "the", "point")
        return operation("round", value, places)
    return operation("round", value)


_ORDERS: dict[str, Callable[[Phrase, Formula | None], Formula | None]] = {
    "add": _add,
    "adding": _add,
    "sum": _add,
    "subtract": _subtract,
    "subtracting": _subtract,
    "deduct": _subtract,
    "remove": _subtract,
    "take": _take,
    "knock": _take,
    "multiply": _multiply,
    "multiplying": _multiply,
    "divide": _divide,
    "dividing": _divide,
    "split": _divide,
    "share": _divide,
    "double": _scale("*", 2),
    "doubling": _scale("*", 2),
    "triple": _scale("*", 3),
    "tripling": _scale("*", 3),
    "quadruple": _scale("*", 4),
    "halve": _scale("/", 2),
    "halving": _scale("/", 2),
    "square": _scale("**", 2),
    "squaring": _scale("**", 2),
    "cube": _scale("**", 3),
    "raise": _raise,
    "increase": _change(grow=True),
    "grow": _change(grow=True),
    "decrease": _change(grow=False),
    "reduce": _change(grow=False),
    "lower": _change(grow=False),
    "cut": _change(grow=False),
    "discount": _change(grow=False),
    "apply": _apply,
    "round": _round,
}
