"""Expressions over the arguments of a tool call: implements ports/predicates."""

import ast
import json
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import simpleeval

CHARACTERS_MAX = 1_024
DEPTH_MAX = 32
_BITS_MAX = 1_024

_CONSTANTS: Mapping[str, Any] = {"true": True, "false": False, "null": None}
_WHOLE = "arguments"


class PredicateError(ValueError):
    """An expression that cannot be computed, for any arguments or for those given."""


class ArgumentPredicates:
    """Stateless; parsed expressions are shared."""

    def problem(self, expression: str) -> str | None:
        try:
            _parsed(expression)
        except PredicateError as error:
            return str(error)
        return None

    def holds(self, expression: str, arguments_json: str) -> bool | None:
        try:
            return bool(_evaluate(_parsed(expression), json.loads(arguments_json)))
        except Exception:  # whatever it is that keeps it from an answer
            return None


@lru_cache(maxsize=1024)
def _parsed(expression: str) -> ast.expr:
    """The expression as a tree of known nodes. Raises PredicateError."""
    if len(expression) > CHARACTERS_MAX:
        raise PredicateError(f"must have at most {CHARACTERS_MAX} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(expression.strip(), mode="eval").body
    except SyntaxError as error:
        raise PredicateError(f"is no expression: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise PredicateError(f"is no expression: {type(error).__name__}") from None
    _check(tree, DEPTH_MAX)
    return tree


def _check(node: ast.AST, depth: int) -> None:
    if not depth:
        raise PredicateError(f"is nested more than {DEPTH_MAX} levels deep")
    if not isinstance(node, _NODES):
        raise PredicateError(f"must not have {_said(node)}")
    if isinstance(node, ast.Constant) and not isinstance(node.value, _VALUES):
        raise PredicateError(f"must not have the value {node.value!r}")
    if isinstance(node, ast.Call):
        known = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        if not known or node.keywords:
            raise PredicateError(f"can call {', '.join(_FUNCTIONS)} only, by position")
        for argument in node.args:
            _check(argument, depth - 1)
        return
    for child in ast.iter_child_nodes(node):
        _check(child, depth - 1)


def _said(node: ast.AST) -> str:
    """The faulty part as it is written, where it has a text."""
    try:
        return repr(ast.unparse(node)[:64]) if isinstance(node, ast.expr) else type(node).__name__.lower()
    except (ValueError, RecursionError):
        return type(node).__name__.lower()


def _evaluate(tree: ast.expr, arguments: Any) -> Any:
    """Dots and brackets reach into the arguments and nowhere else: no method of a value can be called."""
    if not isinstance(arguments, dict):
        raise PredicateError("the arguments are no object")
    names = {**_CONSTANTS, **arguments, _WHOLE: arguments}
    evaluator = simpleeval.SimpleEval(operators=_OPERATORS, functions=dict(_FUNCTIONS), names=names)
    value_of = evaluator._eval
    evaluator.nodes = {
        **{kind: evaluator.nodes[kind] for kind in _EVALUATED},
        ast.Name: lambda node: _entry(names, node.id),  # a function's name is none of a value
        ast.Attribute: lambda node: _entry(value_of(node.value), node.attr),
        ast.Subscript: lambda node: _entry(value_of(node.value), value_of(node.slice)),
        ast.List: lambda node: [value_of(item) for item in node.elts],
        ast.Tuple: lambda node: [value_of(item) for item in node.elts],
    }
    return evaluator.eval("", previously_parsed=tree)


def _entry(value: Any, key: Any) -> Any:
    if isinstance(value, dict) and isinstance(key, str):
        return value[key]
    if isinstance(value, list | str) and type(key) is int:
        return value[key]
    raise PredicateError("only objects have names and only lists and texts have places")


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PredicateError("only numbers can be computed with")
    if isinstance(value, int) and value.bit_length() > _BITS_MAX:
        raise PredicateError("a number is too large")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PredicateError("only texts have letters")
    return value


def _of_numbers(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *operands: operation(*map(_number, operands))


def _contains(value: Any, whole: Any) -> bool:
    """Whether it is an item of a list, a name of an object, or a part of a text."""
    if isinstance(whole, str):
        return _text(value) in whole
    if isinstance(whole, list | dict):
        return value in whole
    raise PredicateError("only lists, objects and texts contain something")


_VALUES = (str, int, float, bool, type(None))
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _of_numbers(lambda left, right: left + right),
    ast.Sub: _of_numbers(lambda left, right: left - right),
    ast.Mult: _of_numbers(lambda left, right: left * right),
    ast.Div: _of_numbers(lambda left, right: left / right),
    ast.FloorDiv: _of_numbers(lambda left, right: left // right),
    ast.Mod: _of_numbers(lambda left, right: left % right),
    ast.UAdd: _of_numbers(lambda operand: operand),
    ast.USub: _of_numbers(lambda operand: -operand),
    ast.Not: lambda operand: not operand,
    ast.Eq: lambda left, right: left == right,
    ast.NotEq: lambda left, right: left != right,
    ast.Lt: lambda left, right: left < right,
    ast.LtE: lambda left, right: left <= right,
    ast.Gt: lambda left, right: left > right,
    ast.GtE: lambda left, right: left >= right,
    ast.In: _contains,
    ast.NotIn: lambda value, whole: not _contains(value, whole),
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "len": len,
    "abs": _of_numbers(abs),
    "min": _of_numbers(min),
    "max": _of_numbers(max),
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "startswith": lambda text, beginning: _text(text).startswith(_text(beginning)),
    "endswith": lambda text, ending: _text(text).endswith(_text(ending)),
}
_EVALUATED = (
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp),
    *(ast.Call, ast.Constant),
)
_NODES = (
    *_EVALUATED,
    *(ast.Name, ast.Attribute, ast.Subscript, ast.List, ast.Tuple, ast.Load, ast.And, ast.Or),
    *_OPERATORS,
)
"""What an expression may be made of."""
