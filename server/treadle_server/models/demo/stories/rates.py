"""Which numbers of a story belong together: prices and counts, contents and containers, shares and wholes."""

import re
from dataclasses import replace

from treadle_server.models.demo.arithmetic.formulas import Number, number, operation
from treadle_server.models.demo.arithmetic.words import stem, word_set
from treadle_server.models.demo.stories.quantities import MONEY, TIMES, Quantity, converted
from treadle_server.models.demo.stories.signs import SHARES
from treadle_server.models.demo.tasks import Agenda


class Unexplained(Exception):  # noqa: N818 - no fault, only a story beyond the rules
    """A story with a number whose part in it is unclear."""


def hardened(told: list[Quantity]) -> list[Quantity]:
    """`a pen costs 3` is a rate if pens are counted somewhere, `a tank holds 500 litres` is none."""
    done = []
    for item in told:
        units = {other.unit for other in told if other is not item and other.kind == "count"}
        if (
            item.per
            and not item.soft
            and item.per not in (*TIMES, "each")
            and item.unit == MONEY
            and item.per not in units
            and len(units - {MONEY}) == 1
        ):
            item = replace(item, per="each")
        if item.soft:
            item = replace(item, per=item.per if item.per in units else "", soft=False)
        goods = re.search(r"(?:^|\s)([a-z]+s) (?:at|for|cost|sell for)(?: only)?$", item.before)
        buyers = re.match(r"^(?:[a-z]+ )?for (?:an? |each |every |one )?([a-z]+)", item.after)
        for match in (
            goods if item.per == "each" else None,
            buyers if item.unit == MONEY and not item.per else None,
        ):
            if match and stem(match.group(1)) in units:
                item = replace(item, per=stem(match.group(1)))
        done.append(item)
    return _turned(done)


def _turned(told: list[Quantity]) -> list[Quantity]:
    """Puts the whole before its share: `60% of its 45 games`, `15% is added to a bill of 80`."""
    done: list[Quantity] = []
    for item in told:
        share = done[-1] if done and done[-1].kind == "share" and done[-1].sentence == item.sentence else None
        if share is not None and item.kind == "count":
            of = _OF_COUNT.fullmatch(item.before)
            if of or len(done) == 1:
                done[-1:] = [
                    replace(item, before=""),
                    replace(share, after=item.after if of else share.after),
                ]
                continue
        done.append(item)
    return done


_OF_COUNT = re.compile(r"of(?: (?:its|the|his|her|their|our|my|all|all the|a|about))*")


def without_headcounts(told: list[Quantity]) -> list[Quantity]:
    """Leaves out the `three` of `85, 90 and 77 on three tests`: it only counts the numbers beside it."""
    kept = []
    for item in list(told):
        beside = [
            other
            for other in told
            if other.sentence == item.sentence and other is not item and other.kind == "count"
        ]
        alone = not any(other.unit == item.unit for other in told if other is not item)
        alone = alone and len({other.unit for other in beside} - {""}) < 2
        counts = (
            isinstance(item.value, Number) and item.value.text == str(len(beside)) and item.kind == "count"
        )
        if (
            counts
            and len(beside) > 1
            and alone
            and not item.per
            and item.unit not in (MONEY, *TIMES)
            and all(other.per in ("", item.unit) for other in beside)
        ):
            told = [replace(other, per="") if other in beside else other for other in told]
            continue
        kept.append(item)
    return [item for item in told if any(item.value is other.value for other in kept)]


def with_ratios(told: list[Quantity], question: str, agenda: Agenda) -> list[Quantity]:
    """Joins `6 litres per 100 km` and `3 eggs for 12 cookies` to rates."""
    done: list[Quantity] = []
    index = 0
    while index < len(told):
        left, right = told[index], told[index + 1] if index + 1 < len(told) else None
        ratio = _ratio(left, right, told[index + 2 :], question, agenda) if right is not None else None
        done.append(ratio or left)
        index += 2 if ratio else 1
    return done


_RATIO_WORDS = word_set(
    """
    for in with on to makes make serves takes take costs cost cover covers needs need feeds yields uses
    is are a
    """
)


