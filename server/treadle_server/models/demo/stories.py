"""Word problems: a told story as a chain of calculations, or nothing when a number of it stays unexplained."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from treadle_server.models.demo.formulas import Formula, Number, number, operation, total
from treadle_server.models.demo.quantities import MONEY, TIMES, Quantity, converted, quantities_in
from treadle_server.models.demo.tasks import Agenda
from treadle_server.models.demo.words import Token, plain, stem

_LOSS = re.compile(
    r"\b(?:giv(?:es?|ing)|gave|los(?:es?|ing|t)|sells?|sold|eats?|ate|eaten|spen(?:ds?|t)|spending|uses?|used|donat\w+|remov\w+|took|takes? (?:away|out|off)|"
    r"broken?|breaks?|broke|thr(?:ows?|ew)|withdr\w+|lends?|lent|drops?|dropped|burn\w*|dr(?:ink|inks|ank)|cuts?|leak\w*|die[sd]?|fl(?:y|ies|ew) away|"
    r"get(?:s)? off|got off|rotten|missing|absent|empty|damaged|stolen|fewer|less|minus|leaves?|depart\w*|left (?:the|and)|deduct\w*|subtract\w*|quit|fell|"
    r"tak(?:es|ing) away|given|goes to|go to|went to|mails?|sent|sends|ships?|shipped|expired?|wilted|sick|defective|spoil\w*|cracked|discard\w*|coupon|discount|refund\w*|costs? (?:him|her|them)|melt\w*|evaporat\w*|pays? for|owes?|rent|bills?|expenses?)\b"
)
_GAIN = re.compile(
    r"\b(?:buys?|bought|gets?|got|receiv\w+|earns?|earned|finds?|found|picks?|picked|collect\w*|adds?|added|bakes?|baked|deposit\w*|arriv\w+|joins?|joined|more|"
    r"makes?|made|wins?|won|saves?|saved|plus|another|returns?|returned|grows?|grew|produc\w+|and also|orders?|ordered|has|have|had|gets? on|got on|board\w*|purchas\w+|delivered|"
    r"gives? (?:him|her|me|them)|gave (?:him|her|me|them)|gain\w*|increase\w*|come|comes|came|restock\w*|extra)\b"
)
_BUY = re.compile(r"\b(?:buys?|bought|purchas\w+|pays?|paid|spen(?:ds?|t)|costs?|orders?|ordered|subscri\w+)\b")
_HELD = re.compile(r"\b(?:had|has|have|starts?|started|saved|saves|earn\w*|balance|budget|got|receiv\w+|withdr\w+|wallet|account|makes|gets|revenue|sells?|sold|brings?|brought|allowance|gift|with)\b")
_INCOME = re.compile(r"\b(?:earn\w*|salary|wages?|income|gross|paycheck|makes)\b")
_CUTS = re.compile(r"\b(?:discount|off|reduction|reduced|sale|cheaper|decreas\w+|drops?|dropped|fell|falls?|depreciat\w+|rebate|deduct\w*|shr[iau]nk\w*|markdown|marked down|coupon|commission|withheld|lower)\b")
_GROWS = re.compile(r"\b(?:tax|vat|tip|tips|gratuity|service|interest|increas\w+|markup|marked up|raise[sd]?|raise|grow\w*|grew|rises?|rose|more|surcharge|fee|bonus|gain\w*|profit|extra|add\w*|higher)\b")
_TENDER = re.compile(r"\b(?:pays? with|paid with|paying with|hands? over|handed|gives? the (?:cashier|clerk|seller|shopkeeper)|gave the (?:cashier|clerk|seller|shopkeeper)|change (?:from|out of|for|of|do|does|will|would)|using an?|uses an?|with an?|from an?|hands? the (?:cashier|clerk)|gives? an?)\b")
_SHARE = re.compile(r"\b(?:shar(?:e|es|ed|ing)|split|splits|splitting|divid(?:e|es|ed|ing)|distribut\w+|equally|evenly|hands? out|packs?|packed|puts? them|arrang\w+|cuts?)\b")
_GROUPS = re.compile(r"\b(?:into|in) (?:[a-z]+ )?(?:groups|boxes|bags|packs|rows|teams|cartons|packets|bundles|crates|trays|piles|bunches|batches|vases|jars|baskets|pieces|bottles|buses|tables|shelves|lengths|sets|stacks|cups|glasses|containers)(?: (?:that hold|holding|with|containing|each holding))? ?(?:of|that hold|holding|with|containing)?$")


class Unexplained(Exception):
    """A story with a number whose part in it is unclear."""


@dataclass(slots=True)
class _State:
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
    sharers: list[Formula] = field(default_factory=list)
    tender: Formula | None = None
    last_sentence: int = -1
    spans: list[Formula] = field(default_factory=list)

    def keep(self, formula: Formula, unit: str | None = None) -> None:
        self.unit = self.unit if unit is None else unit
        self.value = self.agenda.value(formula, self.unit)


def read_story(sentences: Sequence[Sequence[Token]], agenda: Agenda) -> bool:
    """Adds the calculations of a story that ends in a question; raises Unexplained."""
    asked = [index for index, tokens in enumerate(sentences) if _is_question(tokens)]
    if not asked:
        return False
    question = plain(sentences[asked[0]])
    told: list[Quantity] = []
    for index, tokens in enumerate(sentences[: asked[0] + 1]):
        told += quantities_in(tokens, index, asked=index == asked[0])
    told = _ratios(_without_headcounts(_hardened(told)), question, agenda)
    quantities: list[Quantity] = []
    for index in range(asked[0] + 1):
        quantities += _combined([item for item in told if item.sentence == index], agenda)
    if len(told) < 2 or all(item.kind != "count" for item in told):
        return False
    state = _State(agenda, question)
    queue = _ordered(quantities)
    for index, quantity in enumerate(queue):
        _tell(state, quantity, queue[index + 1 :])
    _conclude(state)
    return state.value is not None


def _hardened(told: list[Quantity]) -> list[Quantity]:
    """`a pen costs 3` is a rate if pens are counted somewhere, `a tank holds 500 litres` is none."""
    return [
        replace(item, per=item.per if any(other.unit == item.per for other in told if other is not item) else "", soft=False) if item.soft else item
        for item in told
    ]


def _without_headcounts(told: list[Quantity]) -> list[Quantity]:
    """Leaves out the `three` of `85, 90 and 77 on three tests`: it only counts the numbers beside it."""
    kept = []
    for item in list(told):
        beside = [other for other in told if other.sentence == item.sentence and other is not item and other.kind == "count"]
        alone = not any(other.unit == item.unit for other in told if other is not item)
        counts = isinstance(item.value, Number) and item.value.text == str(len(beside)) and item.kind == "count"
        if counts and len(beside) > 1 and alone and not item.per and item.unit not in (MONEY, *TIMES) and all(other.per in ("", item.unit) for other in beside):
            told = [replace(other, per="") if other in beside else other for other in told]
            continue
        kept.append(item)
    return [item for item in told if any(item.value is other.value for other in kept)]


def _ratios(told: list[Quantity], question: str, agenda: Agenda) -> list[Quantity]:
    """Joins `6 litres per 100 km` and `3 eggs for 12 cookies` to rates."""
    done: list[Quantity] = []
    index = 0
    while index < len(told):
        left, right = told[index], told[index + 1] if index + 1 < len(told) else None
        ratio = _ratio(left, right, told[index + 2 :], question, agenda) if right is not None else None
        done.append(ratio or left)
        index += 2 if ratio else 1
    return done


def _ratio(left: Quantity, right: Quantity, later: list[Quantity], question: str, agenda: Agenda) -> Quantity | None:
    between = right.before.split()[-2:]
    if left.sentence != right.sentence or left.kind != "count" or right.kind != "count" or left.spread or not between:
        return None
    per = between[-1] in ("per", "every", "each") and (not left.per or left.per == "each")
    if not per and (left.per or right.per):
        return None
    loose = between[-1] in ("for", "in", "with", "on", "to", "makes", "make", "serves", "takes", "take", "costs", "cost", "cover", "covers", "needs", "need", "feeds", "yields", "uses", "is", "are", "a")
    again = [item for item in later if item.kind == "count" and item.unit]
    asked = {stem(word) for word in re.findall(r"[a-z]+", question)}
    money = right.unit == MONEY or (not right.unit and between[-1] in ("costs", "cost", "for"))
    if per or (loose and any(item.unit == right.unit for item in again) and (left.unit in asked or left.unit == MONEY)):
        return replace(left, value=agenda.value(operation("/", left.value, right.value)), per=right.unit, after=right.after)
    if loose and left.unit and any(item.unit == left.unit for item in again) and (right.unit in asked or money or (right.unit in TIMES and "long" in asked)):
        unit = MONEY if money else right.unit
        return replace(left, value=agenda.value(operation("/", right.value, left.value)), unit=unit, per=left.unit, after=right.after)
    return None


def _is_question(tokens: Sequence[Token]) -> bool:
    text = plain(tokens)
    return bool(re.search(r"\?$|^(?:how|what|find|calculate|work out|determine|compute|tell)\b|\bhow (?:much|many|long|far|old|fast)\b", text))


def _ordered(quantities: list[Quantity]) -> list[Quantity]:
    """Story order; a condition inside the question (`if she started with 1000`) comes first."""
    first = [item for item in quantities if item.asked and re.search(r"\b(?:start\w*|begin\w*|began|already had|initially|originally)\b", item.before)]
    return first + [item for item in quantities if item not in first]


def _combined(quantities: list[Quantity], agenda: Agenda) -> list[Quantity]:
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
        items[first] = replace(merged, before=before, after=items[second].after if second == first + 1 else merged.after)
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
            anonymous = rate.per == "each" and other < at and count.unit not in (MONEY, *TIMES) and not count.per and at - other == 1
            if anonymous and _SHARE.search(count.before) and not count.unit:
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
    return replace(count, value=value, unit=rate.unit, per=count.per, asked=count.asked or rate.asked, spread=False)


def _spread(items: list[Quantity], agenda: Agenda) -> list[Quantity]:
    """`8 workers each earn 90`: the count multiplies what follows."""
    done: list[Quantity] = []
    for item in items:
        if done and done[-1].spread and item.kind == "count":
            value = agenda.value(operation("*", done[-1].value, item.value), item.unit)
            item = replace(item, value=value, before=done[-1].before, per=item.per if item.per not in ("each", done[-1].unit) else "")
            done[-1] = item
        else:
            done.append(item)
    return done


def _tell(state: _State, item: Quantity, rest: list[Quantity]) -> None:
    if item.sentence != state.last_sentence:
        state.losing, state.last_sentence = False, item.sentence
    if _INCOME.search(item.before + " " + item.after):
        state.income = True
    if item.kind == "share":
        _take_share(state, item, rest)
    elif item.kind == "multiple":
        _multiply(state, item)
    elif item.per:
        _take_rate(state, item)
    else:
        _take_count(state, item, rest)


def _multiply(state: _State, item: Quantity) -> None:
    if state.value is None or " as " in f" {item.after} ":
        raise Unexplained(plain_value(item))
    state.keep(operation("*", state.value, item.value))


def _take_share(state: _State, item: Quantity, rest: list[Quantity]) -> None:
    """A percentage or fraction of what there is."""
    if state.value is None and state.rates and state.rates[-1].per in TIMES:
        rate = state.rates.pop()
        state.value, state.unit, state.per = rate.value, rate.unit, rate.per
    if state.value is None:
        raise Unexplained(plain_value(item))
    before, after = item.before, item.after
    near = _near(item)
    state.losing = bool(_LOSS.search(before))
    share = item.value
    whole = state.value
    state.base = whole
    part = _share_formula(whole, share)
    if _wants_part(state.question, near):
        state.keep(part)
    elif (direction := _direction(item, income=state.income)) and not after.startswith("of"):
        state.keep(_grown(whole, share) if direction > 0 else _left_over(whole, share))
    elif _keeps_part(state, item, rest):
        state.keep(part)
    else:
        state.keep(_left_over(whole, share))


def _near(item: Quantity) -> str:
    """The words around a share, within its own clause."""
    before = re.split(r"[,;.]|\band\b|\bthen\b", item.before)[-1]
    after = re.split(r"[,;.?]|\band\b|\bthen\b|\bbut\b", item.after)[0]
    return f"{' '.join(before.split()[-6:])} | {' '.join(after.split()[:6])}"


def _direction(item: Quantity, *, income: bool) -> int:
    """1 for what is added, -1 for what is taken off, 0 when no word says so."""
    before, _, after = _near(item).partition("|")
    for text in (after, before, item.before):
        if _CUTS.search(text) or (income and re.search(r"\btax(?:es)?\b", text)):
            return -1
        if _GROWS.search(text):
            return 1
    return 0


def _wants_part(question: str, near: str) -> bool:
    """Whether the question is for the tip, tax or discount itself."""
    for word in ("tip", "tax", "discount", "interest", "commission", "raise", "deposit"):
        if re.search(rf"\b{word}\b", near) and re.search(rf"\b{word}\b", question):
            return not re.search(r"\b(?:after|with|including|includes?|total|final|pay|price|cost|left|before|altogether|balance|worth)\b", question)
    return False


def _keeps_part(state: _State, item: Quantity, rest: list[Quantity]) -> bool:
    near = f"{item.before} {item.after}"
    asked = {stem(word) for word in re.findall(r"[a-z]+", state.question)}
    ignored = {"how", "many", "much", "of", "the", "be", "are", "is", "in", "them", "there", "do", "does", "a", "to", "and", "student", "he", "she", "they", "has", "have", "it", "his", "her", "their", "on", "for", "at", "who", "will", "can", "did", "person", "total", "now", "was", "were", "with"}
    after = re.split(r"[,;.?]|\band\b", item.after)[0]
    told = {stem(word) for word in re.findall(r"[a-z]+", after)[:8]} - ignored - {state.unit}
    verb = {stem(word) for word in re.findall(r"[a-z]+", item.before)[-3:]} - ignored - {state.unit}
    if re.search(r"\b(?:not|n't|rest|remaining|remain|left|other|others|without)\b", state.question):
        return False
    if (told and len(told & asked) > len(told) / 2) or verb & asked:
        return True
    if any(other.per and other.unit == MONEY for other in rest) and re.search(r"\b(?:sells?|sold)\b", item.before):
        return True
    if any(other.kind == "share" and re.search(r"\bof (?:those|these|them|the)\b", other.after) for other in rest) and not _LOSS.search(near):
        return True
    return bool(item.after.startswith(("of those", "of these")) and not _LOSS.search(item.before))


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


def _take_rate(state: _State, item: Quantity) -> None:
    """A rate whose count stands in another sentence."""
    if state.value is not None and state.unit and (state.unit == item.per or (item.per == "each" and state.unit not in (MONEY, *TIMES))):
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


def _take_count(state: _State, item: Quantity, rest: list[Quantity]) -> None:
    if _TENDER.search(item.before[-40:]) and item.unit in (MONEY, "", "note", "bill") and re.search(r"\bchange\b|\bget back\b|\breceive back\b", state.question + item.before):
        state.tender = item.value
    elif _shares(state, item) or (state.per and item.unit and _rate_times(state, item)):
        pass
    elif not _meets_rate(state, item):
        _add_term(state, item)


def _rate_times(state: _State, item: Quantity) -> bool:
    """The total is per week, and the count is of weeks."""
    amount = _amount_in(state, item, state.per)
    if amount is None or state.value is None:
        return False
    state.keep(operation("*", state.value, amount))
    state.per = ""
    return True


def _amount_in(state: _State, item: Quantity, unit: str) -> Formula | None:
    if item.unit == unit:
        return item.value
    changed = converted(item.value, item.unit, unit) if item.unit in TIMES or item.unit in ("km", "kg", "metre", "litre") else None
    return state.agenda.value(changed) if changed is not None else None


def _shares(state: _State, item: Quantity) -> bool:
    """`among 5 shelters`, `split 4 ways`, `into boxes of 12`."""
    near = item.before
    words = near.split()
    if _GROUPS.search(near) and state.value is not None:
        state.keep(operation("/", state.value, item.value), stem(re.findall(r"(?:groups|boxes|bags|packs|rows|teams|cartons|packets|bundles|crates|trays|piles|bunches|batches|vases|jars|baskets|pieces|bottles|buses|tables|shelves|lengths|sets|stacks|cups|glasses|containers)", near)[-1]))
        return True
    person = re.fullmatch(r"person|friend|child|kid|student|pupil|player|worker|guest|sibling|brother|sister|member|roommate|colleague|teammate|neighbour|neighbor|family|cousin|employee|classmate|winner|partner|adult|boy|girl|flatmate|tenant|owner|volunteer|class|classroom|team|shelter|school", item.unit)
    among = (bool(words) and words[-1] in ("among", "between", "amongst", "by", "across", "into")) or near.endswith(("among the", "between the", "among his", "among her", "among their", "between his", "between her"))
    ways = item.after.startswith(("ways", "equal parts", "equal groups", "equal pieces", "equal"))
    subject = bool(person) and bool(re.search(r"^(?:[a-z]+ ){0,4}(?:want to |will |decide to |agree to |have to )?(?:equally |evenly )?(?:shar|split|divid)", item.after))
    together = bool(person) and bool(_SHARE.search(near)) and words[-1:] == ["with"]
    if not ((among and (_SHARE.search(near) or person)) or (ways and _SHARE.search(near)) or subject or together):
        return False
    count = state.agenda.value(operation("+", item.value, number(1))) if together else item.value
    if state.value is None:
        state.sharers.append(count)
    else:
        state.keep(operation("/", state.value, count))
        state.per = ""
    return True


def _meets_rate(state: _State, item: Quantity) -> bool:
    """A count that one of the waiting rates is for."""
    for index, rate in enumerate(state.rates):
        amount = item.value if rate.per == "each" and item.unit not in (MONEY, *TIMES) else _amount_in(state, item, rate.per) if rate.per else None
        if amount is not None:
            # One price can serve several counts, so the rate stays with the others that were met.
            value = state.agenda.value(operation("*", amount, rate.value), rate.unit)
            state.rates.pop(index)
            verbs = f"{rate.before} {rate.after}" if item.asked or item.sentence != rate.sentence else ""
            met = replace(item, value=value, unit=rate.unit, before=f"{verbs} {item.before}", per="")
            _add_term(state, met)
            return True
        if item.unit and item.unit == rate.unit and _asks_division(state.question, rate):
            state.rates.pop(index)
            value = state.agenda.value(operation("/", item.value, rate.value), rate.per)
            state.value, state.unit = value, rate.per
            return True
    return False


def _asks_division(question: str, rate: Quantity) -> bool:
    """Whether `how many hours` or `how long` asks for what the rate is per."""
    if rate.per in TIMES and re.search(r"\bhow long\b|\bwhen\b", question):
        return True
    match = re.search(r"\bhow (?:many|much)(?: [a-z]+)?? ([a-z]+)\b", question)
    asked = {stem(word) for word in re.findall(r"[a-z]+", question.partition("how many")[2])[:3]}
    return bool(match) and (rate.per in asked or bool(rate.per in TIMES and asked & set(TIMES)))


def _add_term(state: _State, item: Quantity) -> None:
    sign, certain = _sign(state, item)
    if state.value is None:
        state.value, state.unit, state.per = item.value, item.unit, item.per
        state.held = bool(_HELD.search(item.before)) and not re.search(r"\b(?:buys?|bought|pays?|paid)\b", item.before)
        state.terms = [item.value]
        return
    if not certain and not _listed_with(state, item):
        raise Unexplained(plain_value(item))
    if item.unit and state.unit and item.unit != state.unit:
        item = _alike(state, item)
    state.terms.append(item.value)
    state.keep(operation("-" if sign < 0 else "+", state.value, item.value), state.unit or item.unit)


def _listed_with(state: _State, item: Quantity) -> bool:
    """Whether the story adds the number to the one before without saying so: `3.2 km on Monday, 4.5 km on Tuesday`."""
    same = not item.unit or not state.unit or item.unit == state.unit or converted(item.value, item.unit, state.unit) is not None
    summed = re.search(r"\b(?:total|altogether|in all|sum|average|mean|combined|overall|all together|cost|pay|spend|how (?:much|many|far|long))\b", state.question)
    return bool(summed) and not item.asked and (same or bool(re.search(r"\b(?:total|altogether|in all|combined|all together)\b", state.question)))


def _alike(state: _State, item: Quantity) -> Quantity:
    """The quantity in the unit of the total; other things are counted together unless money is mixed in."""
    changed = converted(item.value, item.unit, state.unit)
    if changed is not None:
        return replace(item, value=state.agenda.value(changed), unit=state.unit)
    if MONEY in (item.unit, state.unit) or item.unit in TIMES or state.unit in TIMES:
        raise Unexplained(plain_value(item))
    return item


def _sign(state: _State, item: Quantity) -> tuple[int, bool]:
    """1 or -1, and whether a word says so."""
    clause = re.split(r"\b(?:but|then|who)\b|[,;]", item.before)[-1] or item.before
    tail = re.split(r"\b(?:and|but|then|so|while)\b|[,;.?]", item.after)[0]
    certain = bool(re.fullmatch(r"(?:,? ?(?:and|plus)?(?: another| also| a| the)?)? ?", item.before)) or "plus" in clause
    for text in (clause, item.before):
        cues = [(match.start(), -1) for match in _LOSS.finditer(text)] + [(match.start(), 1) for match in _GAIN.finditer(text)]
        if cues:
            state.losing, certain = _cued(state, item, text, max(cues)[1]) < 0, True
            break
    lost = _LOSS.search(tail) and re.search(r"\b(?:are|is|were|was|broken?|rotten|of them|get off|got off|leave|left|die|get|go|absent|missing|damaged|defective|empty|sick|sold)\b", tail)
    if (lost and not _LOSS.search(clause)) or re.search(r"^(?:off|discount|coupon)\b", tail):
        state.losing, certain = True, True
    if (item.after.startswith("more") or re.search(r"^(?:get on|got on|board|join|arrive|come|more)", tail)) and not _LOSS.search(clause):
        state.losing, certain = state.losing and item.after.startswith("more") and not _GAIN.search(clause), True
    return (-1 if state.losing else 1), certain


def _cued(state: _State, item: Quantity, text: str, sign: int) -> int:
    """The sign of a verb in view of money: spending adds up unless there was money to spend."""
    if item.unit == MONEY and re.search(r"\b(?:sells?|sold)\b", text):
        return 1
    if state.held and state.unit in (MONEY, "") and item.unit in (MONEY, "") and _BUY.search(text):
        return -1
    given = re.search(r"\b(?:gives?|gave|lost|loses?|discount|coupon|deduct\w*)\b", text)
    return 1 if not state.held and not given and re.search(r"\b(?:spen(?:ds?|t)|pays?|paid|costs?|bills?|rent)\b", text) else sign


def plain_value(item: Quantity) -> str:
    text = item.value.text if isinstance(item.value, Number) else "a share" if item.kind == "share" else "a product"
    return f"{text} {item.unit if item.unit != MONEY else 'in money'}".strip()


def _conclude(state: _State) -> None:
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
        span = re.search(r"\b(?:in|per|each|every|for|a|over) (?:a |an |one |1 |the )?(?:full |whole |single )?(hour|day|week|month|year)\b", question)
        amount = converted(number(1), span.group(1), state.per) if span and span.group(1) != state.per else None
        if amount is not None:
            state.keep(operation("*", state.value, _simple(amount)))
    wanted = re.search(r"\bin (seconds|minutes|hours|days|weeks|months|kg|kilograms|grams|km|kilometers|kilometres|meters|metres|litres|liters|ml|cents)\b|\bhow many (seconds|minutes|hours|days|weeks|months|years)\b", question)
    if wanted and state.unit and state.value is not None:
        changed = converted(state.value, state.unit, stem(wanted.group(1) or wanted.group(2)))
        if changed is not None:
            state.keep(changed, stem(wanted.group(1) or wanted.group(2)))


def _simple(amount: Formula) -> Formula:
    """`1 * 12` as 12."""
    operands = getattr(amount, "operands", ())
    return operands[1] if operands and operands[0] == number(1) and getattr(amount, "symbol", "") == "*" else amount


def _use_waiting(state: _State) -> None:
    """Rates that no count was told for: a single one may still fit the total."""
    for rate in state.rates:
        if state.value is None:
            raise Unexplained(plain_value(rate))
        if rate.unit == state.unit and _asks_division(state.question, rate):
            state.keep(operation("/", state.value, rate.value), rate.per)
        elif rate.per == state.unit or ((amount := converted(state.value, state.unit, rate.per)) is None and rate.per == "each"):
            state.keep(operation("*", state.value, rate.value), rate.unit)
        elif amount is not None:
            state.keep(operation("*", state.agenda.value(amount), rate.value), rate.unit)
        elif rate.per in TIMES and rate.unit == state.unit and re.search(rf"\b(?:a|one|the|per|each|that|this|for the) {rate.per}\b", state.question):
            state.keep(operation("-" if _LOSS.search(rate.before) and state.held else "+", state.value, rate.value))
        else:
            raise Unexplained(plain_value(rate))
    state.rates = []

