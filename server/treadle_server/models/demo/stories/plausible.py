"""Whether what the rules make of a story can be what it asks for."""

import re
from collections.abc import Sequence
from decimal import Decimal, DecimalException

from treadle_server.models.demo.arithmetic.formulas import Formula, Number, Result
from treadle_server.models.demo.arithmetic.words import Token
from treadle_server.models.demo.stories.quantities import MONEY, quantities_in
from treadle_server.models.demo.stories.rates import Unexplained
from treadle_server.models.demo.tasks import Agenda, Calculate

_PAID = re.compile(
    r"\bhow much\b.*\b(?:costs?|pays?|paid|earn\w*|spends?|spent|owes?|charged?|worth)\b"
    r"|\bwhat\b.*\b(?:costs?|price|pays?|paid|earn\w*|wages?|bill|worth)\b"
)
_BELOW_ZERO = re.compile(
    r"\b(?:temperature|degrees?|balance|account|floor|profit|loss|debt|overdr\w+|sea level)\b"
)
_RIVALS = re.compile(r"\b(?:fewer|less) (?:[a-z]+ ){0,3}than (?!\d)|\b\d+ more (?:[a-z]+ ){0,2}than (?!\d)")
_UNDONE = re.compile(
    r"\b(?:original\w*|undiscounted)\b|\bbefore(?: (?:the|that|this|her|his|it) ?[a-z ]*)?[ ?]*$"
)
_SHARED = re.compile(r"\b(?:shar\w+|split\w*|divid\w+|equal\w*|evenly|dealt)\b")
_POURED = re.compile(r"\b(?:fill\w*|gains?|pump\w*|flows?|pours?|poured)\b")
_DRAINED = re.compile(r"\b(?:leak\w*|loses?|drain\w*|escap\w+|evaporat\w+|runs? out|flows? out)\b")
_CAUSES = re.compile(
    r"\b(?:percent\w*|what fraction|ratio|probability|chance|odds|how likely|square root|median)\b"
)


def check_story(sentences: Sequence[Sequence[Token]], text: str, question: str) -> None:
    """Raises Unexplained for a question that adding and taking away cannot answer."""
    told = [
        item
        for index, tokens in enumerate(sentences)
        for item in quantities_in(tokens, index, asked=False)
        if item.kind == "count"
    ]
    units = {item.unit for item in told}
    for unit in units - {MONEY, ""}:
        prices = [item for item in told if item.unit == MONEY and item.per == unit]
        counts = [item for item in told if item.unit == unit and not item.per]
        if len(prices) > 1 and len(counts) > 1:
            raise Unexplained("which price is for which")
    if _PAID.search(question) and units and MONEY not in units and "" not in units and "cent" not in units:
        raise Unexplained("a price or a wage")
    if _CAUSES.search(question):
        raise Unexplained("the question")
    if _UNDONE.search(question) and "%" in text:
        raise Unexplained("the percentage")
    if _SHARED.search(text) and re.search(r"\bleft ?over\b|\bremainder\b", question):
        raise Unexplained("the sharing")
    if (
        _POURED.search(text)
        and _DRAINED.search(text)
        and re.search(r"\b(?:per|every|each|a|an) [a-z]+\b", text)
    ):
        raise Unexplained("the flow")
    if _RIVALS.search(text):
        raise Unexplained("the comparison")


def check_result(agenda: Agenda, text: str) -> None:
    """Raises Unexplained for a total below zero, which a count of things cannot have."""
    value = _worth(agenda.last, agenda) if agenda.last is not None else None
    if value is not None and value < 0 and not _BELOW_ZERO.search(text):
        raise Unexplained("one of the numbers")


def _worth(formula: Formula, agenda: Agenda) -> Decimal | None:
    """What a formula of told numbers comes to; None where it rests on anything else."""
    if isinstance(formula, Number):
        return Decimal(formula.text)
    if isinstance(formula, Result):
        task = agenda.tasks[formula.task]
        return _worth(task.formula, agenda) if isinstance(task, Calculate) else None
    parts = [_worth(part, agenda) for part in formula.operands]
    known = [part for part in parts if part is not None]
    return _applied(formula.symbol, known) if len(known) == len(parts) else None


def _applied(symbol: str, values: list[Decimal]) -> Decimal | None:
    first, *others = values
    try:
        for value in others:
            if symbol == "+":
                first += value
            elif symbol == "-":
                first -= value
            elif symbol == "*":
                first *= value
            elif symbol == "/":
                first /= value
            else:
                return None
    except DecimalException:
        return None
    return first