def _ratio(
    left: Quantity, right: Quantity, later: list[Quantity], question: str, agenda: Agenda
) -> Quantity | None:
    """The rate that two counts beside each other make, in the direction that the question needs."""
    between = right.before.split()[-1:]
    counts = left.kind == right.kind == "count" and left.sentence == right.sentence
    if not counts or left.spread or not between or left.unit == right.unit:
        return None
    per = between[0] in ("per", "every", "each") and left.per in ("", "each")
    loose = between[0] in _RATIO_WORDS and not left.per and not right.per
    again = {item.unit for item in later if item.kind == "count"} - {""}
    again |= {stem(noun) for noun in re.findall(r"\b(?:a|one|1|each|per) (?:single )?([a-z]+)", question)}
    asked = {stem(word) for word in re.findall(r"[a-z]+", question)}
    money = right.unit == MONEY or (not right.unit and between[0] in ("costs", "cost", "for"))
    if per or (loose and right.unit in again and _asked_for(left, asked)):
        value = agenda.value(operation("/", left.value, right.value))
        return replace(left, value=value, per=right.unit, after=right.after)
    if loose and left.unit in again and (money or _asked_for(right, asked)):
        value = agenda.value(operation("/", right.value, left.value))
        return replace(
            left, value=value, unit=MONEY if money else right.unit, per=left.unit, after=right.after
        )
    return None


def _asked_for(item: Quantity, asked: set[str]) -> bool:
    """Whether the question is for more of this: by its unit, its stuff, or `how far` and `how long`."""
    stuff = {
        stem(word) for word in re.findall(r"[a-z]+", re.split(r"[,;.?]|\b(?:for|in|to|and)\b", item.after)[0])
    } - {"of", "a", "the"}
    far = item.unit in ("mile", "km", "metre", "foot") and "far" in asked
    return (
        item.unit == MONEY
        or bool(({item.unit} | stuff) & asked)
        or far
        or (item.unit in TIMES and "long" in asked)
    )


def combined(quantities: list[Quantity], agenda: Agenda) -> list[Quantity]:
    """Multiplies rates by the counts they belong to within one sentence."""
    items = list(quantities)
    while True:
        pair = _pair(items)
        if pair is None:
            return _spread(items, agenda)
        rate, count = pair
        merged = _product(items[rate], items[count], agenda)
        first, second = sorted(pair)
        before = items[first].before
        items[first] = replace(
            merged, before=before, after=items[second].after if second == first + 1 else merged.after
        )
        del items[second]


def _pair(items: list[Quantity]) -> tuple[int, int] | None:
    for at, rate in enumerate(items):
        if not rate.per or rate.kind != "count":
            continue
        order = [*range(at - 1, -1, -1), *range(at + 1, len(items))]
        for other in order:
            count = items[other]
            if count.kind != "count" or count.spread:
                continue
            anonymous = (
                rate.per == "each"
                and other < at
                and count.unit not in (MONEY, *TIMES)
                and not count.per
                and at - other == 1
            )
            if anonymous and SHARES.search(count.before) and not count.unit:
                continue
            if anonymous or (rate.per != "each" and _same(rate.per, count)):
                return at, other
    return None


def _same(per: str, count: Quantity) -> bool:
    if count.unit == per:
        return True
    return bool(per in TIMES and count.unit in TIMES and converted(number(1), count.unit, per))


def _product(rate: Quantity, count: Quantity, agenda: Agenda) -> Quantity:
    amount = count.value
    if rate.per != "each" and count.unit != rate.per:
        amount = agenda.value(converted(count.value, count.unit, rate.per) or count.value)
    value = agenda.value(operation("*", amount, rate.value), rate.unit)
    return replace(
        count,
        value=value,
        unit=rate.unit,
        per=count.per,
        asked=count.asked or rate.asked,
        spread=False,
        counted=count.value,
    )


def _spread(items: list[Quantity], agenda: Agenda) -> list[Quantity]:
    """`8 workers each earn 90`: the count multiplies what follows."""
    done: list[Quantity] = []
    for item in items:
        if done and done[-1].spread and item.kind == "count":
            value = agenda.value(operation("*", done[-1].value, item.value), item.unit)
            item = replace(
                item,
                value=value,
                before=done[-1].before,
                per=item.per if item.per not in ("each", done[-1].unit) else "",
            )
            done[-1] = item
        else:
            done.append(item)
    return done


def plain_value(item: Quantity) -> str:
    text = (
        item.value.text
        if isinstance(item.value, Number)
        else "a share"
        if item.kind == "share"
        else "a product"
    )
    return f"{text} {item.unit if item.unit != MONEY else 'in money'}".strip()
