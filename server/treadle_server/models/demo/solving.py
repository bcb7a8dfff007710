"""How each kind of task is carried out: which calls it makes, and what it finds in their answers.

A solver is a generator. It yields the calls it wants next and is sent what they gave; it returns a finding.
It keeps nothing: the same transcript leads it along the same way each turn.
"""

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from treadle_server.core.kinds import CallStatus
from treadle_server.models.demo import notes, observations, wording
from treadle_server.models.demo.abilities import Ability, Skill
from treadle_server.models.demo.formulas import Formula, Number, operation, rendered, shown, total
from treadle_server.models.demo.tasks import (
    Calculate,
    Clock,
    Elsewhere,
    Errand,
    Gap,
    Later,
    ListNotes,
    Query,
    Recall,
    RowTotal,
    Say,
    Store,
    Task,
    Until,
)


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that a step wants."""

    tool: str
    arguments_json: str
    purpose: str
    """Says in a thought what it is for."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How a call ended."""

    status: CallStatus
    text: str

    @property
    def ok(self) -> bool:
        return self.status == CallStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Finding:
    """What a task came to."""

    sentence: str
    """For the answer; may be empty."""
    value: str | None = None
    moment: observations.Moment | None = None
    failed: bool = False
    equation: str = ""
    raw: str = ""


Solver = Generator[Call, Seen, Finding]
Findings = Mapping[int, Finding]


class Failure(Exception):
    """A task cannot be carried out; the text says why, for the answer."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a solver works with."""

    skills: Mapping[Ability, tuple[Skill, ...]]
    findings: Findings
    tasks: list[Task]


_PERMANENT = (
    "zero", "syntax", "invalid", "not allowed", "not permitted", "denied", "unknown", "not found", "unsupported", "cannot parse", "too large", "no such", "forbidden", "must be", "expected"
)  # fmt: skip
_FINAL = frozenset({CallStatus.REJECTED, CallStatus.CANCELLED})


def solve(task: Task, desk: Desk) -> Solver:
    match task:
        case Calculate():
            return _calculate(task, desk)
        case Recall():
            return _recall(task, desk)
        case ListNotes():
            return _list_notes(desk)
        case Store():
            return _store(task, desk)
        case Query():
            return _query(task, desk)
        case RowTotal():
            return _row_total(task, desk)
        case Clock():
            return _clock(task, desk)
        case Gap():
            return _gap(task, desk)
        case Elsewhere():
            return _elsewhere(task, desk)
        case Later():
            return _later(task, desk)
        case Until():
            return _until(task, desk)
        case Errand():
            return _errand(task)
        case Say():
            return _say(task, desk)


def _use(
    desk: Desk,
    ability: Ability,
    inputs: dict[str, str],
    purpose: str,
    good: Callable[[Seen], bool],
    *,
    other: dict[str, str] | None = None,
    needed_for: str = "",
) -> Generator[Call, Seen, Seen]:
    """Calls the tool of an ability, once more or another way if that may help; raises Failure."""
    skills = desk.skills.get(ability)
    if not skills:
        raise Failure(wording.lacking(ability.value, needed_for))
    seen = yield _call(skills[0], inputs, purpose)
    if seen.ok and good(seen):
        return seen
    first = seen
    if seen.status in _FINAL:
        raise Failure(wording.failed(purpose, seen.status, seen.text))
    if other is not None or len(skills) > 1 or _may_pass(seen):
        again = yield _call(
            skills[1 if len(skills) > 1 else 0], other or inputs, f"{purpose}, in a second attempt"
        )
        if again.ok and good(again):
            return again
    raise Failure(wording.failed(purpose, first.status, first.text))


def _call(skill: Skill, inputs: dict[str, str], purpose: str) -> Call:
    return Call(skill.tool, json.dumps(skill.arguments(inputs), ensure_ascii=False), purpose)


def _may_pass(seen: Seen) -> bool:
    return not seen.ok and not any(word in seen.text.lower() for word in _PERMANENT)


