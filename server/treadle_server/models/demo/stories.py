"""Word problems: a told story as a chain of calculations, or nothing when a number of it stays unexplained."""

import re
from collections.abc import Sequence
from dataclasses import replace

from treadle_server.models.demo.formulas import Formula, number, operation, total
from treadle_server.models.demo.quantities import MONEY, TIMES, Quantity, converted, quantities_in
from treadle_server.models.demo.rates import (
    Unexplained,
    combined,
    hardened,
    plain_value,
    with_ratios,
    without_headcounts,
)
from treadle_server.models.demo.story_signs import (
    BUY,
    HELD,
    INCOME,
    LOSS,
    cue_of,
)
from treadle_server.models.demo.story_state import (
    State,
    take_share,
)
from treadle_server.models.demo.tasks import Agenda
from treadle_server.models.demo.words import Token, plain, stem

_TENDER = re.compile(
    r"\b(?:pays? with|paid with|paying with|hands? over|handed|gives? the (?:cashier|clerk|"
    r"seller|shopkeeper)|gave the (?:cashier|clerk|seller|shopkeeper)|change (?:from|out "
    r"of|for|of|do|does|will|would)|using an?|uses an?|with an?|from an?|hands? the "
    r"(?:cashier|clerk)|gives? an?)\b"
)

_SHARE = re.compile(
    r"\b(?:shar(?:e|es|ed|ing)|split|splits|splitting|divid(?:e|es|ed|ing)|distribut\w+|"
    r"equally|evenly|hands? out|packs?|packed|puts? them|arrang\w+|cuts?)\b"
)

