"""Where a story shares out or asks for the other side of a rate."""

import re

from treadle_server.models.demo.arithmetic.formulas import number, operation
from treadle_server.models.demo.arithmetic.words import stem
from treadle_server.models.demo.stories.quantities import TIMES, Quantity
from treadle_server.models.demo.stories.signs import (
    SHARES,
)
from treadle_server.models.demo.stories.state import (
    State,
)

_CONTAINERS = (
    r"groups|boxes|bags|packs|rows|teams|cartons|packets|bundles|crates|trays|piles|bunches|batches|vases|"
    r"jars|baskets|pieces|bottles|buses|tables|shelves|lengths|sets|stacks|cups|glasses|containers"
)
_GROUPS = re.compile(
    rf"\b(?:into|in) (?:[a-z]+ )?(?:{_CONTAINERS})(?: (?:each )?(?:of|that hold|holding|with|containing))?$"
)
_PEOPLE = re.compile(
    r"person|friend|child|kid|student|pupil|player|worker|guest|sibling|brother|sister|member|roommate|"
    r"colleague|teammate|neighbour|neighbor|family|cousin|employee|classmate|winner|partner|adult|boy|girl|"
    r"flatmate|tenant|owner|volunteer|class|classroom|team|shelter|school"
)
_AMONG = re.compile(r"\b(?:among|amongst|between|by|across|into)(?: the| his| her| their)?$")
_SHARERS = re.compile(
    r"^(?:[a-z]+ ){0,4}(?:want to |will |decide to |agree to |have to )?(?:equally |evenly )?"
    r"(?:shar|split|divid)"
)


def shares(state: State, item: Quantity, later: str) -> bool:
    """`among 5 shelters`, `split 4 ways`, `into boxes of 12`."""
    near = item.before
    if state.value is not None and _GROUPS.search(near):
        unit = stem(re.findall(rf"(?:{_CONTAINERS})", near)[-1])
        state.keep(operation("/", state.value, item.value), unit)
        return True
    together = bool(_PEOPLE.fullmatch(item.unit)) and bool(SHARES.search(near)) and near.endswith("with")
    if not (together or _among(item) or _subject_shares(state, item, later)):
        return False
    count = state.agenda.value(operation("+", item.value, number(1))) if together else item.value
    if state.value is None:
        state.sharers.append(count)
    else:
        state.keep(operation("/", state.value, count))
        state.per = ""
    return True


def _among(item: Quantity) -> bool:
    """Whether something is shared among this many, or this many ways."""
    shared, person = SHARES.search(item.before), _PEOPLE.fullmatch(item.unit)
    if shared and item.after.startswith(("ways", "equal")):
        return True
    return bool(_AMONG.search(item.before)) and bool(shared or person)


def _subject_shares(state: State, item: Quantity, later: str) -> bool:
    """Whether these many are the ones who share: `3 friends split a bill`."""
    if item.after.startswith("of us"):
        asked = re.search(r"\b(?:each|per person|everyone)\b", state.question)
        return bool(asked) and bool(SHARES.search(later))
    return bool(_PEOPLE.fullmatch(item.unit)) and bool(_SHARERS.search(item.after))


def asks_division(question: str, rate: Quantity) -> bool:
    """Whether `how many hours` or `how long` asks for what the rate is per."""
    if rate.per in TIMES and re.search(r"\bhow long\b|\bwhen\b", question):
        return True
    match = re.search(r"\bhow (?:many|much)(?: [a-z]+)?? ([a-z]+)\b", question)
    asked = {stem(word) for word in re.findall(r"[a-z]+", question.partition("how many")[2])[:3]}
    return bool(match) and (rate.per in asked or bool(rate.per in TIMES and asked & set(TIMES)))
