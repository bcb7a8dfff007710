"""Waiting, until a deadline, for what other tasks, threads or processes bring about."""

import ast
import asyncio
import inspect
import linecache
import reprlib
import time
from collections.abc import Awaitable, Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

PATIENCE_SECONDS = 20.0
"""Below the 30 s after which the server's sweeper finds what somebody forgot to wake."""
PAUSE_SECONDS_MAX = 0.01
_PAUSE_SECONDS = 0.001
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 300
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = 12


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]],
    *,
    seconds: float = PATIENCE_SECONDS,
    what: str = "",
    pause_seconds_max: float = PAUSE_SECONDS_MAX,
) -> None:
    """Returns once the condition holds; fails when it does not within the time.

    The time is real, also on a loop whose clock a test moves. An awaited answer may take as long again. The
    failure names the condition by its source and by `what`, and says what the parts of a lambda were right
    after the last look, so they are evaluated once more. What the condition raises is not caught. Looks that
    are a burden to what is looked at are made seldom by `pause_seconds_max`.
    """
    deadline = time.monotonic() + seconds
    for pause in _pauses(pause_seconds_max):
        holds = condition()
        seen = ""
        if isinstance(holds, Awaitable):
            answer = await _answer(holds, seconds)
            holds, seen = bool(answer), "no answer" if answer is None else str(answer)
        if holds:
            return
        if time.monotonic() >= deadline:
            raise AssertionError(_expired(condition, seconds, what, seen))
        await asyncio.sleep(pause)


def until(condition: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS, what: str = "") -> None:
    """As `eventually`, for tests without an event loop."""
    deadline = time.monotonic() + seconds
    for pause in _pauses(PAUSE_SECONDS_MAX):
        if condition():
            return
        if time.monotonic() >= deadline:
            raise AssertionError(_expired(condition, seconds, what))
        time.sleep(pause)


def _pauses(seconds_max: float) -> Iterator[float]:
    """Short ones first: most of what is waited for is nearly there."""
    pause = _PAUSE_SECONDS
    while True:
        yield pause
        pause = min(pause * 1.2, seconds_max)


async def _answer(coming: Awaitable[bool], seconds: float) -> bool | None:
    """None when it does not come in time."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await coming
    except TimeoutError:
        if not limit.expired():
            raise
        return None


def _expired(condition: Callable[[], Any], seconds: float, what: str, seen: str = "") -> str:
    words = repr(condition)
    if isinstance(condition, FunctionType) and condition.__name__ == "<lambda>":
        words = _source(condition.__code__) or words
        seen = seen or ", ".join(_parts(condition, words))
    return f"not within {seconds:g} s: {what and f'{what}: '}{words}; last seen: {seen or False}"


def _source(code: CodeType) -> str:
    """What stands in the file between the first and the last place that an expression's code came from."""
    places = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line and end_line and column is not None and end_column
    ]
    if not places:
        return ""
    (first, begin), (last, end) = min(place[0] for place in places), max(place[1] for place in places)
    lines = [linecache.getline(code.co_filename, number).encode() for number in range(first, last + 1)]
    lines[-1] = lines[-1][:end]  # columns are of bytes
    lines[0] = lines[0][begin:]
    return b" ".join(line.strip() for line in lines).decode()


def _parts(condition: FunctionType, words: str) -> Iterator[str]:
    """The parts of a lambda's expression, each with its value."""
    try:
        expression = ast.parse(words, mode="eval").body
        known = inspect.getclosurevars(condition).nonlocals
    except (SyntaxError, ValueError):  # not the whole source, or a name that has no value yet
        return
    given = {name: each.default for name, each in inspect.signature(condition).parameters.items()}
    scope = {**condition.__globals__, **known, **given}
    yield from dict.fromkeys(_seen(expression, scope))


def _seen(node: ast.expr, scope: dict[str, Any]) -> Iterator[str]:
    """What is compared and combined, rather than the True or False that comes of it."""
    says_little = isinstance(node, ast.Constant | ast.BoolOp | ast.UnaryOp | ast.Compare | ast.GeneratorExp)
    if not says_little:
        try:
            value = eval(compile(ast.Expression(node), "<condition>", "eval"), scope)
            shown = _REPR.repr(value)
        except Exception as error:  # the whole may guard this part
            value, shown = None, f"({error!r})"
        says_little = isinstance(node, ast.Call) and isinstance(value, bool)
    if says_little:
        for operand in _operands(node):
            yield from _seen(operand, scope)
    else:
        yield f"{ast.unparse(node)} = {shown}"


def _operands(node: ast.expr) -> list[ast.expr]:
    match node:
        case ast.BoolOp(values=values):
            return values
        case ast.UnaryOp(operand=operand):
            return [operand]
        case ast.Compare(left=left, comparators=others):
            return [left, *others]
        case ast.Call(func=ast.Attribute(value=owner), args=arguments):
            return [owner, *arguments]
        case ast.Call(args=arguments):
            return arguments
        case ast.GeneratorExp(generators=[first, *_]):
            return [first.iter]
    return []
