"""Arithmetic with bounded effort."""

import ast
import math
import re
from collections.abc import Callable
from typing import Annotated, Any

import simpleeval

EXPRESSION_CHARACTERS_MAX = 1000
DIGITS_MAX = 1000
_BITS_MAX = int(DIGITS_MAX * math.log2(10))
_PLACES_MAX = 400

Number = int | float

_TOKEN = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[A-Za-z_]\w*|[-+*/%(),]|\s+")
_NODES = (ast.Expr, ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Constant)


def calculator(
    expression: Annotated[
        str,
        "Arithmetic with + - * / // % ** and parentheses; functions sqrt, abs, round, min, max, floor, ceil, "
        "log, log2, log10, exp, sin, cos, tan, asin, acos, atan (radians); constants pi and e. "
        "Example: (1200 * 3 + 49.5) / 12",
        {"minLength": 1, "maxLength": EXPRESSION_CHARACTERS_MAX},
    ],
) -> str:
    """Computes an arithmetic expression and returns the number. Use it for every calculation instead of
    working it out yourself. Integers are exact. It knows no variables, units or percent signs."""
    if len(expression) > EXPRESSION_CHARACTERS_MAX:
        raise ValueError(f"the expression is longer than {EXPRESSION_CHARACTERS_MAX} characters")
    return _written(_evaluate(_checked(expression)))


def _checked(expression: str) -> str:
    """Lets pass only numbers, known names and operators. What Python would warn of never reaches it."""
    position = 0
    while position < len(expression):
        token = _TOKEN.match(expression, position)
        if token is None:
            character = expression[position]
            hint = "; write ** for powers" if character == "^" else ""
            raise ValueError(f"the character {character!r} is not allowed{hint}")
        word = token.group()
        if (word[0].isalpha() or word[0] == "_") and word not in _FUNCTIONS and word not in _CONSTANTS:
            raise ValueError(f"{word} is unknown; {_known()}")
        position = token.end()
    text = " ".join(expression.split())
    if not text:
        raise ValueError("the expression is empty")
    return text


def _known() -> str:
    return f"known are {', '.join(_FUNCTIONS)} and the constants {', '.join(_CONSTANTS)}"


def _evaluate(text: str) -> Number:
    evaluator = simpleeval.SimpleEval(operators=_OPERATORS, functions=_FUNCTIONS, names=_CONSTANTS)
    evaluator.nodes = {node: evaluator.nodes[node] for node in _NODES}
    try:
        value = evaluator.eval(text)
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except OverflowError:
        raise ValueError("a result is too large") from None
    except (RecursionError, MemoryError):
        raise ValueError("the expression is nested too deeply") from None
    except SyntaxError as error:
        raise ValueError(f"the expression is not valid: {error.msg}") from None
    except simpleeval.FeatureNotAvailable:
        raise ValueError("only numbers, operators and calls are allowed; write 1000, not 1,000") from None
    except (simpleeval.InvalidExpression, TypeError) as error:
        raise ValueError(f"the expression is not valid: {error}") from None
    return _bounded(value)


def _bounded(value: Any) -> Number:
    """Keeps every intermediate result small, so that no step can take long."""
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")
    if callable(value):
        raise ValueError("a function needs its arguments in parentheses")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a result is too large" if math.isinf(value) else "the result is not a number")
    if isinstance(value, int) and value.bit_length() > _BITS_MAX:
        raise ValueError(f"a result has more than {DIGITS_MAX} digits")
    assert isinstance(value, int | float)
    return value


def _limited(operation: Callable[..., Any]) -> Callable[..., Number]:
    return lambda *operands: _bounded(operation(*map(_bounded, operands)))


def _power(base: Number, exponent: Number) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1:
        if exponent * (base.bit_length() - 1) > _BITS_MAX:
            raise ValueError(f"a result has more than {DIGITS_MAX} digits")
        if exponent < -_BITS_MAX:
            return 0.0
    return base**exponent


def _round(number: Number, places: Number = 0) -> Number:
    if not isinstance(places, int) or abs(places) > _PLACES_MAX:
        raise ValueError(f"round takes a whole number of places, at most {_PLACES_MAX}")
    return round(number, places) if places else round(number)


def _written(value: Number) -> str:
    if isinstance(value, int):
        return str(value)
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)


_OPERATORS = {
    ast.Add: _limited(lambda left, right: left + right),
    ast.Sub: _limited(lambda left, right: left - right),
    ast.Mult: _limited(lambda left, right: left * right),
    ast.Div: _limited(lambda left, right: left / right),
    ast.FloorDiv: _limited(lambda left, right: left // right),
    ast.Mod: _limited(lambda left, right: left % right),
    ast.Pow: _limited(_power),
    ast.UAdd: _limited(lambda operand: operand),
    ast.USub: _limited(lambda operand: -operand),
}

_FUNCTIONS: dict[str, Callable[..., Number]] = {
    "sqrt": _limited(math.sqrt),
    "abs": _limited(abs),
    "round": _limited(_round),
    "min": _limited(lambda *numbers: min(numbers)),
    "max": _limited(lambda *numbers: max(numbers)),
    "floor": _limited(math.floor),
    "ceil": _limited(math.ceil),
    "log": _limited(math.log),
    "log2": _limited(math.log2),
    "log10": _limited(math.log10),
    "exp": _limited(math.exp),
    "sin": _limited(math.sin),
    "cos": _limited(math.cos),
    "tan": _limited(math.tan),
    "asin": _limited(math.asin),
    "acos": _limited(math.acos),
    "atan": _limited(math.atan),
}

_CONSTANTS = {"pi": math.pi, "e": math.e}