def _evaluated(
    desk: Desk, formula: Formula, *, needed_for: str = ""
) -> Generator[Call, Seen, tuple[str, str]]:
    """The calculator's value of a formula, and the expression it was asked for."""
    values = {index: finding.value for index, finding in desk.findings.items() if finding.value is not None}
    try:
        expression = rendered(formula, values)
    except KeyError as missing:
        raise Failure(_no_number(desk, int(missing.args[0]))) from None
    other = {"expression": _rewritten(expression)} if _rewritten(expression) != expression else None
    seen = yield from _use(
        desk,
        Ability.CALCULATE,
        {"expression": expression},
        f"work out {expression}",
        lambda seen: observations.number_in(seen.text) is not None,
        other=other,
        needed_for=needed_for or f"work out {expression}",
    )
    return observations.number_in(seen.text) or "", expression


def _rewritten(expression: str) -> str:
    """The same value in plainer signs, for a calculator that lacks a function."""
    if expression.startswith("sqrt(") and expression.count("(") == 1:
        return f"({expression[5:-1]}) ** 0.5"
    return expression


def _no_number(desk: Desk, task: int) -> str:
    finding = desk.findings.get(task)
    if finding is None or finding.failed:
        return ""
    said = finding.raw or finding.sentence
    return f"I cannot calculate with what I found, because it has no single number: {said}".rstrip(".") + "."


def _calculate(task: Calculate, desk: Desk) -> Solver:
    value, expression = yield from _evaluated(desk, task.formula)
    said = shown(value)
    equation = f"{expression} = {said}"
    if not task.answers:
        return Finding("", value, equation=equation)
    if task.asked:
        positive, zero = Decimal(value) > 0, Decimal(value) == 0
        agreed = not zero and positive == (task.asked == "more")
        return Finding(f"{'Yes' if agreed else 'No'}: the difference {expression} is {said}.", value)
    return Finding(wording.answer(said, task.unit), value, equation=equation)


def _recall(task: Recall, desk: Desk) -> Solver:
    if Ability.FETCH not in desk.skills:
        return _without_notes(task)
    text = yield from _fetched(notes.key_of(task.phrase), task, desk)
    if text is None:
        return _not_noted(task)
    said = wording.noted(task.phrase, text) if task.answers else ""
    return Finding(said, observations.number_in(text), raw=text)


def _without_notes(task: Recall) -> Finding:
    subject = wording.yours(task.phrase)
    if task.known:
        return _said_before(
            task, f"I have no tool that {Ability.FETCH.value}, but in this conversation you said"
        )
    if task.guess:
        return Finding(
            (
                f"I cannot tell {subject}: I have no source of general knowledge and no tool that "
                f"{Ability.FETCH.value}."
            ),
            failed=True,
        )
    raise Failure(wording.lacking(Ability.FETCH.value, f"look up {subject}"))


def _not_noted(task: Recall) -> Finding:
    if task.known:
        return _said_before(task, "I find no note on it, but you said")
    tail = " and I have no source of general knowledge" if task.guess else ""
    return Finding(f"I have no note about {wording.yours(task.phrase)}{tail}.", failed=True)


def _said_before(task: Recall, opening: str) -> Finding:
    sentence = f"{opening} that {wording.yours(task.phrase)} is {task.known}."
    return Finding(
        sentence if task.answers else "",
        observations.number_in(task.known),
        raw=task.known,
        equation=sentence,
    )


