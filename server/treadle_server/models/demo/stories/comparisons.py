"""Stories that compare: `Ann has 12 stamps, Bob has twice as many as Ann`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from treadle_server.models.demo.arithmetic.formulas import Formula, number, operation, total
from treadle_server.models.demo.arithmetic.words import Token, plain, word_set
from treadle_server.models.demo.tasks import Agenda

_VERB = (
    r"(?:is|are|was|were|has|have|had|weighs?|weighed|costs?|scored|scores|earns?|earned|"
    r"sold|sells?|reads?|collected|collects?|picked|ran|runs|"
    r"baked|bakes|bought|buys|made|makes|owns?|caught|saved|saves|got|gets|solved|wrote|"
    r"planted|won|walked|walks|there are|there is|"
    r"measures|drove|swam|holds?|lives|received|ate|eats|drinks?|drank|donated|contains?|"
    r"took|takes|used|uses)"
)
_NAME = r"(?P<{0}>(?:the |a |an |his |her |their |my |your )?[a-z][a-z'-]*(?: (?!{1}\b)[a-z][a-z'-]*)?)"
_SUBJECT = _NAME.format("name", _VERB)
_OTHER = _NAME.format("other", r"(?:has|have|does|do|did|is|are|had|and|who|which|together)")
_NUM = r"(?P<num>\d+(?:\.\d+)?)"
_MULTIPLE = (
    r"(?P<multiple>twice|double|thrice|triple|half|\d+(?:\.\d+)? times|(?:a|one|1) third|(?:a|one|1) quarter)"
)
_SIZE = (
    r"(?:as (?:many|much|old|tall|long|heavy|expensive|far|fast|big|large)|the (?:number|"
    r"amount|price|age|weight|length|height|size|cost|score)(?: of)?)"
)
_MORE = re.compile(
    rf"{_SUBJECT} {_VERB} (?:only |exactly )?{_NUM} ?(?:[a-z$]+ ){{0,2}}?(?P<sense>more|"
    r"fewer|less|older|younger|taller|shorter|heavier|lighter|longer|further|farther|extra|"
    rf"cheaper)(?: (?!than\b)[a-z]+){{0,4}} than {_OTHER}"
)
_TIMES = re.compile(
    rf"{_SUBJECT} {_VERB} {_MULTIPLE} {_SIZE}(?: (?!as\b|that\b)[a-z]+){{0,4}}(?: (?:as|of|"
    rf"than|that) {_OTHER})?"
)
_PLAIN = re.compile(rf"{_SUBJECT} {_VERB} (?:only |exactly |about )?{_NUM}(?! times| more| fewer| less)\b")
_EVENT = re.compile(
    rf"(?:{_NAME.format('name', 'then')} )?(?:then )?(?:(?P<loss>gives? away|gave away|"
    r"loses|lost|sells|sold|eats|ate|spends|spent|gives|gave|uses|donates)|finds|found|"
    rf"buys|receives|receives|wins|gets) {_NUM}"
)
_BARE_TIMES = re.compile(rf"(?:and )?{_MULTIPLE} {_SIZE} (?P<name>[a-z]+(?: [a-z]+)?)(?: as {_OTHER})?")
_BARE_MORE = re.compile(rf"{_NUM} (?P<sense>more|fewer|less) (?P<name>[a-z]+(?: [a-z]+)?) than {_OTHER}")
_BARE_PLAIN = re.compile(rf"{_NUM} (?P<name>(?!more|fewer|less|times)[a-z]+(?: (?!and\b|than\b)[a-z]+)?)")
_FILLER = word_set(
    """
    the a an his her their my your how many does do did is are old much then and if so there in of
    that who
    """
)
_MULTIPLES = {
    "twice": ("2", "1"),
    "double": ("2", "1"),
    "thrice": ("3", "1"),
    "triple": ("3", "1"),
    "half": ("1", "2"),
}


@dataclass(slots=True)
class _Cast:
    """Who has how much. A relation waits until the other is known."""

    known: dict[str, Formula] = field(default_factory=dict)
    waiting: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Name, other, operator, amount."""
    order: list[str] = field(default_factory=list)
    numbers: int = 0
    events: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, operator and amount of what happens afterwards."""

    def meet(self, name: str) -> str:
        if name not in self.order:
            self.order.append(name)
        return name


def read_comparison_story(sentences: Sequence[Sequence[Token]], agenda: Agenda) -> bool:
    """Adds the calculations of a story with a comparison; false when it is another kind of story."""
    texts = [_lowered(tokens) for tokens in sentences]
    texts = [
        re.sub(r"\b([a-z]+) ?,? who (is|has|was|had|weighs|earns)\b", r"\1 , \1 \2", text) for text in texts
    ]
    texts = [
        re.sub(r"\b(class|group|team|shop|school|tank|room|box) ([a-d])\b", r"\1\2", text) for text in texts
    ]
    story = " . ".join(texts)
    if not re.search(
        r"\b(?:than|as many|as much|as old|twice|as tall|as heavy|as long|as far|(?:double|"
        r"triple|half) the (?:number|amount|price|age))\b",
        story,
    ):
        return False
    question = next(
        (
            text
            for text in texts
            if re.search(r"\bhow (?:many|much|old|tall|long|heavy|far)\b|\bwhat is\b", text)
        ),
        "",
    )
    told, _, inside = question.partition("how ")
    inside, _, condition = inside.partition(" if ")
    cast = _Cast()
    for text in [*texts[: texts.index(question)], told, condition] if question else []:
        for clause in re.split(
            rf"[,;:]| and (?=[a-z' ]+? {_VERB} )| while | but | who | which | whereas ",
            text,
        ):
            _hear(clause.strip(" .?"), cast)
    _settle(cast, agenda)
    shift = re.search(r"\bin (\d+) years?\b|\b(\d+) years? from now\b", inside)
    past = re.search(r"\b(\d+) years? ago\b", inside)
    cast.numbers += bool(shift) + bool(past)
    digits = len(re.findall(r"\d+(?:\.\d+)?", story))
    if not question or cast.waiting or digits != cast.numbers or len(cast.known) < 2:
        return False
    if not _happen(cast, agenda):
        return False
    if not _answer("how " + inside if inside else question, cast, agenda):
        return False
    if agenda.last is not None and (shift or past):
        years = number(next(filter(None, shift.groups())) if shift else past.group(1) if past else "0")
        agenda.value(operation("+" if shift else "-", agenda.last, years))
    return True


def _lowered(tokens: Sequence[Token]) -> str:
    return plain([token for token in tokens if token.kind != "document"])


def _hear(clause: str, cast: _Cast) -> None:
    clause = re.sub(r"^(?:and|if|so|then|suppose|now) ", "", clause)
    if match := _MORE.search(clause):
        sign = "-" if match["sense"] in ("fewer", "less", "younger", "shorter", "lighter", "cheaper") else "+"
        _relate(cast, match["name"], match["other"], sign, match["num"])
    elif match := _TIMES.search(clause):
        _multiplied(cast, match)
    elif match := _BARE_MORE.search(clause):
        _relate(cast, match["name"], match["other"], "+" if match["sense"] == "more" else "-", match["num"])
        if told := _BARE_PLAIN.search(clause, match.end()):
            cast.known[cast.meet(_short(told["name"]))] = number(told["num"])
            cast.numbers += 1
    elif match := _EVENT.search(clause):
        cast.events.append((_short(match["name"]), "-" if match["loss"] else "+", match["num"]))
        cast.numbers += 1
    elif match := _PLAIN.search(clause):
        _state(cast, match, clause)
    elif match := _BARE_TIMES.search(clause):
        _multiplied(cast, match)
    elif match := _BARE_PLAIN.search(clause):
        cast.known[cast.meet(_short(match["name"]))] = number(match["num"])
        cast.numbers += 1


def _state(cast: _Cast, match: re.Match[str], clause: str) -> None:
    name = _short(match["name"])
    if name in ("there", "it", ""):
        bare = _BARE_PLAIN.search(clause)
        name = _short(bare["name"]) if bare else name
    cast.known[cast.meet(name)] = number(match["num"])
    cast.numbers += 1
    rest = clause[match.end() :]
    if inner := _BARE_TIMES.search(rest):
        _multiplied(cast, inner)
    elif inner := _BARE_MORE.search(rest):
        _relate(cast, inner["name"], inner["other"], "+" if inner["sense"] == "more" else "-", inner["num"])


def _multiplied(cast: _Cast, match: re.Match[str]) -> None:
    said = match["multiple"]
    other = match["other"] or (cast.order[-1] if cast.order else "")
    upper, lower = _MULTIPLES.get(said, (said.split()[0], "1"))
    if "third" in said or "quarter" in said:
        upper, lower = "1", "3" if "third" in said else "4"
    cast.numbers += bool(re.match(r"\d", said))
    _relate(
        cast,
        match["name"],
        other,
        "*" if lower == "1" else "/",
        upper if lower == "1" else lower,
        counted=False,
    )


def _relate(cast: _Cast, name: str, other: str, operator: str, amount: str, *, counted: bool = True) -> None:
    cast.numbers += counted
    cast.waiting.append((cast.meet(_short(name)), _short(other), operator, amount))


def _short(name: str) -> str:
    words = [word.removesuffix("'s") for word in name.split() if word not in _FILLER]
    return (
        words[-1]
        if words and words[0] in ("red", "blue") and len(words) == 1
        else (words[0] if words else "")
    )


def _settle(cast: _Cast, agenda: Agenda) -> None:
    """Works out the relations whose other side is known, until none is left or none can be."""
    progress = True
    while progress:
        progress = False
        for relation in list(cast.waiting):
            name, other, operator, amount = relation
            source = cast.known.get(other) or _only_other(cast, other, name)
            if source is not None:
                cast.known[name] = agenda.value(operation(operator, source, number(amount)))
                cast.waiting.remove(relation)
                progress = True
            elif name in cast.known and other and other not in cast.known:
                inverse = {"+": "-", "-": "+", "*": "/", "/": "*"}[operator]
                cast.known[cast.meet(other)] = agenda.value(
                    operation(inverse, cast.known[name], number(amount))
                )
                cast.waiting.remove(relation)
                progress = True


def _happen(cast: _Cast, agenda: Agenda) -> bool:
    """Applies what happens to one of them afterwards; false when it is unclear to whom."""
    for name, operator, amount in cast.events:
        who = (
            name
            if name in cast.known
            else (cast.order[0] if name in ("he", "she", "") and cast.order else "")
        )
        if who not in cast.known:
            return False
        cast.known[who] = agenda.value(operation(operator, cast.known[who], number(amount)))
    return True


def _only_other(cast: _Cast, other: str, name: str) -> Formula | None:
    """`he`, `her` and the like mean the only other one."""
    candidates = [key for key in cast.known if key != name]
    return (
        cast.known[candidates[-1]]
        if other in ("he", "she", "him", "her", "it", "them", "they", "") and candidates
        else None
    )


def _answer(question: str, cast: _Cast, agenda: Agenda) -> bool:
    named = [name for name in cast.order if re.search(rf"\b{re.escape(name)}s?\b", question)]
    if re.search(r"\b(?:together|total|altogether|combined|in all|all|sum|both|everyone)\b", question):
        chosen = named if len(named) > 1 else cast.order
        agenda.value(total([cast.known[name] for name in chosen]))
    elif (
        re.search(
            r"\bhow (?:many|much) (?:more|older|further|longer|taller)|\bdifference\b|\bolder "
            r".*than\b|\bmore .*than\b",
            question,
        )
        and len(named) >= 2
    ):
        agenda.value(
            operation("-", cast.known[named[0]], cast.known[named[1]])
            if question.find(named[0]) < question.find(named[1])
            else operation("-", cast.known[named[1]], cast.known[named[0]])
        )
    elif not named and cast.events and re.search(r"\b(?:he|she|they)\b", question):
        agenda.value(cast.known[cast.events[-1][0] if cast.events[-1][0] in cast.known else cast.order[0]])
    elif named:
        agenda.value(cast.known[max(named, key=lambda name: question.find(name))])
    else:
        return False
    return True
