"""How tasks about clocks are carried out."""

from decimal import Decimal

from treadle_server.models.demo import observations, wording
from treadle_server.models.demo.abilities import Ability
from treadle_server.models.demo.arithmetic.formulas import Formula, Number, operation, shown, total
from treadle_server.models.demo.steps import Desk, Failure, Finding, Solver, evaluated, use
from treadle_server.models.demo.tasks import (
    Clock,
    Elsewhere,
    Gap,
    Later,
    Until,
)


def read_clock(task: Clock, desk: Desk) -> Solver:
    seen = yield from use(
        desk,
        Ability.CLOCK,
        {"zone": task.zone},
        f"read the clock in {task.place}",
        lambda seen: observations.moment_in(seen.text) is not None,
        needed_for=f"tell the time in {task.place}",
    )
    moment = observations.moment_in(seen.text)
    assert moment is not None
    said = (
        wording.whether(task.place, moment, task.asked) if task.asked else wording.clock(task.place, moment)
    )
    return Finding(said if task.answers else "", moment=moment)


def _clock_of(desk: Desk, index: int) -> tuple[observations.Moment, str]:
    task, moment = desk.tasks[index], desk.findings[index].moment
    if moment is None or not isinstance(task, Clock):
        raise Failure("")
    return moment, task.place


def find_gap(task: Gap, desk: Desk) -> Solver:
    (first, first_place), (second, second_place) = _clock_of(desk, task.first), _clock_of(desk, task.second)
    formula = operation("-", Number(first.offset), Number(second.offset))
    value, expression = yield from evaluated(
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


def find_elsewhere(task: Elsewhere, desk: Desk) -> Solver:
    gap = desk.findings[task.gap].value if task.gap is not None else "0"
    hours, minutes = divmod(task.minutes, 60)
    if minutes == 0 and "." not in str(gap) and task.later % 60 == 0:
        parts = [Number(str(hours)), Number(gap or "0")] + (
            [Number(str(task.later // 60))] if task.later else []
        )
        value, _ = yield from evaluated(desk, total(list(parts)))
        moved = Decimal(value) * 60
    else:
        sixty = Number("60")
        terms: list[Formula] = [
            operation("*", Number(str(hours)), sixty),
            Number(str(minutes)),
            operation("*", Number(gap or "0"), sixty),
        ]
        terms += [Number(str(task.later))] if task.later else []
        value, _ = yield from evaluated(desk, total(terms))
        moved = Decimal(value)
    return Finding(wording.elsewhere(task, moved), value)


def find_later(task: Later, desk: Desk) -> Solver:
    moment, place = _clock_of(desk, task.clock)
    formula = total(
        [
            operation("*", Number(str(moment.shown.hour)), Number("60")),
            Number(str(moment.shown.minute)),
            Number(str(task.minutes)),
        ]
    )
    value, _ = yield from evaluated(desk, formula)
    return Finding(wording.later(place, moment, task.minutes, Decimal(value)), value)


def find_until(task: Until, desk: Desk) -> Solver:
    moment, place = _clock_of(desk, task.clock)
    sixty = Number("60")
    now = operation(
        "+", operation("*", Number(str(moment.shown.hour)), sixty), Number(str(moment.shown.minute))
    )
    formula = operation("%", operation("-", Number(str(task.minutes)), now), Number("1440"))
    value, _ = yield from evaluated(desk, formula)
    return Finding(wording.until(place, moment, task.label, value), value)
