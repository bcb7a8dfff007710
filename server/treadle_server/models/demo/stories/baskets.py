"""Word problems of prices: several goods, a fee and a rate, a discount on everything."""

import re

from treadle_server.models.demo.arithmetic.formulas import Formula, number, operation, total
from treadle_server.models.demo.arithmetic.words import stem

NUM = r"(?<![\d.])(\d+(?:\.\d+)?)(?![\d.]*%)(?![\d.])"
"""A number that is no percentage."""

_FIXED = (
    r"(?:base|basic|fixed|flat|standing|unlock\w*|call-?out|booking|entry|entrance|start\w*|sign-?up|joining|"
    r"set-?up|delivery|initial|service|monthly|a month|per month|fee|charge|plus)"
)


def fee_and_rate(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """A fixed fee and a price per unit, for so many units."""
    money = r"(?P<money>dollars?|euros?|pounds?|francs?|cents?|pence)?"
    rate = re.search(
        rf"{NUM} ?{money} (?:per|a|an|for each|for every|each) (?P<unit>[a-z]+)\b(?![^.?]*{_FIXED} fee)", text
    )
    rates = [
        found
        for found in re.finditer(
            rf"{NUM} ?{money} (?:per|a|an|for each|for every|each) (?P<unit>[a-z]+)\b", text
        )
        if found["unit"]
        not in ("base", "fixed", "flat", "booking", "delivery", "month", "call", "fee", "one")
    ]
    if not rate or len(rates) != 1 or len(numbers) != 3 or percents or not re.search(rf"\b{_FIXED}\b", text):
        return None
    unit = stem(rates[0]["unit"])
    counts = [
        found
        for found in re.finditer(rf"{NUM}[ -]([a-z]+)", text)
        if stem(found.group(2)) == unit and found.start() != rates[0].start()
    ]
    if len(counts) != 1:
        return None
    used = {rates[0].start(), counts[0].start()}
    fixed = next(found for found in re.finditer(NUM, text) if found.start() not in used)
    if re.match(r" (?:cents?|pence)\b", text[fixed.end() :]) or not re.search(
        r"\b(?:how much|cost|pay|price|charge|bill|what)\b", question
    ):
        return None
    times = operation("*", number(rates[0].group(1)), number(counts[0].group(1)))
    small = (rates[0]["money"] or "").startswith(("cent", "pence"))
    return operation("+", number(fixed.group(1)), operation("/", times, number(100)) if small else times)


def basket(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """Several goods with a price of each, and how many of each are bought."""
    unit = (
        r"(?:(?:a|per|for a|for one|each|apiece|/) ?(?:kilos?|kg|litre|liter|pound|piece|bag|box|"
        r"metre|meter)?)?"
    )
    prices = {
        stem(found.group(1)): (found.group(2), found.start(2))
        for found in re.finditer(
            rf"\b(?!much\b|many\b|what\b)([a-z]+) (?:costs?|are|is|at|for|sells? for) (?:only )?{NUM}"
            rf"(?: (?:dollars?|euros?|pounds?|francs?|cents?))? ?{unit}\b",
            text,
        )
    }
    counts = {
        stem(found.group(2)): (found.group(1), found.start(1))
        for found in re.finditer(
            rf"{NUM} (?:(?:kilos?|kg|litres?|liters?|pounds?|pieces?|bags?|boxes|metres?|meters?) "
            rf"of )?([a-z]+)",
            text,
        )
        if found.start(1) not in {at for _, at in prices.values()}
    }
    return _priced(prices, counts, text, question, numbers, percents)


_KINDS = (
    r"(?P<kind>[a-z]+) (?P<noun>tickets?|seats?|rooms?|cards?|passes|meals?|coffees?|teas?|pens|"
    r"shirts?|balls?)"
)


def kinds(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """`Adult tickets are 12 and child tickets 7`: one kind of thing at several prices."""
    told = text[: text.rfind(question)] if question in text else text
    priced = rf"{_KINDS} (?:costs?|are|is|at|for|sells? for)? ?{NUM}"
    prices = {found["kind"]: (found.group(3), found.start(3)) for found in re.finditer(priced, told)}
    counted = re.finditer(rf"{NUM} {_KINDS}", question)
    counts = {found["kind"]: (found.group(1), found.start(1)) for found in counted}
    return _priced(prices, counts, text, question, numbers, percents)


def _priced(
    prices: dict[str, tuple[str, int]],
    counts: dict[str, tuple[str, int]],
    text: str,
    question: str,
    numbers: list[str],
    percents: list[str],
) -> Formula | None:
    """The total of a basket, if it has a price and a count of each thing and no other number."""
    if len(prices) < 2 or set(prices) != set(counts) or len(numbers) != 2 * len(prices) or percents:
        return None
    if (
        not re.search(r"\b(?:cost|pay|total|altogether|price|spend|bill|how much)\b", question)
        or "left" in question
    ):
        return None
    if re.search(r"\bcents?\b", text) and re.search(r"\b(?:dollars?|euros?)\b", text):
        return None
    return total([operation("*", number(counts[name][0]), number(prices[name][0])) for name in prices])


def group_discount(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """A percentage off everything, of which each thing has its price."""
    told = re.findall(rf"\b(?:is|are|costs?|at|for|priced at) {NUM}", text)
    every = re.search(r"\b(?:all|both|everything|altogether|together|total|whole|order|entire)\b", text)
    cut = re.search(r"\b(?:discount|off|reduction|rebate)\b", text)
    if numbers[-1:] == [str(len(numbers) - 1)] and len(told) == len(numbers) - 1:
        numbers = numbers[:-1]
    if not every or not cut or len(percents) != 1 or len(numbers) < 2 or told != numbers:
        return None
    if re.search(r"\b(?:each|apiece|per|times)\b|\bdiscount on (?:the|a) [a-z]+\b", text):
        return None
    left = operation("-", number(100), number(percents[0]))
    prices = total([number(price) for price in numbers])
    return operation("/", operation("*", prices, left), number(100))
