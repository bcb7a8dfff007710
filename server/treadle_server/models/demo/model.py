"""The adapter: a turn of the reasoner, streamed in small pieces and counted."""

import asyncio
import re

from treadle_server.core.kinds import DeltaKind
from treadle_server.core.spec import ModelSettings
from treadle_server.core.transcript import (
    ContextEntry,
    Entry,
    ModelEntry,
    ProblemEntry,
    RecalledEntry,
    ToolEntry,
    UserEntry,
)
from treadle_server.core.values import Cost, ProposedCall, Usage
from treadle_server.models.demo.reasoning import Turn, next_turn
from treadle_server.ports.model import ModelError, ModelReply, ModelRequest, OnDelta

_NAME = re.compile(r"react(?:\?delay_ms=(?P<delay>\d{1,5}))?")
_DELAY_MS_MAX = 10_000
_PIECE = re.compile(r"\s*\S+|\s+$")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_INVALID_ARGUMENT, _INTERNAL = 3, 13


class DemoModel:
    """Answers by rules, without a network. A token is a word or a punctuation mark; everything is free."""

    def problem(self, model: str) -> str | None:
        """`react` answers at once; `react?delay_ms=20` waits so long before each streamed piece."""
        match = _NAME.fullmatch(model)
        if match is None:
            return (
                "demo has the model `react`, with the option `react?delay_ms=20` (0 to "
                f"{_DELAY_MS_MAX}), not `{model}`"
            )
        if int(match["delay"] or 0) > _DELAY_MS_MAX:
            return f"delay_ms is at most {_DELAY_MS_MAX}, not {match['delay']}"
        return None

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        problem = self.problem(request.model)
        if problem is not None:
            raise ModelError(_INVALID_ARGUMENT, problem, retryable=False)
        match = _NAME.fullmatch(request.model)
        delay = int(match["delay"] or 0) / 1000 if match else 0.0
        turn = _turn(request)
        text, truncated = _bounded(turn.text, request.settings)
        await _stream(DeltaKind.THOUGHT, turn.thought, on_delta, delay)
        await _stream(DeltaKind.TEXT, text, on_delta, delay)
        usage = _usage(request, turn.thought, text, turn.calls)
        return ModelReply(text, turn.thought, turn.calls, usage, Cost(0, "USD", True), truncated=truncated)

    async def close(self) -> None:
        """There is nothing to end."""


def _turn(request: ModelRequest) -> Turn:
    try:
        return next_turn(request.transcript, request.tools, request.output_schema_json)
    except Exception as problem:
        # The port promises that nothing else leaves a model, whatever a conversation looks like.
        raise ModelError(
            _INTERNAL, f"the conversation could not be followed: {problem!r}", retryable=False
        ) from problem


def _bounded(text: str, settings: ModelSettings) -> tuple[str, bool]:
    """The text up to a stop sequence and within the output limit, and whether the limit cut it off."""
    for stop in filter(None, settings.stop_sequences):
        text = text.partition(stop)[0]
    limit = settings.max_output_tokens
    if not limit:
        return text, False
    ends = [match.end() for match in _TOKEN.finditer(text)]
    return (text[: ends[limit - 1]], True) if len(ends) > limit else (text, False)


async def _stream(kind: DeltaKind, text: str, on_delta: OnDelta, delay: float) -> None:
    for match in _PIECE.finditer(text):
        await asyncio.sleep(delay)
        on_delta(kind, match.group())


def _usage(request: ModelRequest, thought: str, text: str, calls: tuple[ProposedCall, ...]) -> Usage:
    schemas = [f"{tool.name} {tool.description} {tool.parameters_schema_json}" for tool in request.tools]
    given = [request.instructions, *schemas, *(_words_of(entry) for entry in request.transcript.entries)]
    taken = sum(_count(part) for part in given)
    reasoning = _count(thought)
    made = _count(text) + sum(_count(f"{call.name} {call.arguments_json}") for call in calls)
    return Usage(taken, 0, made, reasoning, taken + made + reasoning)


def _count(text: str) -> int:
    return sum(1 for _ in _TOKEN.finditer(text))


def _words_of(entry: Entry) -> str:
    match entry:
        case ContextEntry(text):
            return text
        case UserEntry(content) | RecalledEntry(_, content):
            return f"{content.text} {content.data_json}"
        case ModelEntry():
            return " ".join(
                [entry.thought, entry.text, *(f"{call.name} {call.arguments_json}" for call in entry.calls)]
            )
        case ToolEntry():
            return entry.observation
        case ProblemEntry(problem):
            return problem
