"""Scripts of the scripted model: their format, and where one is faulty."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import orjson

from treadle_server.core.json_text import canonical_json
from treadle_server.core.values import Cost, ProposedCall, Usage

SCRIPT_BYTES_MAX = 1024 * 1024
DEFAULT_INPUT_TOKENS = 10
DEFAULT_OUTPUT_TOKENS = 5

CODES = {
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}


class ScriptError(ValueError):
    """A script that cannot be played. The text begins with the path of the fault."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What the first `attempts` attempts at a turn raise."""

    code: int
    message: str
    retryable: bool
    attempts: int | None
    """None: every attempt."""
    retry_after_micros: int | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of the model."""

    text: str
    thought: str
    calls: tuple[ProposedCall, ...]
    usage: Usage
    cost: Cost
    delay_seconds: float
    """While streaming, in total."""
    pieces: int
    """Deltas of the text, and as many of the thought."""
    failure: Failure | None
    refusal: str
    truncated: bool
    hang: bool
    """After its deltas it never answers."""

    @property
    def has_placeholders(self) -> bool:
        return "{observation" in self.text + self.thought or any(
            "{observation" in call.arguments_json for call in self.calls
        )


@dataclass(frozen=True, slots=True)
class Script:
    """Turns in order, played `repeat` times."""

    turns: tuple[Turn, ...]
    repeat: int

    @property
    def length(self) -> int:
        return len(self.turns) * self.repeat

    def turn(self, index: int) -> Turn | None:
        """None past the last one."""
        return self.turns[index % len(self.turns)] if index < self.length else None


@lru_cache(maxsize=32)
def parse_script(text: str) -> Script:
    """Reads a script from JSON text. Raises ScriptError."""
    if len(text) > SCRIPT_BYTES_MAX:
        raise ScriptError(f"the script is larger than {SCRIPT_BYTES_MAX} bytes")
    try:
        orjson.loads(text)  # Refuses NaN, lone surrogates and what is nested too deeply.
        value = json.loads(text)  # Keeps integers of any size.
    except (ValueError, RecursionError) as error:
        raise ScriptError(f"the script is not valid JSON: {error}") from None
    if isinstance(value, dict) and "script" in value:
        value = value["script"]
    return _script(_Fields(value, ""))


class _Fields:
    """The members of one JSON object, taken one by one. What nobody takes is a fault."""

    def __init__(self, value: Any, path: str) -> None:
        self.path = path
        if not isinstance(value, dict):
            self.fail("", "must be an object")
        self._left: dict[str, Any] = dict(value)

    def where(self, name: str) -> str:
        return ".".join(part for part in (self.path, name) if part)

    def fail(self, name: str, what: str) -> NoReturn:
        raise ScriptError(f"{self.where(name) or 'script'}: {what}")

    def take(self, name: str, kind: type, what: str, default: Any) -> Any:
        value = self._left.pop(name, default)
        if value is not default and type(value) is not kind:
            self.fail(name, f"must be {what}")
        return value

    def text(self, name: str) -> str:
        return str(self.take(name, str, "a string", ""))

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.take(name, bool, "true or false", default))

    def count(self, name: str, default: int, least: int = 0) -> int:
        value = int(self.take(name, int, "a whole number", default))
        if value < least:
            self.fail(name, f"must be at least {least}")
        return value

    def optional_count(self, name: str, least: int = 0) -> int | None:
        return self.count(name, 0, least) if name in self._left else None

    def raw(self, name: str, default: Any) -> Any:
        return self._left.pop(name, default)

    def has(self, name: str) -> bool:
        return name in self._left

    def items(self, name: str) -> list["_Fields"]:
        values = self.take(name, list, "a list", [])
        return [_Fields(value, f"{self.where(name)}[{index}]") for index, value in enumerate(values)]

    def member(self, name: str) -> "_Fields | None":
        if name not in self._left:
            return None
        return _Fields(self._left.pop(name), self.where(name))

    def end(self) -> None:
        for name in self._left:
            self.fail(name, "is not known here")


def _script(fields: _Fields) -> Script:
    turns = tuple(_turn(turn) for turn in fields.items("turns"))
    repeat = fields.count("repeat", 1, least=1)
    fields.end()
    if not turns:
        fields.fail("turns", "must have at least one turn")
    return Script(turns, repeat)


def _turn(fields: _Fields) -> Turn:
    answers = any(map(fields.has, ("text", "calls", "refusal", "truncated", "hang")))
    failure = _failure(fields.member("error"))
    empty = fields.flag("empty")
    if empty and answers:
        fields.fail("empty", "excludes an answer")
    if not (empty or answers) and (failure is None or failure.attempts is not None):
        fields.fail("", "needs text, calls, refusal, truncated, hang or empty")
    turn = Turn(
        text=fields.text("text"),
        thought=fields.text("thought"),
        calls=tuple(_call(call) for call in fields.items("calls")),
        usage=_usage(fields.member("usage")),
        cost=Cost(fields.count("cost_micros", 0)),
        delay_seconds=fields.count("delay_ms", 0) / 1000,
        pieces=fields.count("pieces", 1, least=1),
        failure=failure,
        refusal=fields.text("refusal"),
        truncated=fields.flag("truncated"),
        hang=fields.flag("hang"),
    )
    fields.end()
    return turn


def _call(fields: _Fields) -> ProposedCall:
    name = fields.text("name")
    if not name:
        fields.fail("name", "is required")
    if fields.has("arguments") and fields.has("raw_arguments"):
        fields.fail("raw_arguments", "excludes arguments")
    raw = fields.text("raw_arguments") if fields.has("raw_arguments") else None
    arguments = fields.take("arguments", dict, "an object", {})
    fields.end()
    return ProposedCall(name, canonical_json(arguments) if raw is None else raw)


def _usage(fields: _Fields | None) -> Usage:
    if fields is None:
        total = DEFAULT_INPUT_TOKENS + DEFAULT_OUTPUT_TOKENS
        return Usage(DEFAULT_INPUT_TOKENS, 0, DEFAULT_OUTPUT_TOKENS, 0, total)
    input_tokens = fields.count("input_tokens", DEFAULT_INPUT_TOKENS)
    output_tokens = fields.count("output_tokens", DEFAULT_OUTPUT_TOKENS)
    reasoning_tokens = fields.count("reasoning_tokens", 0)
    usage = Usage(
        input_tokens,
        fields.count("cached_input_tokens", 0),
        output_tokens,
        reasoning_tokens,
        fields.count("total_tokens", input_tokens + output_tokens + reasoning_tokens),
    )
    fields.end()
    return usage


def _failure(fields: _Fields | None) -> Failure | None:
    if fields is None:
        return None
    retry_after_ms = fields.optional_count("retry_after_ms")
    failure = Failure(
        code=_code(fields),
        message=fields.text("message") or "scripted failure",
        retryable=fields.flag("retryable"),
        attempts=fields.optional_count("attempts", least=1),
        retry_after_micros=None if retry_after_ms is None else retry_after_ms * 1000,
    )
    fields.end()
    return failure


def _code(fields: _Fields) -> int:
    value = fields.raw("code", "UNKNOWN")
    if isinstance(value, str) and value in CODES:
        return CODES[value]
    if type(value) is not int or value not in CODES.values():
        fields.fail("code", "must be the name or number of a google.rpc.Code other than OK")
    return int(value)
