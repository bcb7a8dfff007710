"""What a story amounts to so far, and how shares change it."""

import re
from dataclasses import dataclass, field

from treadle_server.models.demo.arithmetic.formulas import Formula, number, operation
from treadle_server.models.demo.arithmetic.words import stem, word_set
from treadle_server.models.demo.stories.quantities import MONEY, TIMES, Quantity
from treadle_server.models.demo.stories.rates import (
    Unexplained,
    plain_value,
)
from treadle_server.models.demo.stories.signs import (
    BUY,
    LOSS,
    direction_of,
    near_words,
)
from treadle_server.models.demo.tasks import Agenda


@dataclass(slots=True)
class State:
    """What the story amounts to so far."""

    agenda: Agenda
    question: str
    value: Formula | None = None
    unit: str = ""
    per: str = ""
    held: bool = False
    income: bool = False
    losing: bool = False
    base: Formula | None = None
    """Value before the last share was taken."""
    terms: list[Formula] = field(default_factory=list)
    rates: list[Quantity] = field(default_factory=list)
    used_rates: list[Quantity] = field(default_factory=list)
    """Rates that served a count already; the same price can serve another."""
    sharers: list[Formula] = field(default_factory=list)
    tender: Formula | None = None
    last_sentence: int = -1
    counted: Formula | None = None
    """How many things the last price was for."""
    direction: int = 0
    """Whether the last percentage was added or taken off."""
    term_sentence: int = -1
    """Sentence of the last number that was added or taken away."""
    made: bool = False
    """Whether the first number was made, picked or bought, so that others beside it were too."""
    settled: int = -1
    """Sentence whose shares the question chose from."""

    def keep(self, formula: Formula, unit: str | None = None) -> None:
        self.unit = self.unit if unit is None else unit
        self.value = self.agenda.value(formula, self.unit)


def take_share(state: State, item: Quantity, rest: list[Quantity]) -> None:
    """A percentage or fraction of what there is."""
    if state.value is None and state.rates and state.rates[-1].per in TIMES:
        rate = state.rates.pop()
        state.value, state.unit, state.per = rate.value, rate.unit, rate.per
    if state.value is None:
        raise Unexplained(plain_value(item))
    before, after = item.before, item.after
    near = near_words(item)
    if state.settled == item.sentence and not after.startswith(("of those", "of these", "of them")):
        return
    chosen = [
        other
        for other in rest
        if other.kind == "share" and other.sentence == item.sentence and _keeps_part(state, other, [])
    ]
    if chosen and not _keeps_part(state, item, []):
        return
    state.losing = (
        bool(LOSS.search(before))
        or direction_of(item, income=state.income) < 0
        or (state.held and bool(BUY.search(before)))
    )
    share = item.value
    whole = state.value
    state.base = whole
    part = _share_formula(whole, share)
    if _wants_part(state.question, near):
        state.keep(part)
    elif (direction := _direction(state, item)) and not re.match(r"of\b", after):
        state.direction = direction
        state.keep(_grown(whole, share) if direction > 0 else _left_over(whole, share))
    elif _keeps_part(state, item, rest):
        state.settled = item.sentence if _keeps_part(state, item, []) else -1
        state.keep(part)
    elif _taken(item) or _complement(state.question):
        state.keep(_left_over(whole, share))
    else:
        raise Unexplained(plain_value(item))


def _direction(state: State, item: Quantity) -> int:
    """Up or down; `and then by another 5%` goes the way of the share before."""
    again = re.search(
        r"\b(?:another|further|again|then) ?(?:by )?(?:a |an |another |a further )?$|\bby$", item.before
    )
    return direction_of(item, income=state.income) or (state.direction if again else 0)


def _taken(item: Quantity) -> bool:
    """Whether the share is said to go away, or to be something that the question is not about."""
    described = re.search(r"^(?:of\b|are\b|is\b|were\b|was\b|have\b|has\b)", item.after)
    rest = re.search(r"\bthe (?:rest|others?|remaining)\b", item.after)
    return bool(rest or LOSS.search(near_words(item)) or LOSS.search(item.before) or described)


def _complement(question: str) -> bool:
    return bool(
        re.search(r"\b(?:left|remain\w*|rest|other|not|without|keeps?|lose|lost|fail\w*)\b", question)
    )


def _wants_part(question: str, near: str) -> bool:
    """Whether the question is for the tip, tax or discount itself."""
    for word in ("tip", "tax", "discount", "interest", "commission", "raise", "deposit"):
        if re.search(rf"\b{word}\b", near) and re.search(rf"\b{word}\b", question):
            return not re.search(
                r"\b(?:after|with|including|includes?|total|final|pay|price|cost|left|before|"
                r"altogether|balance|worth)\b",
                question,
            )
    return False


_COMMON = word_set(
    """
    how many much of the be are is in them there do does a to and student he she they has have it his her
    their on for at who will can did i we you my our your what person total now was were with
    """
)


def _keeps_part(state: State, item: Quantity, rest: list[Quantity]) -> bool:
    """Whether the story goes on with the share itself and not with what it leaves over."""
    near = f"{item.before} {item.after}"
    ignored = _COMMON | {state.unit}
    asked = {stem(word) for word in re.findall(r"[a-z]+", state.question)}
    after = re.split(r"[,;.?]|\band\b", item.after)[0]
    told = {stem(word) for word in re.findall(r"[a-z]+", after)[:8]} - ignored
    verb = {stem(word) for word in re.findall(r"[a-z]+", item.before)[-3:]} - ignored
    if re.search(r"\b(?:not|n't|rest|remaining|remain|left|other|others|without)\b", state.question):
        return False
    if (told and len(told & asked) > len(told) / 2) or verb & asked:
        return True
    if any(other.per and other.unit == MONEY for other in rest) and re.search(
        r"\bs(?:ells?|old)\b", item.before
    ):
        return True
    later = [other.after for other in rest if other.kind == "share"]
    if any(re.search(r"\bof (?:those|these|them|the)\b", text) for text in later) and not LOSS.search(near):
        return True
    return bool(item.after.startswith(("of those", "of these")) and not LOSS.search(item.before))


def _share_formula(whole: Formula, share: Formula) -> Formula:
    upper, lower = _parts(share)
    return operation("/", whole if upper == number(1) else operation("*", whole, upper), lower)


def _left_over(whole: Formula, share: Formula) -> Formula:
    upper, lower = _parts(share)
    return operation("/", operation("*", whole, operation("-", lower, upper)), lower)


def _grown(whole: Formula, share: Formula) -> Formula:
    upper, lower = _parts(share)
    return operation("/", operation("*", whole, operation("+", lower, upper)), lower)


def _parts(share: Formula) -> tuple[Formula, Formula]:
    operands = getattr(share, "operands", (share, number(1)))
    return operands[0], operands[1]
