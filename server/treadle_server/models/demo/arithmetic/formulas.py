"""Arithmetic as a tree, and the tree as an expression for a calculator."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Number:
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """What an earlier task of the plan gives."""

    task: int


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator between operands, or a function of them."""

    symbol: str
    operands: "tuple[Formula, ...]"


Formula = Number | Result | Operation

_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "**": 4}
_HUNDRED = Number("100")


def number(value: int | str) -> Number:
    return Number(str(value))


def operation(symbol: str, *operands: Formula) -> Operation:
    return Operation(symbol, operands)


def percent_of(share: Formula, whole: Formula) -> Formula:
    return operation("/", operation("*", whole, share), _HUNDRED)


def grown(whole: Formula, percent: Formula) -> Formula:
    return operation("/", operation("*", whole, operation("+", _HUNDRED, percent)), _HUNDRED)


def shrunk(whole: Formula, percent: Formula) -> Formula:
    return operation("/", operation("*", whole, operation("-", _HUNDRED, percent)), _HUNDRED)


def total(operands: "list[Formula]") -> Formula:
    return operands[0] if len(operands) == 1 else Operation("+", tuple(operands))


def mean(operands: "list[Formula]") -> Formula:
    return operation("/", total(operands), number(len(operands)))


def results(formula: Formula) -> Iterator[int]:
    """The tasks whose values the formula needs."""
    if isinstance(formula, Result):
        yield formula.task
    elif isinstance(formula, Operation):
        for operand in formula.operands:
            yield from results(operand)


def rendered(formula: Formula, values: Mapping[int, str], strength: int = 0) -> str:
    """The expression, with the values of earlier tasks in their places."""
    if isinstance(formula, Operation):
        return _operation(formula, values, strength)
    text = formula.text if isinstance(formula, Number) else values[formula.task]
    return f"({text})" if strength and text.startswith("-") else text


def _operation(formula: Operation, values: Mapping[int, str], strength: int) -> str:
    own = _STRENGTH.get(formula.symbol)
    if own is None:
        return f"{formula.symbol}({', '.join(rendered(part, values) for part in formula.operands)})"
    first, *others = formula.operands
    # Right operands of - / % need brackets at equal strength, those of + and * do not.
    right = own if formula.symbol in "+*" else own + 1
    left = own + 1 if formula.symbol == "**" else own
    text = f" {formula.symbol} ".join(
        [rendered(first, values, left), *(rendered(part, values, right) for part in others)]
    )
    return f"({text})" if own < strength else text


def is_plain(formula: Formula) -> bool:
    """Whether the formula is a value already, with nothing to calculate."""
    return not isinstance(formula, Operation)


def shown(text: str) -> str:
    """A calculator's number for a sentence: without a float's noise, and rounded if it does not end."""
    try:
        value = Decimal(text)
    except ArithmeticError:
        return text
    if not value.is_finite() or abs(value) >= 10**15 or (value and abs(value) < Decimal("0.000001")):
        return text
    if value == value.to_integral_value():
        return str(int(value))
    noiseless = round(value, 9).normalize()
    exponent = noiseless.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -6:
        return f"{format(round(value, 6).normalize(), 'f')} (about {format(round(value, 2), 'f')})"
    return format(noiseless, "f")