_GROUPS = re.compile(
    r"\b(?:into|in) (?:[a-z]+ )?(?:groups|boxes|bags|packs|rows|teams|cartons|packets|"
    r"bundles|crates|trays|piles|bunches|batches|vases|jars|baskets|pieces|bottles|buses|"
    r"tables|shelves|lengths|sets|stacks|cups|glasses|containers)(?: (?:that hold|holding|"
    r"with|containing|each holding))? ?(?:of|that hold|holding|with|containing)?$"
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
    if (len(told) < 2 and not (told and told[0].per in TIMES)) or all(item.kind != "count" for item in told):
        return False
    state = State(agenda, question)
    queue = _ordered(quantities)
    for index, quantity in enumerate(queue):
        _tell(state, quantity, queue[index + 1 :])
    _conclude(state)
    return state.value is not None


def _is_question(tokens: Sequence[Token]) -> bool:
    text = plain(tokens)
    return bool(
        re.search(
            (
                r"\?$|^(?:how|what|find|calculate|work out|determine|compute|tell)\b|\bhow (?:much|"
                r"many|long|far|old|fast)\b"
            ),
            text,
        )
    )


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
    return first + [item for item in quantities if item not in first]


def _tell(state: State, item: Quantity, rest: list[Quantity]) -> None:
    if item.sentence != state.last_sentence:
        state.losing, state.last_sentence = False, item.sentence
    if INCOME.search(item.before + " " + item.after):
        state.income = True
    if item.kind == "share":
        take_share(state, item, rest)
    elif item.kind == "multiple":
        _multiply(state, item)
    elif item.per:
        _take_rate(state, item)
    else:
        _take_count(state, item, rest)


def _multiply(state: State, item: Quantity) -> None:
    if state.terms and re.match(r"^as (?:many|much)\b(?!.* as )", item.after):
        _add_term(
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
    if (
        _TENDER.search(item.before[-40:])
        and item.unit in (MONEY, "", "note", "bill")
        and re.search(r"\bchange\b|\bget back\b|\breceive back\b", state.question + item.before)
    ):
        state.tender = item.value
    elif _shares(state, item, " ".join(other.after for other in rest if other.sentence == item.sentence)) or (
        state.per and item.unit and _rate_times(state, item)
    ):
        pass
    elif not _meets_rate(state, item):
        _add_term(state, item)


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


def _shares(state: State, item: Quantity, later: str) -> bool:
    """`among 5 shelters`, `split 4 ways`, `into boxes of 12`."""
    near = item.before
    words = near.split()
    if _GROUPS.search(near) and state.value is not None:
        state.keep(
            operation("/", state.value, item.value),
            stem(
                re.findall(
                    (
                        r"(?:groups|boxes|bags|packs|rows|teams|cartons|packets|bundles|crates|trays|piles|"
                        r"bunches|batches|vases|jars|baskets|pieces|bottles|buses|tables|shelves|lengths|sets|"
                        r"stacks|cups|glasses|containers)"
                    ),
                    near,
                )[-1]
            ),
        )
        return True
    person = re.fullmatch(
        (
            r"person|friend|child|kid|student|pupil|player|worker|guest|sibling|brother|sister|"
            r"member|roommate|colleague|teammate|neighbour|neighbor|family|cousin|employee|"
            r"classmate|winner|partner|adult|boy|girl|flatmate|tenant|owner|volunteer|class|"
            r"classroom|team|shelter|school"
        ),
        item.unit,
    )
    among = (
        bool(words) and words[-1] in ("among", "between", "amongst", "by", "across", "into")
    ) or near.endswith(
        ("among the", "between the", "among his", "among her", "among their", "between his", "between her")
    )
    ways = item.after.startswith(("ways", "equal parts", "equal groups", "equal pieces", "equal"))
    person = bool(person) or item.after.startswith("of us")
    ours = (
        bool(person)
        and bool(_SHARE.search(later))
        and bool(re.search(r"\b(?:each|per person|everyone)\b", state.question))
        and item.after.startswith("of us")
    )
    subject = ours or (
        bool(person)
        and bool(
            re.search(
                (
                    r"^(?:[a-z]+ ){0,4}(?:want to |will |decide to |agree to |have to )?(?:equally |evenly "
                    r")?(?:shar|split|divid)"
                ),
                item.after,
            )
        )
    )
    together = bool(person) and bool(_SHARE.search(near)) and words[-1:] == ["with"]
    if not (
        (among and (_SHARE.search(near) or person)) or (ways and _SHARE.search(near)) or subject or together
    ):
        return False
    count = state.agenda.value(operation("+", item.value, number(1))) if together else item.value
    if state.value is None:
        state.sharers.append(count)
    else:
        state.keep(operation("/", state.value, count))
        state.per = ""
    return True


def _meets_rate(state: State, item: Quantity) -> bool:
    """A count that waiting rates are for: all of those per its unit, or one that says only `each`."""
    named = [
        rate for rate in state.rates if rate.per != "each" and _amount_in(state, item, rate.per) is not None
    ]
    loose = [rate for rate in state.rates if rate.per == "each" and item.unit not in (MONEY, *TIMES)]
    for rate in named or loose[:1]:
        amount = item.value if rate.per == "each" else _amount_in(state, item, rate.per)
        assert amount is not None
        value = state.agenda.value(operation("*", amount, rate.value), rate.unit)
        state.rates.remove(rate)
        verbs = f"{rate.before} {rate.after}" if item.asked or item.sentence != rate.sentence else ""
        _add_term(
            state,
            replace(item, value=value, unit=rate.unit, before=f"{verbs} {item.before}", per=""),
            met=True,
        )
    if named or loose:
        return True
    for rate in state.rates:
        if item.unit and item.unit == rate.unit and _asks_division(state.question, rate):
            state.rates.remove(rate)
            state.value = state.agenda.value(operation("/", item.value, rate.value), rate.per)
            state.unit = rate.per
            return True
    return False


def _asks_division(question: str, rate: Quantity) -> bool:
    """Whether `how many hours` or `how long` asks for what the rate is per."""
    if rate.per in TIMES and re.search(r"\bhow long\b|\bwhen\b", question):
        return True
    match = re.search(r"\bhow (?:many|much)(?: [a-z]+)?? ([a-z]+)\b", question)
    asked = {stem(word) for word in re.findall(r"[a-z]+", question.partition("how many")[2])[:3]}
    return bool(match) and (rate.per in asked or bool(rate.per in TIMES and asked & set(TIMES)))


def _add_term(state: State, item: Quantity, *, met: bool = False) -> None:
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
        state.terms, state.losing = [item.value], False
        return
    if not certain and not met and not _listed_with(state, item):
        raise Unexplained(plain_value(item))
    if item.unit and state.unit and item.unit != state.unit:
        item = _alike(state, item)
    state.terms.append(item.value)
    state.keep(operation("-" if sign < 0 else "+", state.value, item.value), state.unit or item.unit)


def _listed_with(state: State, item: Quantity) -> bool:
    """Whether the story adds the number to the one before without saying so: `3.2 km on Monday, 4.5 km on Tuesday`."""
    same = (
        not item.unit
        or not state.unit
        or item.unit == state.unit
        or converted(item.value, item.unit, state.unit) is not None
    )
    summed = re.search(
        (
            r"\b(?:total|altogether|in all|sum|average|mean|combined|overall|all together|cost|pay|"
            r"spend|how (?:much|many|far|long))\b"
        ),
        state.question,
    )
    return (
        bool(summed)
        and not item.asked
        and (
            same or bool(re.search(r"\b(?:total|altogether|in all|combined|all together)\b", state.question))
        )
    )


def _alike(state: State, item: Quantity) -> Quantity:
    """The quantity in the unit of the total; other things are counted together unless money is mixed in."""
    changed = converted(item.value, item.unit, state.unit)
    if changed is not None:
        return replace(item, value=state.agenda.value(changed), unit=state.unit)
    if MONEY in (item.unit, state.unit) or item.unit in TIMES or state.unit in TIMES:
        raise Unexplained(plain_value(item))
    return item


def _sign(state: State, item: Quantity) -> tuple[int, bool]:
    """1 or -1, and whether a word says so."""
    clause = re.split(r"\b(?:but|then|who|and)\b|[,;]", item.before)[-1]
    tail = re.split(r"\b(?:and|but|then|so|while)\b|[,;.?]", item.after)[0]
    certain = (
        bool(re.fullmatch(r"(?:,? ?(?:and|plus)?(?: another| also| a| the)?)? ?", item.before))
        or "plus" in clause
    )
    gained = re.search(
        (
            r"^(?:\w+ )?(?:\w+ )?(?:get on|got on|board|join|arrive|come|(?:are|is|were|was) "
            r"(?:added|bought|delivered|returned|received|put in))"
        ),
        tail,
    )
    lost = LOSS.search(tail) and re.search(
        (
            r"\b(?:are|is|were|was|broken?|rotten|of them|get off|got off|leave|left|die|get|go|"
            r"absent|missing|damaged|defective|empty|sick|sold)\b"
        ),
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
    elif item.after.startswith("more"):
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


def _conclude(state: State) -> None:
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
            (
                r"\b(?:in|per|each|every|for|a|over) (?:a |an |one |1 |the )?(?:full |whole |single "
                r")?(hour|day|week|month|year)\b"
            ),
            question,
        )
        span = next((span for span in reversed(spans) if span != state.per), "")
        amount = converted(number(1), span, state.per) if span else None
        if amount is not None:
            state.keep(operation("*", state.value, _simple(amount)))
    wanted = re.search(
        (
            r"\bin (seconds|minutes|hours|days|weeks|months|kg|kilograms|grams|km|kilometers|"
            r"kilometres|meters|metres|litres|liters|ml|cents)\b|\bhow many (seconds|minutes|hours|"
            r"days|weeks|months|years|litres|liters|km|kilometers|kilometres|kg|kilograms|grams)\b"
        ),
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


def _use_waiting(state: State) -> None:
    """Rates that no count was told for: a single one may still fit the total."""
    if state.value is None and len(state.rates) == 1 and state.rates[0].per in TIMES:
        rate = state.rates.pop()
        state.value, state.unit, state.per = rate.value, rate.unit, rate.per
    for rate in state.rates:
        if state.value is None:
            raise Unexplained(plain_value(rate))
        if rate.unit == state.unit and _asks_division(state.question, rate):
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
