"""Word problems known by their shape: every number of the text has its part, or it is no such story."""

import re
from collections.abc import Callable

from treadle_server.models.demo.arithmetic.formulas import Formula, number, operation
from treadle_server.models.demo.arithmetic.words import stem
from treadle_server.models.demo.stories.baskets import NUM, basket, fee_and_rate, group_discount, kinds

_PERCENT = r"(\d+(?:\.\d+)?)%"
_TIME = r"(second|minute|hour|day|week|month|year)s?"
_SHARING = re.compile(
    r"\b(?:shar\w+|divid\w+|split\w*|dealt|deals?|distribut\w+|equal\w*|evenly|same (?:number|"
    r"amount)|fair\w*|"
    r"hand\w* out|packs?|packed|puts?|filled|fills?|arrange\w*)\b"
)
_PERSON = (
    r"(?:people|persons|friends|children|kids|students|pupils|players|workers|guests|siblings|brothers|"
    r"sisters|members|winners|colleagues|neighbou?rs|cousins|employees|partners|adults|boys|girls|"
    r"flatmates|roommates|tenants|owners|volunteers|teams|classes|classmates|grandchildren|heirs|sailors|"
    r"campers|runners|helpers|families|shelters|schools|of us|of them)"
)


def read_shape(text: str, question: str) -> Formula | None:
    """The formula of a story of one of these shapes; None for any other story."""
    numbers = re.findall(NUM, text)
    percents = re.findall(_PERCENT, text)
    for reading in _READINGS:
        formula = reading(text, question, numbers, percents)
        if formula is not None:
            return formula
    return None


