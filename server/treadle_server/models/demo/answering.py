"""Findings as an answer, and the next steps as a thought."""

import json
from collections.abc import Mapping
from typing import Any

from treadle_server.models.demo import wording
from treadle_server.models.demo.abilities import properties_of, schema_of_text
from treadle_server.models.demo.arithmetic.formulas import shown
from treadle_server.models.demo.steps import Finding
from treadle_server.models.demo.tasks import Agenda, Calculate, Recall, needs


def plan(steps: int, done: int, purposes: list[str]) -> str:
    """One or two sentences on what comes next."""
    listed = purposes[0] if len(purposes) == 1 else "; ".join(purposes[:-1]) + "; and " + purposes[-1]
    if done == 0:
        opening = f"I see {steps} steps here." if steps > 1 else "This takes one step."
        return f"{opening} First I {listed}."
    return f"{done} of {steps} steps are done. Now I {listed}."


def sentences(agenda: Agenda, findings: Mapping[int, Finding]) -> list[str]:
    """What was found, each with the steps that led to it, and nothing twice."""
    told: list[str] = []
    stated: set[int] = set()
    for index in sorted(findings):
        if not _is_goal(agenda, findings, index):
            continue
        finding = findings[index]
        steps = [step for step in _steps(agenda, findings, index) if step not in stated]
        stated.update(steps)
        known = [_note(agenda, findings, step) for step in steps]
        equations = [_equation(agenda, findings, step) for step in steps]
        sentence = _concluded([text for text in known if text], [text for text in equations if text], finding)
        if sentence and sentence not in told:
            told.append(sentence)
    return told


def _is_goal(agenda: Agenda, findings: Mapping[int, Finding], index: int) -> bool:
    """An answer of its own, and no step of another calculation."""
    if not findings[index].sentence:
        return False
    if findings[index].failed:
        return True
    task = agenda.tasks[index]
    if not getattr(task, "answers", True):
        return False
    users = [
        other for other in findings if index in needs(agenda.tasks[other]) and not findings[other].failed
    ]
    return not (
        isinstance(task, Calculate)
        and not task.asked
        and any(isinstance(agenda.tasks[other], Calculate) for other in users)
    )


def _steps(agenda: Agenda, findings: Mapping[int, Finding], index: int) -> list[int]:
    """The calculations and look-ups that lead to a finding, and its own."""
    found: list[int] = []
    for other in needs(agenda.tasks[index]):
        if other in findings and not (
            findings[other].sentence and not isinstance(agenda.tasks[other], Calculate)
        ):
            found += [step for step in _steps(agenda, findings, other) if step not in found]
    return [*found, index]


def _note(agenda: Agenda, findings: Mapping[int, Finding], index: int) -> str:
    """A note that a calculation rests on, as a sentence."""
    task, finding = agenda.tasks[index], findings[index]
    if not isinstance(task, Recall) or task.answers or finding.failed:
        return ""
    return finding.equation or f"{wording.capital(wording.yours(task.phrase))} is {finding.raw.rstrip('.')}."


def _equation(agenda: Agenda, findings: Mapping[int, Finding], index: int) -> str:
    task, finding = agenda.tasks[index], findings[index]
    if isinstance(task, Recall):
        return ""
    return finding.equation if isinstance(task, Calculate) or not finding.sentence else ""


def _concluded(known: list[str], equations: list[str], finding: Finding) -> str:
    chain = wording.capital(", then ".join(equations))
    if not equations:
        parts = [*known, finding.sentence]
    elif finding.sentence.startswith("The answer is"):
        parts = [*known, f"{chain}, so t{finding.sentence[1:]}"]
    else:
        parts = [*known, f"{chain}.", finding.sentence]
    return " ".join(parts)


def values(agenda: Agenda, findings: Mapping[int, Finding]) -> list[str]:
    """The values of the answers, in their order."""
    return [
        finding.value
        for index, finding in sorted(findings.items())
        if finding.value is not None and _is_goal(agenda, findings, index)
    ]


def formed(text: str, values: list[str], output_schema_json: str) -> str:
    """The answer in the form of a wanted schema, as far as it can be filled honestly; else the text."""
    schema = schema_of_text(output_schema_json) if output_schema_json else {}
    if not schema:
        return text
    filled = _filled(
        schema,
        text,
        values,
        set(schema.get("required", ())) if isinstance(schema.get("required"), list) else set(),
    )
    return text if filled is None else json.dumps(filled, ensure_ascii=False)


def _filled(schema: Mapping[str, Any], text: str, values: list[str], required: set[str]) -> Any:
    kind = schema.get("type")
    if kind == "object" or (kind is None and "properties" in schema):
        filled = {
            name: _filled(value, text, values, set(value.get("required", ())))
            for name, value in properties_of(schema).items()
        }
        if any(filled.get(name) is None for name in required):
            return None
        return {name: value for name, value in filled.items() if value is not None}
    if kind == "string":
        return text
    if kind == "array":
        items = schema.get("items")
        inner = [_filled(items, text, [value], set()) for value in values] if isinstance(items, dict) else []
        return None if None in inner else inner
    if kind in ("number", "integer") and values:
        said = shown(values[-1]).split(" ")[0]
        number = float(values[-1]) if "." in said else int(said)
        return number if kind == "number" or isinstance(number, int) else None
    return None
