"""How each kind of task is carried out: which calls it makes, and what it finds in their answers.

A solver is a generator. It yields the calls it wants next and is sent what they gave; it returns a finding.
It keeps nothing: the same transcript leads it along the same way each turn.
"""

from decimal import Decimal

from treadle_server.models.demo import observations, wording
from treadle_server.models.demo.abilities import Ability
from treadle_server.models.demo.arithmetic.formulas import Number, operation, shown, total
from treadle_server.models.demo.clocks.solving import (
    find_elsewhere,
    find_gap,
    find_later,
    find_until,
    read_clock,
)
from treadle_server.models.demo.documents.shapes import named_extreme
from treadle_server.models.demo.note_solving import list_keys, recall_note, store_note
from treadle_server.models.demo.steps import Call, Desk, Failure, Finding, Solver, evaluated, use
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


def solve(task: Task, desk: Desk) -> Solver:
    match task:
        case Calculate():
            return _calculate(task, desk)
        case Recall():
            return recall_note(task, desk)
        case ListNotes():
            return list_keys(desk)
        case Store():
            return store_note(task, desk)
        case Query():
            return _query(task, desk)
        case RowTotal():
            return _row_total(task, desk)
        case Clock():
            return read_clock(task, desk)
        case Gap():
            return find_gap(task, desk)
        case Elsewhere():
            return find_elsewhere(task, desk)
        case Later():
            return find_later(task, desk)
        case Until():
            return find_until(task, desk)
        case Errand():
            return _errand(task)
        case Say():
            return _say(task, desk)


def _calculate(task: Calculate, desk: Desk) -> Solver:
    value, expression = yield from evaluated(desk, task.formula)
    said = shown(value)
    equation = f"{expression} = {said}"
    if not task.answers:
        return Finding("", value, equation=equation)
    if task.asked:
        positive, zero = Decimal(value) > 0, Decimal(value) == 0
        agreed = not zero and positive == (task.asked == "more")
        return Finding(f"{'Yes' if agreed else 'No'}: the difference {expression} is {said}.", value)
    return Finding(wording.answer(said, task.unit), value, equation=equation)


def _query(task: Query, desk: Desk) -> Solver:
    inputs = {"document": task.document, "query": task.query}
    purpose = f"query the JSON for {task.about}"
    try:
        seen = yield from use(
            desk, Ability.QUERY, inputs, purpose, lambda seen: True, needed_for=f"find {task.about}"
        )
    except Failure:
        if not task.plain_query or Ability.QUERY not in desk.skills or Ability.CALCULATE not in desk.skills:
            raise
        return (yield from _folded(task, desk))
    said = observations.told(seen.text)
    if task.fold.endswith("_name"):
        name = named_extreme(seen.text, task.fold)
        if name is None:
            raise Failure(f"I cannot tell {task.about}: the values are {said}.")
        return Finding(wording.found(task.about, name) if task.answers else "", raw=name)
    value = observations.number_in(seen.text)
    told = shown(said) if value is not None and value == seen.text.strip() else said
    sentence = wording.found(task.about, told) if task.answers else ""
    return Finding(sentence, value, raw=seen.text, equation=f"{task.about} is {told}")


def _folded(task: Query, desk: Desk) -> Solver:
    """The list by a plain query, and its sum or mean by the calculator."""
    inputs = {"document": task.document, "query": task.plain_query}
    seen = yield from use(
        desk, Ability.QUERY, inputs, f"query the JSON for the values behind {task.about}", lambda seen: True
    )
    numbers = observations.numbers_in_list(seen.text)
    if numbers is None:
        raise Failure(f"I cannot work out {task.about}: the values are {observations.told(seen.text)}.")
    formula = total([Number(text) for text in numbers])
    if task.fold == "mean":
        formula = operation("/", formula, Number(str(len(numbers))))
    value, _ = yield from evaluated(desk, formula)
    return Finding(wording.found(task.about, shown(value)) if task.answers else "", value)


def _row_total(task: RowTotal, desk: Desk) -> Solver:
    rows = observations.rows_in(desk.findings[task.rows].raw)
    if rows is None:
        raise Failure(
            f"I cannot work out {task.about}: the rows are {observations.told(desk.findings[task.rows].raw)}."
        )
    formula = total([operation("*", *[Number(text) for text in row]) for row in rows])
    value, expression = yield from evaluated(desk, formula)
    return Finding(f"{wording.capital(task.about)} is {expression} = {shown(value)}.", value)


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
    return Finding(
        wording.said(task.kind, task.text), failed=task.kind in ("lack", "long", "unread", "unclear")
    )
    yield  # a solver without calls is a generator too