def _remainder(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """`47 sweets are shared equally among 6 children. How many are left over?`"""
    asked = re.search(r"\b(?:left ?over|over|remain\w*|remainder|left)\b", question)
    sharing = re.search(r"\b(?:equal\w*|evenly|same (?:number|amount)|full|dealt|fair\w*|of \d+)\b", text)
    between = re.search(rf"\b\d+ {_PERSON} (?:[a-z]+ )?(?:shar|split|divid)", text) or re.search(
        r"\b(?:among|amongst|between|to|into|in|for) (?:[a-z]+ )?\d|\bof \d+\b", text
    )
    if not (asked and sharing and between and _SHARING.search(text)) or percents or len(numbers) != 2:
        return None
    whole, parts = numbers if float(numbers[0]) >= float(numbers[1]) else numbers[::-1]
    return operation("%", number(whole), number(parts))


def _equal_parts(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """`Four friends pick 52 apples and everyone gets the same amount.`"""
    people = re.search(rf"{NUM} (?:[a-z]+ ){{0,1}}?{_PERSON}\b", text)
    each = re.search(r"\b(?:each|everyone|everybody|per person|every (?:one|person|\w+)|apiece)\b", question)
    shared = re.search(
        r"\b(?:equal\w*|evenly|same (?:number|amount)|split\w*|shar\w+|fair\w*|divid\w+)\b", text
    )
    if not (people and each and shared) or percents or len(numbers) != 2:
        return None
    if re.search(
        rf"\b(?:among|between|with|her|his|my)\b[^.]*\b(?:himself|herself|myself)\b|\bwith {NUM}", text
    ):
        return None
    wholes = [found for found in re.finditer(NUM, text) if found.start() != people.start()]
    loose = re.match(r" (?:each|apiece|per|every)\b", text[wholes[0].end() :])
    return None if loose else operation("/", number(wholes[0].group(1)), number(people.group(1)))


def _growth(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """The change from one number to another in percent."""
    if not re.search(r"\bpercent\w*\b|\bper cent\b", question) or len(numbers) != 2 or percents:
        return None
    moved = re.search(rf"\bfrom {NUM}(?: [a-z]+){{0,4}}? to (?:about )?{NUM}", text)
    trade = re.search(
        r"\b(?:buys?|bought|purchas\w+|paid|pays?|cost)\b.*\d.*\b(?:sells?|sold|resells?|resold)\b", text
    )
    was = re.search(
        rf"\b(?:was|had|were|used to (?:be|have|cost|weigh))\b[^.]*?{NUM}.*\b(?:now|today|this year|later)\b",
        text,
    )
    if not (moved or trade or was) or re.search(r"\bout of\b|\bof (?:the|them|these|those)\b", question):
        return None
    before, after = (number(found) for found in numbers)
    falls = re.search(
        r"\b(?:loss|lose|lost|fall|fell|drop\w*|decrease\w*|shr[iau]nk\w*|less|cheaper)\b", question
    )
    change = operation("-", before, after) if falls else operation("-", after, before)
    return operation("*", operation("/", change, before), number(100))


def _original(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """What something was before a percentage was taken off or added."""
    asked = re.search(
        r"\b(?:original\w*|before|beforehand|previous\w*|regular|normal|full|list|old|undiscounted|earlier|first|"
        r"pre-?(?:sale|tax))\b",
        question,
    )
    if not asked or len(numbers) != 1 or len(percents) != 1:
        return None
    if re.search(
        r"\b(?:original\w*|regular|normal\w*|full|list|usual\w*)\b[^.]*\d", text.replace(question, "")
    ):
        return None
    if re.search(r"\b(?:tax|interest|tip) (?:is|was)? ?(?:added|before)\b", question):
        return None
    down = re.search(
        r"\b(?:off|discount\w*|reduc\w+|cheaper|less|sale|cut|dropp?\w*|fell|decreas\w+|lower\w*|down|lost)\b",
        text,
    )
    up = re.search(
        r"\b(?:rais\w+|rises?|rose|increas\w+|more|grew|grown|up|higher|includ\w+|tax|vat)\b", text
    )
    if bool(down) == bool(up) and not down:
        return None
    sign = "-" if down else "+"
    left = operation(sign, number(100), number(percents[0]))
    return operation("/", operation("*", number(numbers[0]), number(100)), left)


_INTO = (
    r"(?:fill\w*|gain\w*|flow\w* in|com\w* in|adds?|added|adding|pump\w* in|pour\w* in|enter\w*|"
    r"arriv\w*|run\w* in|"
    r"suppl\w+|deliver\w*|inflow|brings?|goes in|into|pour\w*|receiv\w+)"
)
_OUT = (
    r"(?:leak\w*|drain\w*|los\w+|out|outflow|escap\w*|evaporat\w*|us(?:es|ed)|consum\w+|empties|leav\w+|"
    r"withdraw\w*|drips?|drawn|removes?|removed)"
)


def _flows(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """What flows in and out of something per minute, over some minutes or until it is full or empty."""
    text = re.sub(
        rf"\b(?:every|each) {_TIME},? {NUM} ([a-z]+)([^.\d]*?\b(?:and|while|but)\b[^.\d]*?){NUM} ([a-z]+)",
        r"\2 \3 per \1 \4\5 \6 per \1",
        text,
    )
    rates = list(
        re.finditer(rf"{NUM} (?P<unit>[a-z]+) (?:of [a-z]+ )?(?:per|a|an|each|every|/) {_TIME}\b", text)
    )
    if len(rates) != 2 or rates[0].group(3) != rates[1].group(3) or percents or len(numbers) not in (3, 4):
        return None
    signs = [_flow_sign(text, rates, index) for index in (0, 1)]
    spans = [found for found in re.finditer(rf"{NUM} {_TIME}\b", text) if found.group(2) == rates[0].group(3)]
    if set(signs) != {1, -1} or len(spans) != 1:
        return None
    used = {rates[0].start(), rates[1].start(), spans[0].start()}
    rest = [found.group(1) for found in re.finditer(NUM, text) if found.start() not in used]
    gain, loss = (rates[signs.index(sign)].group(1) for sign in (1, -1))
    net = operation("*", operation("-", number(gain), number(loss)), number(spans[0].group(1)))
    return operation("+", number(rest[0]), net) if rest else net


def _flow_sign(text: str, rates: list[re.Match[str]], index: int) -> int:
    """1 for a rate whose own clause speaks of an inflow, -1 for an outflow, 0 when it is unclear."""
    start = rates[index - 1].end() if index else 0
    end = rates[index + 1].start() if index + 1 < len(rates) else len(text)
    before = re.split(r"[.,;]|\b(?:while|but|and)\b", text[start : rates[index].start()])[-1]
    after = re.split(r"[.,;?]|\b(?:while|but|and)\b", text[rates[index].end() : end])[0]
    own = f"{before} {after}"
    into, out = re.search(rf"\b{_INTO}\b", own), re.search(rf"\b{_OUT}\b", own)
    return bool(into) - bool(out)


def _same_rate(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """`240 bolts in 4 hours. How many in 7 hours?`"""
    told = text[: text.rfind(question)] if question in text else text
    first = re.search(
        rf"{NUM} (?P<what>[a-z]+)(?: [a-z]+){{0,3}}? (?:in|every|over|within|for) {NUM} {_TIME}\b", told
    )
    second = re.search(rf"\b(?:in|for|over|within|after|during) {NUM} {_TIME}\b", question)
    if not first or not second or len(numbers) != 3 or percents or first.group(4) != second.group(2):
        return None
    if re.search(r"\b(?:left|remain\w*|more than|total|altogether)\b", question):
        return None
    rate = operation("/", number(first.group(1)), number(first.group(3)))
    return operation("*", rate, number(second.group(1)))


def _free_places(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """What has room for so many, less what is taken."""
    room = re.search(
        r"\b(?:seats?|room for|capacity|can (?:hold|carry|seat|take|fit)|holds|fits|places|spaces|beds|rooms|"
        r"spots|desks|berths|lockers|tables|tickets)\b",
        text,
    )
    asked = re.search(
        r"\b(?:free|empty|vacant|available|unoccupied|unused|open)\b|\bmore\b.*\b(?:fit|board|"
        r"park|enter|join|get "
        r"(?:in|on)|come|be (?:seated|added|parked|admitted)|take|hold|go in)\b|\bfit in\b",
        question,
    )
    if (
        not room
        or not asked
        or percents
        or not 2 <= len(numbers) <= 3
        or float(numbers[0]) < float(numbers[1])
    ):
        return None
    if re.search(r"\b(?:each|per|every|rows? of|times|leaves?|left|arriv\w*|came|come)\b|\b\d+ more\b", text):
        return None
    return operation("-", *(number(found) for found in numbers))


def _missing_value(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """The value that an average of known size still lacks."""
    mean = re.search(r"\b(?:average|mean)\b", text)
    asked = re.search(r"\b(?:third|fourth|fifth|sixth|last|other|missing|remaining|final|next)\b", question)
    if not mean or not asked or percents or len(numbers) < 3:
        return None
    size, average, *values = numbers
    known = int(float(size)) - 1
    if values and values[0] == str(known) and len(values) == known + 1:
        values = values[1:]
    if "." in size or len(values) != known:
        return None
    whole = operation("*", number(size), number(average))
    return operation("-", whole, *(number(value) for value in values))


_SHARE = re.compile(
    r"(?:(?P<upper>\d+) )?(?P<word>half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?)\b"
    r"|(?P<top>\d+) / (?P<bottom>\d+)|(?P<percent>\d+(?:\.\d+)?)%"
)
_PARTS = {
    "half": 2,
    "halve": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}


def _parts_of_whole(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """Several parts of one whole, when the rest of it is asked for."""
    told = text[: text.rfind(question)] if question in text else text
    shares = list(_SHARE.finditer(told))
    if len(shares) < 2 or not re.search(r"\b(?:others?|rest|remaining|remainder)\b", text):
        return None
    if re.search(r"\b(?:of (?:those|these|them|the (?:rest|others|remaining|remainder)))\b", told):
        return None
    spans = [range(share.start(), share.end()) for share in shares]
    wholes = [
        found.group(1) for found in re.finditer(NUM, text) if not any(found.start() in span for span in spans)
    ]
    rest = re.search(r"\b(?:others?|rest|remaining|remainder)\b([^.?]*)", told)
    named = {stem(word) for word in re.findall(r"[a-z]+", rest.group(1))} if rest else set()
    wanted = {stem(word) for word in re.findall(r"[a-z]+", question)} - {
        "are",
        "is",
        "the",
        "have",
        "of",
        "to",
    }
    direct = re.search(r"\b(?:others?|rest|remain\w*|left)\b", question)
    if len(wholes) != 1 or not (direct or named & wanted):
        return None
    whole = number(wholes[0])
    return operation("-", whole, *(_part(whole, share) for share in shares))


def _part(whole: Formula, share: re.Match[str]) -> Formula:
    if share["percent"]:
        return operation("/", operation("*", whole, number(share["percent"])), number(100))
    upper = share["upper"] or share["top"] or "1"
    lower = share["bottom"] or str(_PARTS[stem(share["word"])])
    return operation("/", whole if upper == "1" else operation("*", whole, number(upper)), number(lower))


def _shared_work(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """`6 workers take 10 days. How long do 3 workers need?`: fewer hands need longer."""
    hands = (
        rf"{NUM} (?P<who>workers|men|women|people|painters|builders|machines|pumps|taps|diggers|cooks|"
        rf"gardeners|pipes)"
    )
    told = re.search(hands, text[: text.rfind(question)])
    asked = re.search(hands, question)
    span = re.search(rf"{NUM} {_TIME}\b", text)
    long = re.search(r"\bhow (?:long|many (?:hours|days|minutes|weeks))\b", question)
    if not (told and asked and span and long) or len(numbers) != 3 or percents or told["who"] != asked["who"]:
        return None
    work = operation("*", number(told.group(1)), number(span.group(1)))
    return operation("/", work, number(asked.group(1)))


def _for_us(text: str, question: str, numbers: list[str], percents: list[str]) -> Formula | None:
    """`A ticket costs 15 euros. There are 4 of us.`"""
    price = re.search(rf"\b(?:an?|each|one|1|every|per) (?:[a-z]+ ){{1,2}}(?:is|costs?|for|at) {NUM}", text)
    us = re.search(rf"\b{NUM} of us\b", text)
    asked = re.search(r"\b(?:we|all|total|altogether|together)\b", question)
    if (
        not (price and us and asked)
        or len(numbers) != 2
        or percents
        or re.search(r"\beach of us\b", question)
    ):
        return None
    return operation("*", number(us.group(1)), number(price.group(1)))


_READINGS: tuple[Callable[[str, str, list[str], list[str]], Formula | None], ...] = (
    _remainder,
    _missing_value,
    _growth,
    _original,
    _flows,
    fee_and_rate,
    _parts_of_whole,
    basket,
    kinds,
    group_discount,
    _shared_work,
    _for_us,
    _same_rate,
    _free_places,
    _equal_parts,
)