def _fetched(key: str, task: Recall, desk: Desk) -> Generator[Call, Seen, str | None]:
    """The note under the key, or under the stored key most like it."""
    skill = desk.skills[Ability.FETCH][0]
    purpose = f"look up the note {key}"
    seen = yield _call(skill, {"key": key}, purpose)
    if (
        not seen.ok
        and _may_pass(seen)
        and seen.status not in _FINAL
        and not observations.says_nothing(seen.text)
    ):
        seen = yield _call(skill, {"key": key}, f"{purpose}, in a second attempt")
        if not seen.ok and not observations.says_nothing(seen.text):
            raise Failure(wording.failed(purpose, seen.status, seen.text))
    if seen.status in _FINAL:
        raise Failure(wording.failed(purpose, seen.status, seen.text))
    if seen.ok and not observations.says_nothing(seen.text):
        return observations.note_text(seen.text)
    listing = yield _call(skill, {"key": ""}, "list the keys of all notes, as there is none of that name")
    other = notes.best_key(key, observations.keys_in(listing.text)) if listing.ok else ""
    if not other or other == key:
        return None
    seen = yield _call(skill, {"key": other}, f"look up the note {other}")
    return observations.note_text(seen.text) if seen.ok and not observations.says_nothing(seen.text) else None


def _list_notes(desk: Desk) -> Solver:
    seen = yield from _use(
        desk,
        Ability.FETCH,
        {"key": ""},
        "list the keys of all notes",
        lambda seen: True,
        needed_for="list what is stored",
    )
    if observations.says_nothing(seen.text):
        return Finding("I have no notes so far.")
    keys = observations.keys_in(seen.text)
    return Finding(
        f"I have notes under these keys: {', '.join(keys)}." if keys else "I have no notes so far."
    )


def _store(task: Store, desk: Desk) -> Solver:
    text = task.text
    if task.value is not None:
        finding = desk.findings[task.value]
        text = (
            shown(finding.value).split(" (")[0]
            if finding.value is not None
            else observations.told(finding.raw)
        )
    yield from _use(
        desk,
        Ability.STORE,
        {"key": task.key, "text": text},
        f"store {text} as {task.key}",
        lambda seen: True,
        needed_for=f"remember {task.key.replace('_', ' ')} beyond this conversation",
    )
    return Finding(f"I have stored {text} under {task.key}.", raw=text)


def _query(task: Query, desk: Desk) -> Solver:
    inputs = {"document": task.document, "query": task.query}
    purpose = f"query the JSON for {task.about}"
    try:
        seen = yield from _use(
            desk, Ability.QUERY, inputs, purpose, lambda seen: True, needed_for=f"find {task.about}"
        )
    except Failure:
        if not task.plain_query or Ability.QUERY not in desk.skills or Ability.CALCULATE not in desk.skills:
            raise
        return (yield from _folded(task, desk))
    said = observations.told(seen.text)
    value = observations.number_in(seen.text)
    told = shown(said) if value is not None and value == seen.text.strip() else said
    sentence = wording.found(task.about, told) if task.answers else ""
    return Finding(sentence, value, raw=seen.text, equation=f"{task.about} is {told}")


def _folded(task: Query, desk: Desk) -> Solver:
    """The list by a plain query, and its sum or mean by the calculator."""
    inputs = {"document": task.document, "query": task.plain_query}
    seen = yield from _use(
        desk, Ability.QUERY, inputs, f"query the JSON for the values behind {task.about}", lambda seen: True
    )
    numbers = observations.numbers_in_list(seen.text)
    if numbers is None:
        raise Failure(f"I cannot work out {task.about}: the values are {observations.told(seen.text)}.")
    formula = total([Number(text) for text in numbers])
    if task.fold == "mean":
        formula = operation("/", formula, Number(str(len(numbers))))
    value, _ = yield from _evaluated(desk, formula)
    return Finding(wording.found(task.about, shown(value)) if task.answers else "", value)


def _row_total(task: RowTotal, desk: Desk) -> Solver:
    rows = observations.rows_in(desk.findings[task.rows].raw)
    if rows is None:
        raise Failure(
            f"I cannot work out {task.about}: the rows are {observations.told(desk.findings[task.rows].raw)}."
        )
    formula = total([operation("*", *[Number(text) for text in row]) for row in rows])
    value, expression = yield from _evaluated(desk, formula)
    return Finding(f"{wording.capital(task.about)} is {expression} = {shown(value)}.", value)


