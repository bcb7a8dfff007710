"""What solvers work with: calls, what they gave, findings, and the use of an ability."""

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

from treadle_server.core.kinds import CallStatus
from treadle_server.models.demo import observations, wording
from treadle_server.models.demo.abilities import Ability, Skill
from treadle_server.models.demo.arithmetic.formulas import Formula, rendered
from treadle_server.models.demo.tasks import (
    Task,
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


class Failure(Exception):  # noqa: N818 - an outcome to tell, no fault of ours
    """A task cannot be carried out; the text says why, for the answer."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a solver works with."""

    skills: Mapping[Ability, tuple[Skill, ...]]
    findings: Findings
    tasks: list[Task]


_PERMANENT = (
    "zero",
    "syntax",
    "invalid",
    "not allowed",
    "not permitted",
    "denied",
    "unknown",
    "not found",
    "unsupported",
    "cannot parse",
    "too large",
    "no such",
    "forbidden",
    "must be",
    "expected",
)
FINAL = frozenset({CallStatus.REJECTED, CallStatus.CANCELLED})


def use(
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
    seen = yield call_of(skills[0], inputs, purpose)
    if seen.ok and good(seen):
        return seen
    first = seen
    if seen.status in FINAL:
        raise Failure(wording.failed(purpose, seen.status, seen.text))
    if other is not None or len(skills) > 1 or may_pass(seen):
        again = yield call_of(
            skills[1 if len(skills) > 1 else 0], other or inputs, f"{purpose}, in a second attempt"
        )
        if again.ok and good(again):
            return again
    raise Failure(wording.failed(purpose, first.status, first.text))


def call_of(skill: Skill, inputs: dict[str, str], purpose: str) -> Call:
    return Call(skill.tool, json.dumps(skill.arguments(inputs), ensure_ascii=False), purpose)


def may_pass(seen: Seen) -> bool:
    return not seen.ok and not any(word in seen.text.lower() for word in _PERMANENT)


def evaluated(
    desk: Desk, formula: Formula, *, needed_for: str = ""
) -> Generator[Call, Seen, tuple[str, str]]:
    """The calculator's value of a formula, and the expression it was asked for."""
    values = {index: finding.value for index, finding in desk.findings.items() if finding.value is not None}
    try:
        expression = rendered(formula, values)
    except KeyError as missing:
        raise Failure(_no_number(desk, int(missing.args[0]))) from None
    other = {"expression": _rewritten(expression)} if _rewritten(expression) != expression else None
    seen = yield from use(
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
