"""Word problems with a formula of their own: rectangles, circles and interest."""

import re
from collections.abc import Sequence

from treadle_server.models.demo.arithmetic.formulas import Formula, number, operation
from treadle_server.models.demo.arithmetic.words import Token, plain
from treadle_server.models.demo.tasks import Agenda

_NUM = r"\$?(\d+(?:\.\d+)?)"
_SHAPES = (
    r"rectang\w*|room|garden|field|square|lawn|floor|wall|plot|pool|yard|carpet|court|"
    r"triangle|circle|park|table|box|cube|cuboid|tank"
)


def read_figure_story(sentences: Sequence[Sequence[Token]], agenda: Agenda) -> bool:
    """Adds the calculation of a figure or of interest; false for any other story and for numbers too many."""
    text = " ".join(plain(tokens) for tokens in sentences)
    for reading in (_interest, _speed, _figure):
        formula = reading(text)
        if formula is not None:
            agenda.value(formula)
            return True
    return False


def _interest(text: str) -> Formula | None:
    rates = re.findall(r"(\d+(?:\.\d+)?)%", text)
    years = re.findall(r"(\d+(?:\.\d+)?) years?\b", text)
    others = re.findall(r"(?<![\d.])(\d+(?:\.\d+)?)(?![\d.]*%)(?! years?\b)(?![\d.])", text)
    if "interest" not in text or len(rates) != 1 or len(years) != 1 or len(others) != 1:
        return None
    principal, rate, time = number(others[0]), number(rates[0]), number(years[0])
    only = re.search(
        r"\bhow much (?:simple |compound |total )?interest\b|\bthe (?:simple |compound |total "
        r")?interest (?:earned|paid|after|is|on)\b|\binterest (?:does|do|is|will)\b|\bfind the "
        r"(?:simple |compound )?interest\b",
        text,
    )
    if re.search(r"\bcompound\w*\b", text):
        factor = operation("**", operation("+", number(1), operation("/", rate, number(100))), time)
        grown = operation("*", principal, factor)
        return operation("-", grown, principal) if only else grown
    earned = operation("/", operation("*", principal, rate, time), number(100))
    return earned if only else operation("+", principal, earned)


def _speed(text: str) -> Formula | None:
    """`360 km in 4 hours`, when the speed is asked for."""
    if (
        not re.search(
            r"\b(?:speed|how fast|(?:km|kilomet\w+|miles?|met(?:er|re)s?) per (?:hour|minute|second))\b",
            text.rpartition(".")[2] or text,
        )
        or len(re.findall(r"\d+(?:\.\d+)?", text)) != 2
    ):
        return None
    distance = re.search(r"(\d+(?:\.\d+)?) (?:km|kilomet\w+|miles?|met(?:er|re)s?|m)\b", text)
    time = re.search(r"(\d+(?:\.\d+)?) (?:hours?|h|minutes?|seconds?)\b", text)
    return operation("/", number(distance.group(1)), number(time.group(1))) if distance and time else None


def _figure(text: str) -> Formula | None:
    numbers = [number(found) for found in re.findall(r"(?<![\d.])\d+(?:\.\d+)?", text)]
    asked = re.search(r"\b(area|perimeter|circumference|volume|fence|fencing)\b", text)
    if asked is None or not re.search(rf"\b(?:{_SHAPES})\b", text):
        return None
    wanted = asked.group(1)
    match (wanted, len(numbers)):
        case ("area", 1) if "square" in text and "square m" not in text:
            return operation("**", numbers[0], number(2))
        case ("area", 2) if "triangle" in text:
            return operation("/", operation("*", *numbers), number(2))
        case ("area", 2):
            return operation("*", *numbers)
        case ("perimeter" | "fence" | "fencing", 2) if "triangle" not in text:
            return operation("*", number(2), operation("+", *numbers))
        case ("perimeter", 1) if "square" in text:
            return operation("*", number(4), numbers[0])
        case ("perimeter", 3) if "triangle" in text:
            return operation("+", *numbers)
        case ("volume", 3):
            return operation("*", *numbers)
        case ("volume", 1) if "cube" in text:
            return operation("**", numbers[0], number(3))
        case _:
            return None
