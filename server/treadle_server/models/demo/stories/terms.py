"""How a number adds to the total of a story."""

import re
from dataclasses import replace

from treadle_server.models.demo.arithmetic.formulas import operation
from treadle_server.models.demo.stories.quantities import MONEY, TIMES, Quantity, converted
from treadle_server.models.demo.stories.rates import (
    Unexplained,
    plain_value,
)
from treadle_server.models.demo.stories.signs import (
    BUY,
    HELD,
    LOSS,
    MADE,
    cue_of,
)
from treadle_server.models.demo.stories.state import (
    State,
)


def add_term(state: State, item: Quantity, *, met: bool = False) -> None:
    if item.after.startswith("of us") and state.value is not None:
        raise Unexplained(plain_value(item))
    sign, certain = _sign(state, item)
    state.counted = item.counted or state.counted
    if (
        item.unit == MONEY
        and state.unit not in ("", MONEY)
        and state.value is not None
        and re.search(r"\b(?:how much|money|revenue|earn|cost|income)\b", state.question)
    ):
        state.value = None
    if state.value is None:
        state.value, state.unit, state.per = item.value, item.unit, item.per
        state.held = bool(HELD.search(item.before)) and not re.search(
            r"\b(?:buys?|bought|pays?|paid)\b", item.before
        )
        state.terms, state.losing, state.term_sentence = [item.value], False, item.sentence
        state.made = bool(MADE.search(item.before))
        return
    alike = not item.asked and item.unit in ("", state.unit)
    if not certain and alike and state.made and item.sentence == state.term_sentence:
        sign, certain = 1, True
    if not certain and alike and re.search(r"\b(?:left|remain\w*)\b", state.question):
        sign, certain = -1, True
    if not certain and not met and not _listed_with(state, item):
        raise Unexplained(plain_value(item))
    state.term_sentence = item.sentence
    if item.unit and state.unit and item.unit != state.unit:
        item = _alike(state, item)
    state.terms.append(item.value)
    state.keep(operation("-" if sign < 0 else "+", state.value, item.value), state.unit or item.unit)


def _listed_with(state: State, item: Quantity) -> bool:
    """Whether the story lists the number beside the one before: `3 km on Monday, 4 km on Tuesday`."""
    same = (
        not item.unit
        or not state.unit
        or item.unit == state.unit
        or converted(item.value, item.unit, state.unit) is not None
    )
    totalled = re.search(r"\b(?:total|altogether|in all|combined|all together)\b", state.question)
    meant = re.search(r"\b(?:sum|average|mean|overall)\b", state.question)
    beside = item.sentence == state.term_sentence and re.search(
        r"\bhow (?:much|many|far|long)\b", state.question
    )
    return not item.asked and bool(totalled or (same and (meant or beside)))


def _alike(state: State, item: Quantity) -> Quantity:
    """The quantity in the unit of the total; other things are counted together unless money is mixed in."""
    changed = converted(item.value, item.unit, state.unit)
    if changed is not None:
        return replace(item, value=state.agenda.value(changed), unit=state.unit)
    if MONEY in (item.unit, state.unit) or item.unit in TIMES or state.unit in TIMES:
        raise Unexplained(plain_value(item))
    return item


_LISTED = re.compile(r"(?:each|apiece)?,? ?(?:,? ?(?:and|plus)?(?: another| also| a| the)?)? ?")


def _sign(state: State, item: Quantity) -> tuple[int, bool]:
    """1 or -1, and whether a word says so."""
    clause = re.split(r"\b(?:but|then|who|and)\b|[,;]", item.before)[-1]
    tail = re.split(r"\b(?:and|but|then|so|while)\b|[,;.?]", item.after)[0]
    certain = bool(_LISTED.fullmatch(item.before)) or "plus" in clause
    gained = re.search(
        r"^(?:\w+ )?(?:\w+ )?(?:get on|got on|board|join|arrive|come|came|return(?:ed)?|(?:are|is|were|was) "
        r"(?:added|bought|delivered|returned|received|put in))",
        tail,
    )
    lost = LOSS.search(tail) and re.search(
        r"\b(?:are|is|were|was|broken?|rotten|of them|get off|got off|leave|left|die|get|go|"
        r"absent|missing|damaged|defective|empty|sick|sold|been|died|dies|broke|wilted|escaped|melted|popped|expired|burnt|burned|spoiled)\b",
        tail,
    )
    own, earlier = cue_of(clause), cue_of(item.before)
    if re.search(r"^(?:off|discount|coupon|voucher|rebate)\b", tail):
        state.losing, certain = True, True
    elif own:
        state.losing, certain = _cued(state, item, clause, own) < 0, True
        state.losing = state.losing or bool(lost and own > 0 and re.search(r"\b(?:are|were|is|was)\b", tail))
    elif gained or lost:
        state.losing, certain = not gained, True
    elif earlier:
        state.losing, certain = _cued(state, item, item.before, earlier) < 0, True
    elif (state.losing and clause.strip() in ("", "another", "also", "a")) or item.after.startswith("more"):
        certain = True
    return (-1 if state.losing else 1), certain


def _cued(state: State, item: Quantity, text: str, sign: int) -> int:
    """The sign of a verb in view of money: spending adds up unless there was money to spend."""
    if item.unit == MONEY and re.search(r"\b(?:sells?|sold)\b", text):
        return 1
    if state.held and state.unit in (MONEY, "") and item.unit in (MONEY, "") and BUY.search(text):
        return -1
    given = re.search(r"\b(?:gives?|gave|lost|loses?|discount|coupon|deduct\w*)\b", text)
    return (
        1
        if not state.held
        and not given
        and re.search(r"\b(?:spen(?:ds?|t)|pays?|paid|costs?|bills?|rent)\b", text)
        else sign
    )
