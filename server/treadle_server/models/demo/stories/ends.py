"""How a story ends: what its question wants made of the total."""

import re

from treadle_server.models.demo.arithmetic.formulas import Formula, number, operation, total
from treadle_server.models.demo.arithmetic.words import stem
from treadle_server.models.demo.stories.dividing import asks_division
from treadle_server.models.demo.stories.quantities import MONEY, TIMES, Quantity, converted
from treadle_server.models.demo.stories.rates import (
    Unexplained,
    plain_value,
)
from treadle_server.models.demo.stories.signs import (
    LOSS,
)
from treadle_server.models.demo.stories.state import (
    State,
)


def conclude(state: State) -> None:
    """Answers the question from the total: change, average, share of each, another unit."""
    question = state.question
    _use_waiting(state)
    if state.value is None:
        return
    if re.search(r"\b(?:average|mean)\b", question) and len(state.terms) > 1 and not state.sharers:
        state.keep(operation("/", state.agenda.value(total(state.terms)), number(len(state.terms))))
    for count in state.sharers:
        if state.value is not None:
            state.keep(operation("/", state.value, count))
    if state.tender is not None and state.value is not None:
        state.keep(operation("-", state.tender, state.value))
    if state.per and state.value is not None:
        spans = re.findall(
            r"\b(?:in|per|each|every|for|a|over) (?:a |an |one |1 |the )?(?:full |whole |single "
            r")?(hour|day|week|month|year)\b",
            question,
        )
        span = next((span for span in reversed(spans) if span != state.per), "")
        amount = converted(number(1), span, state.per) if span else None
        if amount is not None:
            state.keep(operation("*", state.value, _simple(amount)))
    wanted = re.search(
        r"\bin (seconds|minutes|hours|days|weeks|months|kg|kilograms|grams|km|kilometers|"
        r"kilometres|meters|metres|litres|liters|ml|cents)\b|\bhow many (seconds|minutes|hours|"
        r"days|weeks|months|years|litres|liters|km|kilometers|kilometres|kg|kilograms|grams)\b",
        question,
    )
    if wanted and state.unit and state.value is not None:
        changed = converted(state.value, state.unit, stem(wanted.group(1) or wanted.group(2)))
        if changed is not None:
            state.keep(changed, stem(wanted.group(1) or wanted.group(2)))


def _sell(state: State, rate: Quantity) -> None:
    """`sells them for 3.50 each` of things that were bought: a profit, or nothing that is clear."""
    if state.counted is None or state.value is None or "profit" not in state.question:
        raise Unexplained(plain_value(rate))
    revenue = state.agenda.value(operation("*", state.counted, rate.value), MONEY)
    state.keep(operation("-", revenue, state.value), MONEY)


def _simple(amount: Formula) -> Formula:
    """`1 * 12` as 12."""
    operands = getattr(amount, "operands", ())
    return (
        operands[1]
        if operands and operands[0] == number(1) and getattr(amount, "symbol", "") == "*"
        else amount
    )


def _asks_for_one(rate: Quantity, question: str) -> bool:
    """Whether the question is for the rate itself: `how much is a single pen`, or for a span of time."""
    one = re.search(rf"\b(?:a|an|one|1|single|each|per) (?:single )?{re.escape(rate.per)}\b", question)
    return rate.per in TIMES or bool(one)


def _use_waiting(state: State) -> None:
    """Rates that no count was told for: a single one may still fit the total."""
    if state.value is None and len(state.rates) == 1 and _asks_for_one(state.rates[0], state.question):
        rate = state.rates.pop()
        state.value, state.unit, state.per = rate.value, rate.unit, rate.per
    for rate in state.rates:
        if state.value is None:
            raise Unexplained(plain_value(rate))
        if rate.unit == state.unit and asks_division(state.question, rate):
            state.keep(operation("/", state.value, rate.value), rate.per)
        elif rate.per == "each" and rate.unit == MONEY == state.unit:
            _sell(state, rate)
        elif rate.per == state.unit or (
            (amount := converted(state.value, state.unit, rate.per)) is None and rate.per == "each"
        ):
            state.keep(operation("*", state.value, rate.value), rate.unit)
        elif amount is not None:
            state.keep(operation("*", state.agenda.value(amount), rate.value), rate.unit)
        elif (
            rate.per in TIMES
            and rate.unit == state.unit
            and re.search(rf"\b(?:a|one|the|per|each|that|this|for the) {rate.per}\b", state.question)
        ):
            state.keep(
                operation("-" if LOSS.search(rate.before) and state.held else "+", state.value, rate.value)
            )
        else:
            raise Unexplained(plain_value(rate))
    state.rates = []