def _clock(task: Clock, desk: Desk) -> Solver:
    seen = yield from _use(
        desk,
        Ability.CLOCK,
        {"zone": task.zone},
        f"read the clock in {task.place}",
        lambda seen: observations.moment_in(seen.text) is not None,
        needed_for=f"tell the time in {task.place}",
    )
    moment = observations.moment_in(seen.text)
    assert moment is not None
    return Finding(wording.clock(task.place, moment) if task.answers else "", moment=moment)


def _clock_of(desk: Desk, index: int) -> tuple[observations.Moment, str]:
    task, moment = desk.tasks[index], desk.findings[index].moment
    if moment is None or not isinstance(task, Clock):
        raise Failure("")
    return moment, task.place


def _gap(task: Gap, desk: Desk) -> Solver:
    (first, first_place), (second, second_place) = _clock_of(desk, task.first), _clock_of(desk, task.second)
    formula = operation("-", Number(first.offset), Number(second.offset))
    value, expression = yield from _evaluated(
        desk, formula, needed_for=f"work out the hours between {first_place} and {second_place}"
    )
    sentence = wording.gap(first_place, second_place, value)
    return Finding(
        sentence if task.answers else "",
        _absolute(value) if task.answers else value,
        equation=f"{expression} = {shown(value)}",
        raw=sentence,
    )


def _absolute(value: str) -> str:
    return value.removeprefix("-")


def _elsewhere(task: Elsewhere, desk: Desk) -> Solver:
    gap = desk.findings[task.gap].value if task.gap is not None else "0"
    hours, minutes = divmod(task.minutes, 60)
    if minutes == 0 and "." not in str(gap) and task.later % 60 == 0:
        parts = [Number(str(hours)), Number(gap or "0")] + (
            [Number(str(task.later // 60))] if task.later else []
        )
        value, _ = yield from _evaluated(desk, total(list(parts)))
        moved = Decimal(value) * 60
    else:
        sixty = Number("60")
        terms: list[Formula] = [
            operation("*", Number(str(hours)), sixty),
            Number(str(minutes)),
            operation("*", Number(gap or "0"), sixty),
        ]
        terms += [Number(str(task.later))] if task.later else []
        value, _ = yield from _evaluated(desk, total(terms))
        moved = Decimal(value)
    return Finding(wording.elsewhere(task, moved), value)


def _later(task: Later, desk: Desk) -> Solver:
    moment, place = _clock_of(desk, task.clock)
    formula = total(
        [
            operation("*", Number(str(moment.shown.hour)), Number("60")),
            Number(str(moment.shown.minute)),
            Number(str(task.minutes)),
        ]
    )
    value, _ = yield from _evaluated(desk, formula)
    return Finding(wording.later(place, moment, task.minutes, Decimal(value)), value)


def _until(task: Until, desk: Desk) -> Solver:
    moment, place = _clock_of(desk, task.clock)
    sixty = Number("60")
    now = operation(
        "+", operation("*", Number(str(moment.shown.hour)), sixty), Number(str(moment.shown.minute))
    )
    formula = operation("%", operation("-", Number(str(task.minutes)), now), Number("1440"))
    value, _ = yield from _evaluated(desk, formula)
    return Finding(wording.until(place, moment, task.label, value), value)


def _errand(task: Errand) -> Solver:
    purpose = f"use {task.tool}"
    seen = yield Call(task.tool, task.arguments_json, purpose)
    if not seen.ok:
        raise Failure(wording.failed(purpose, seen.status, seen.text))
    return Finding(
        f"{task.tool} answered: {observations.told(seen.text)}",
        observations.number_in(seen.text),
        raw=seen.text,
    )


def _say(task: Say, desk: Desk) -> Solver:
    if task.kind in ("greeting", "thanks", "abilities"):
        return Finding(wording.small_talk(task.kind, [ability.value for ability in desk.skills]))
    return Finding(wording.said(task.kind, task.text), failed=task.kind in ("lack", "unread", "unclear"))
    yield  # a solver without calls is a generator too
