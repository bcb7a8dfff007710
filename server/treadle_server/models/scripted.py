"""A model that plays a script: for tests and demonstrations, of this server and of what is built on it.

    scripted:{"turns": [
      {"thought": "I need a sum.", "calls": [{"name": "calculator", "arguments": {"expression": "6*7"}}]},
      {"text": "It is {observation}."}
    ]}

The model string carries the script, or is `scripted:` alone; then the first input's JSON is the script, or
has it as its member `script`. The turn to play follows from the turns that the conversation already has, so
it is the same after a crash. A turn has `text`, `thought` and `calls` (`name` with `arguments`, or with
`raw_arguments` for what is not JSON), or is `empty`; `usage`, `cost_micros`; `delay_ms` and `pieces` of
streaming; `refusal`, `truncated`; `hang` to never answer; `error` {`code`, `message`, `retryable`,
`attempts`: so many fail, all without it, `retry_after_ms`}. `repeat` plays the turns several times.

In text, thought and arguments `{observation}` stands for the latest tool result, `{observations[0]}` for the
first of those that the model's last turn asked for. One that there is not stays as it is written. In text
`{recalled}` stands for what the model was told before the first input, a line each: `context: ...` of the
session and of the thread, `user: ...` and `agent: ...` of the session's earlier threads.
"""

import asyncio
import json
import re
from dataclasses import replace

from treadle_server.core.kinds import DeltaKind
from treadle_server.core.transcript import (
    ContextEntry,
    Entry,
    ModelEntry,
    RecalledEntry,
    ToolEntry,
    UserEntry,
)
from treadle_server.core.values import ProposedCall
from treadle_server.models.script import CODES, Failure, Script, ScriptError, Turn, parse_script
from treadle_server.ports.model import ModelError, ModelReply, ModelRequest, OnDelta

_PLACEHOLDER = re.compile(r"\{observation(?:s\[(\d{1,4})\])?\}")


class ScriptedModel:
    """Implements `ports.model.Model`. Keeps nothing between calls but parsed scripts."""

    def problem(self, model: str) -> str | None:
        if not model:
            return None
        try:
            parse_script(model)
        except ScriptError as fault:
            return str(fault)
        return None

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        turn = _turn(request)
        failure = turn.failure
        if failure is not None and (failure.attempts is None or request.attempt <= failure.attempts):
            await asyncio.sleep(0)
            raise _error(failure)
        turn = _filled(turn, _observations(request.transcript.entries))
        turn = _with_recalled(turn, request.transcript.entries)
        await _stream(turn, on_delta)
        if turn.hang:
            await asyncio.get_running_loop().create_future()
        return ModelReply(
            text=turn.text,
            thought=turn.thought,
            calls=turn.calls,
            usage=turn.usage,
            cost=turn.cost,
            refusal=turn.refusal,
            truncated=turn.truncated,
        )

    async def close(self) -> None:
        pass


def _turn(request: ModelRequest) -> Turn:
    script = _script(request)
    played = sum(isinstance(entry, ModelEntry) for entry in request.transcript.entries)
    turn = script.turn(played)
    if turn is None:
        message = f"the script has {script.length} turns, turn {played + 1} was asked for"
        raise ModelError(CODES["OUT_OF_RANGE"], message, retryable=False)
    return turn


def _script(request: ModelRequest) -> Script:
    try:
        return parse_script(request.model or _inputs_script(request.transcript.entries))
    except ScriptError as fault:
        raise ModelError(CODES["INVALID_ARGUMENT"], str(fault), retryable=False) from None


def _inputs_script(entries: list[Entry]) -> str:
    for entry in entries:
        if isinstance(entry, UserEntry):
            if entry.content.data_json:
                return entry.content.data_json
            break
    raise ScriptError("the model string has no script, and the first input's JSON has none")


def _error(failure: Failure) -> ModelError:
    return ModelError(
        failure.code,
        failure.message,
        retryable=failure.retryable,
        retry_after_micros=failure.retry_after_micros,
    )


def _observations(entries: list[Entry]) -> list[str]:
    """Results of the model's last turn, in call order."""
    results: list[str] = []
    for entry in reversed(entries):
        if isinstance(entry, ModelEntry):
            break
        if isinstance(entry, ToolEntry):
            results.append(entry.observation)
    results.reverse()
    return results


def _filled(turn: Turn, observations: list[str]) -> Turn:
    if not turn.has_placeholders or not observations:
        return turn
    return replace(
        turn,
        text=_fill(turn.text, observations),
        thought=_fill(turn.thought, observations),
        calls=tuple(_fill_call(call, observations) for call in turn.calls),
    )


def _with_recalled(turn: Turn, entries: list[Entry]) -> Turn:
    if "{recalled}" not in turn.text:
        return turn
    lines = []
    for entry in entries:
        match entry:
            case ContextEntry(text):
                lines.append(f"context: {text}")
            case RecalledEntry(role, content):
                lines.append(f"{role.name.lower()}: {content.text or content.data_json}")
    return replace(turn, text=turn.text.replace("{recalled}", "\n".join(lines)))


def _fill(text: str, observations: list[str]) -> str:
    def value(match: re.Match[str]) -> str:
        index = int(match[1]) if match[1] else len(observations) - 1
        return observations[index] if index < len(observations) else match[0]

    return _PLACEHOLDER.sub(value, text)


def _fill_call(call: ProposedCall, observations: list[str]) -> ProposedCall:
    quoted = [json.dumps(observation, ensure_ascii=False)[1:-1] for observation in observations]
    return replace(call, arguments_json=_fill(call.arguments_json, quoted))


async def _stream(turn: Turn, on_delta: OnDelta) -> None:
    """The thought, then the text; the delay is spread evenly over the pieces."""
    deltas = [
        (kind, piece)
        for kind, text in ((DeltaKind.THOUGHT, turn.thought), (DeltaKind.TEXT, turn.text))
        for piece in _pieces(text, turn.pieces)
    ]
    pause = turn.delay_seconds / max(1, len(deltas))
    if not pause:
        await asyncio.sleep(0)
    elif not deltas:
        await asyncio.sleep(pause)
    for kind, piece in deltas:
        if pause:
            await asyncio.sleep(pause)
        on_delta(kind, piece)


def _pieces(text: str, count: int) -> list[str]:
    """Non-empty pieces, `count` of them where there are enough characters."""
    count = min(count, len(text))
    return [text[len(text) * i // count : len(text) * (i + 1) // count] for i in range(count)]
