"""Word problems: a told story as a chain of calculations, or nothing if a number stays unexplained."""

import re
from collections.abc import Sequence
from dataclasses import replace

from treadle_server.models.demo.arithmetic.formulas import Formula, Number, operation
from treadle_server.models.demo.arithmetic.words import Token, plain
from treadle_server.models.demo.stories.dividing import (
    asks_division,
    shares,
)
from treadle_server.models.demo.stories.ends import conclude
from treadle_server.models.demo.stories.quantities import MONEY, TIMES, Quantity, converted, quantities_in
from treadle_server.models.demo.stories.rates import (
    Unexplained,
    combined,
    hardened,
    plain_value,
    with_ratios,
    without_headcounts,
)
from treadle_server.models.demo.stories.signs import (
    INCOME,
    cue_of,
)
from treadle_server.models.demo.stories.state import (
    State,
    take_share,
)
from treadle_server.models.demo.stories.terms import add_term
from treadle_server.models.demo.tasks import Agenda

_TENDER = re.compile(
    r"\b(?:pays? with|paid with|paying with|hands? over|handed|gives? the (?:cashier|clerk|"
    r"seller|shopkeeper)|gave the (?:cashier|clerk|seller|shopkeeper)|change (?:from|out "
    r"of|for|of|do|does|will|would)|using an?|uses an?|with an?|from an?|hands? the "
    r"(?:cashier|clerk)|gives? an?)\b"
)


def read_story(sentences: Sequence[Sequence[Token]], agenda: Agenda) -> bool:
    """Adds the calculations of a story that ends in a question; raises Unexplained."""
    asked = [index for index, tokens in enumerate(sentences) if _is_question(tokens)]
    if not asked:
        return False
    question = plain(sentences[asked[0]])
    told: list[Quantity] = []
    for index, tokens in enumerate(sentences[: asked[0] + 1]):
        told += quantities_in(tokens, index, asked=index == asked[0])
    if any("overtime" in item.after for item in told):
        raise Unexplained("overtime")
    told = with_ratios(without_headcounts(hardened(told)), question, agenda)
    quantities: list[Quantity] = []
    for index in range(asked[0] + 1):
        quantities += combined([item for item in told if item.sentence == index], agenda)
    if (len(told) < 2 and not (told and told[0].per)) or all(item.kind != "count" for item in told):
        return False
    state = State(agenda, question)
    queue = _ordered(quantities)
    for index, quantity in enumerate(queue):
        _tell(state, quantity, queue[index + 1 :])
    conclude(state)
    return state.value is not None and not isinstance(state.value, Number)


def _is_question(tokens: Sequence[Token]) -> bool:
    text = plain(tokens)
    return bool(
        re.search(
            r"\?$|^(?:how|what|find|calculate|work out|determine|compute|tell)\b|\bhow (?:much|"
            r"many|long|far|old|fast)\b",
            text,
        )
    )


def _divisor(item: Quantity) -> bool:
    """`how many 250 ml glasses`: what the total is to be divided by."""
    return item.asked and item.before.endswith("how many")


def _ordered(quantities: list[Quantity]) -> list[Quantity]:
    """Story order; a condition inside the question (`if she started with 1000`) comes first."""
    first = [
        item
        for item in quantities
        if (
            item.asked
            and re.search(r"\b(?:start\w*|begin\w*|began|already had|initially|originally)\b", item.before)
        )
        or (
            item.asked
            and re.search(
                r"^(?:\w+ ){0,3}(?:at the (?:start|beginning)|at first|initially|originally|to start with)",
                item.after,
            )
        )
    ]
    last = [item for item in quantities if _divisor(item)]
    return [*first, *(item for item in quantities if item not in first and item not in last), *last]


def _tell(state: State, item: Quantity, rest: list[Quantity]) -> None:
    if item.sentence != state.last_sentence:
        state.losing, state.last_sentence = False, item.sentence
    if INCOME.search(item.before + " " + item.after):
        state.income = True
    if item.kind == "share":
        take_share(state, item, rest)
    elif item.kind == "multiple":
        _multiply(state, item)
    elif item.unit == "time" and state.value is not None:
        state.keep(operation("*", state.value, item.value))
        state.per = item.per
    elif item.per:
        _take_rate(state, item)
    else:
        _take_count(state, item, rest)


