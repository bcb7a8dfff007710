"""Clauses that ask for a value: arithmetic, conversions, comparisons."""

import re
from collections.abc import Sequence
from dataclasses import replace

from treadle_server.models.demo.arithmetic.calculations import read_calculation, read_comparison, stripped
from treadle_server.models.demo.arithmetic.formulas import Formula, Number, Result, is_plain, operation
from treadle_server.models.demo.arithmetic.words import Token, plain, stem, tokens_of
from treadle_server.models.demo.references import IT, resolver
from treadle_server.models.demo.stories.quantities import converted
from treadle_server.models.demo.tasks import Agenda, Calculate, Gap, Query, Recall

ARITHMETIC = re.compile(
    r"\d ?%|\b(?:plus|minus|times|multipl\w+|divid\w+|half|third of|quarter of|twice|"
    r"doubled?|tripled?|halved|squared?|cubed?|root|power|add|subtract|percent\w*|increase\w*|decrease\w*|"
    r"reduce\w*|raise|lower|exceeds?|halve|round|deduct|take|difference)\b|[-+*/]"
)
_IN_UNIT = re.compile(
    r"^(?:how many|what is (?:that|it|this) in|what's (?:that|it) in|convert (?:that|it|"
    r"this|the result) (?:to|into)|(?:and )?in|express (?:that|it) in) (seconds|minutes|"
    r"hours|days|weeks|months|years|cents)(?: is (?:that|it|this)| are (?:that|there|they)|"
    r" does that make)?$"
)
_CLOSES = re.compile(
    r"^(?:so |and )?(?:what(?:'s| is| do| will| would|'ll)?|how much(?: do| is| will| "
    r"would)?)\s*(?:you|i|we|it|that|be|is)?\s*(?:the )?(?:(?:final |end )?(?:result|"
    r"answer|total|number|value)|get|have|left|be|end up with|have left)\s*(?:in the end|"
    r"now|then|at the end|left)?\s*\??$|^(?:what do you get|what's left|what remains|what "
    r"is left|what number do you get|what do i get|what do i end up with)\??$",
    re.IGNORECASE,
)


def close_chain(clause: str, agenda: Agenda) -> bool:
    """`What do you get?` behind a chain of orders asks for what they end with."""
    last = agenda.last
    begun = isinstance(last, Result) and bool(agenda.starts) and last.task >= agenda.starts[-1]
    return begun and bool(_CLOSES.match(clause))


_UNITS_ASKED = re.compile(
    r"^(?:how many (?P<first>[a-z]+) (?:are there in|are in|is|are|make up|in|does|do|has|"
    r"have|fit in)|(?:what is|convert|what are|express|change) (?=\d)) "
    r"?(?P<count>\d+(?:\.\d+)?) (?P<unit>[a-z]+)(?: have)?(?: (?:in|to|into|as) "
    r"(?P<second>[a-z]+))?$"
)


def convert(clause: str, agenda: Agenda) -> bool:
    """`how many minutes are in 3.5 hours`."""
    match = _UNITS_ASKED.match(plain(stripped(tokens_of(clause))).strip(" ?.")) or _UNITS_ASKED.match(
        plain(tokens_of(clause)).strip(" ?.")
    )
    wanted = (match["first"] or match["second"]) if match else None
    value = converted(Number(match["count"]), stem(match["unit"]), stem(wanted)) if match and wanted else None
    if value is None or wanted is None:
        return False
    agenda.result(Calculate(value, stem(wanted)), stem(wanted))
    return True


def convert_last(clause: str, agenda: Agenda) -> bool:
    """`how many minutes is that`."""
    match = _IN_UNIT.match(clause.lower().strip(" ?.!"))
    if not match or agenda.last is None or not agenda.last_unit:
        return False
    unit = stem(match[1])
    value = converted(agenda.last, agenda.last_unit, unit)
    if value is None:
        return False
    agenda.result(Calculate(value, unit), unit)
    return True


def calculate_first(clause: str, agenda: Agenda) -> bool:
    """What speaks of operations and reads as arithmetic is no mere question about a clock or a document."""
    return bool(ARITHMETIC.search(plain(stripped(tokens_of(clause))))) and calculate(clause, agenda)


def calculate(clause: str, agenda: Agenda) -> bool:
    tokens = tokens_of(clause)
    formula = read_calculation(tokens, agenda.last, resolver(agenda))
    if formula is None:
        return False
    if is_plain(formula):
        return _plain_value(tokens, formula, agenda)
    unit = (
        "$"
        if any(token.money for token in tokens)
        else agenda.last_unit
        if agenda.last_unit in ("$",)
        else ""
    )
    agenda.result(Calculate(formula, unit), unit)
    return True


def _plain_value(tokens: Sequence[Token], formula: Formula, agenda: Agenda) -> bool:
    """A clause that only names a value: `take 12`, `what is my badge?`."""
    text = plain(tokens)
    if isinstance(formula, Number):
        starts = re.search(
            r"^(?:[a-z ]+ )?(?:take|start|begin|think of|pick|starting|with|the number|let|use)\b|^\d", text
        )
        agenda.last, agenda.last_unit = formula, ""
        return bool(starts)
    agenda.last = formula
    task = agenda.tasks[formula.task] if isinstance(formula, Result) else None
    if isinstance(task, Gap) and isinstance(formula, Result):
        agenda.tasks[formula.task] = Gap(task.first, task.second)
    if isinstance(task, Query) and isinstance(formula, Result):
        agenda.tasks[formula.task] = replace(task, answers=True)
    if isinstance(task, Recall) and isinstance(formula, Result):
        agenda.tasks[formula.task] = Recall(task.phrase, task.known, task.after)
        return True
    return bool(IT.match(plain(stripped(tokens))) or task is not None)


_WHICH = re.compile(
    r"^which(?: one| number| of these| of the two)?(?: is| are|'s)? (?:the )?(?P<sense>[a-z]+)(?: "
    r"one)?[,:;]? "
    r"(?P<left>.+?),? or (?P<right>.+?),? (?:and )?by how much[ ?.]*$",
    re.IGNORECASE,
)
_LARGE = ("larger", "bigger", "greater", "more", "higher", "largest", "biggest", "greatest", "highest")
_SMALL = ("smaller", "less", "lower", "smallest", "least", "lowest", "lesser")


def compare_both(clause: str, agenda: Agenda) -> bool:
    """`which is bigger, A or B, and by how much`: the value and the difference."""
    match = _WHICH.match(clause.strip())
    if match is None or match["sense"].lower() not in (*_LARGE, *_SMALL):
        return False
    sides = [read_calculation(tokens_of(match[side]), None, resolver(agenda)) for side in ("left", "right")]
    left, right = sides
    if left is None or right is None:
        return False
    left, right = agenda.value(left), agenda.value(right)
    fold = "max" if match["sense"].lower() in _LARGE else "min"
    agenda.add(Calculate(operation(fold, left, right)))
    agenda.result(Calculate(operation("abs", operation("-", left, right))))
    return True


def compare(clause: str, agenda: Agenda) -> bool:
    found = read_comparison(tokens_of(clause), resolver(agenda))
    if found is None or is_plain(found[0]):
        return False
    agenda.result(Calculate(found[0], asked=found[1]))
    return True