def _multiply(state: State, item: Quantity) -> None:
    if state.terms and re.match(r"^as (?:many|much)\b(?!.* as )", item.after):
        add_term(
            state,
            replace(
                item,
                value=state.agenda.value(operation("*", state.terms[-1], item.value), state.unit),
                unit=state.unit,
            ),
            met=True,
        )
        return
    if state.value is None or " as " in f" {item.after} ":
        raise Unexplained(plain_value(item))
    state.keep(operation("*", state.value, item.value))


def _take_rate(state: State, item: Quantity) -> None:
    """A rate whose count stands in another sentence."""
    if (
        state.value is not None
        and state.unit
        and (state.unit == item.per or (item.per == "each" and state.unit not in (MONEY, *TIMES)))
    ):
        state.keep(operation("*", state.value, item.value), item.unit)
        state.held = False
        state.terms = [state.value]
        return
    if state.value is not None and item.unit in TIMES and item.per in TIMES:
        state.keep(operation("*", state.value, item.value))
        return
    for index, rate in enumerate(state.rates):
        if rate.unit == item.per or rate.per == item.unit:
            outer = item if rate.per == item.unit else rate
            value = state.agenda.value(operation("*", rate.value, item.value))
            inner = rate if outer is item else item
            state.rates[index] = replace(item, value=value, unit=inner.unit, per=outer.per)
            return
    state.rates.append(item)


def _take_count(state: State, item: Quantity, rest: list[Quantity]) -> None:
    _promote_rate(state, item)
    if (
        _TENDER.search(item.before[-40:])
        and item.unit in (MONEY, "", "note", "bill")
        and re.search(r"\bchange\b|\bget back\b|\breceive back\b", state.question + item.before)
    ):
        state.tender = item.value
    elif _divisor(item) and state.value is not None:
        changed = converted(state.value, state.unit, item.unit)
        whole = state.agenda.value(changed) if changed is not None else state.value
        state.keep(operation("/", whole, item.value), "")
    elif shares(state, item, " ".join(other.after for other in rest if other.sentence == item.sentence)) or (
        state.per and item.unit and _rate_times(state, item)
    ):
        pass
    elif not _meets_rate(state, item):
        add_term(state, item)


def _promote_rate(state: State, item: Quantity) -> None:
    """`16 eggs a day` is the total, per day, when other eggs are added or taken next."""
    rate = state.rates[-1] if state.rates and state.value is None else None
    alike = rate is not None and rate.per in TIMES and item.unit in ("", rate.unit) and not item.asked
    if rate is not None and alike and cue_of(item.before) < 0:
        state.rates.pop()
        state.value, state.unit, state.per, state.terms = rate.value, rate.unit, rate.per, [rate.value]


def _rate_times(state: State, item: Quantity) -> bool:
    """The total is per week, and the count is of weeks."""
    amount = _amount_in(state, item, state.per)
    if amount is None or state.value is None:
        return False
    state.keep(operation("*", state.value, amount))
    state.per = ""
    return True


def _amount_in(state: State, item: Quantity, unit: str) -> Formula | None:
    if item.unit == unit:
        return item.value
    changed = (
        converted(item.value, item.unit, unit)
        if item.unit in TIMES or item.unit in ("km", "kg", "metre", "litre")
        else None
    )
    return state.agenda.value(changed) if changed is not None else None


def _meets_rate(state: State, item: Quantity) -> bool:
    """A count that waiting rates are for: all of those per its unit, or one that says only `each`."""
    named = [
        rate for rate in state.rates if rate.per != "each" and _amount_in(state, item, rate.per) is not None
    ]
    loose = [rate for rate in state.rates if rate.per == "each" and item.unit not in (MONEY, *TIMES)]
    again = [rate for rate in state.used_rates if rate.per != "each" and rate.per == item.unit]
    for rate in named or loose[:1] or again[-1:]:
        amount = item.value if rate.per == "each" else _amount_in(state, item, rate.per)
        assert amount is not None
        value = state.agenda.value(operation("*", amount, rate.value), rate.unit)
        if rate in state.rates:
            state.rates.remove(rate)
            state.used_rates.append(rate)
        verbs = f"{rate.before} {rate.after}" if item.asked or item.sentence != rate.sentence else ""
        add_term(
            state,
            replace(item, value=value, unit=rate.unit, before=f"{verbs} {item.before}", per=""),
            met=True,
        )
    if named or loose or again:
        return True
    for rate in state.rates:
        if item.unit and item.unit == rate.unit and asks_division(state.question, rate):
            state.rates.remove(rate)
            state.value = state.agenda.value(operation("/", item.value, rate.value), rate.per)
            state.unit = rate.per
            return True
    return False
