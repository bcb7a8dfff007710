"""Tools and models that behave as a test says: real implementations of their ports."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from treadle_server.core.kinds import Effect
from treadle_server.core.spec import ToolSpec
from treadle_server.core.transcript import ModelEntry
from treadle_server.core.values import ProposedCall, Usage
from treadle_server.ports.model import ModelReply, ModelRequest, OnDelta
from treadle_server.ports.tools import ToolCall, ToolError, ToolResult

Work = Callable[[ToolCall], Awaitable[str]]
Reply = Callable[[ModelRequest, OnDelta], Awaitable[ModelReply]]


async def answer(call: ToolCall) -> str:
    """The simplest tool."""
    return f"done {call.tool_call_id}"


class Workbench:
    """Implements `ports.tools.Toolbox`: tools of all effect classes, and what was asked of them."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}
        self._specs: dict[str, ToolSpec] = {}
        self.calls: list[tuple[str, ToolCall]] = []
        """Every attempt that was begun, with the tool's name."""

    def add(self, name: str, work: Work = answer, effect: Effect = Effect.READ_ONLY, **spec: Any) -> ToolSpec:
        self._works[name] = work
        schema = '{"type":"object"}'
        self._specs[name] = ToolSpec(name, f"builtin/{name}", f"does {name}", schema, effect, **spec)
        return self._specs[name]

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)

    def builtins(self) -> tuple[ToolSpec, ...]:
        return tuple(self._specs.values())

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        return tuple(self._specs[name] for name in enabled_tools or self._specs)

    def problem(self, spec: ToolSpec, arguments_json: str) -> str | None:
        return None if arguments_json.startswith("{") else "not an object"

    async def call(self, spec: ToolSpec, call: ToolCall) -> ToolResult:
        self.calls.append((spec.name, call))
        return ToolResult(await self._works[spec.name](call))


class Gate:
    """Work that waits until it is opened. It counts who came, and who was told to stop."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self._opened = asyncio.Event()
        self._stubborn = stubborn
        self.inside = 0
        self.inside_max = 0
        self.stops = 0

    def open(self) -> None:
        self._opened.set()

    async def __call__(self, call: ToolCall) -> str:
        self.inside += 1
        self.inside_max = max(self.inside, self.inside_max)
        try:
            return await self._wait(call)
        finally:
            self.inside -= 1

    async def _wait(self, call: ToolCall) -> str:
        while True:
            try:
                await self._opened.wait()
                return f"done {call.tool_call_id}"
            except asyncio.CancelledError:
                self.stops += 1
                if not self._stubborn:
                    raise


def failing(times: int, *, retryable: bool = True) -> Work:
    """Fails so many times, then answers."""
    left = [times]

    async def work(call: ToolCall) -> str:
        if left[0]:
            left[0] -= 1
            raise ToolError("no line", retryable=retryable)
        return f"done {call.tool_call_id}"

    return work


class HandModel:
    """Implements `ports.model.Model`: each turn is what a test's function makes of the request."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.requests: list[ModelRequest] = []

    def problem(self, model: str) -> str | None:
        return None

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        self.requests.append(request)
        return await self._reply(request, on_delta)

    async def close(self) -> None:
        pass


def calls(*names: str) -> ModelReply:
    """A turn that calls these tools."""
    return ModelReply(calls=tuple(ProposedCall(name, "{}") for name in names), usage=Usage(10, 0, 5, 0, 15))


def by_turn(*replies: ModelReply | Callable[[], Awaitable[ModelReply]]) -> Reply:
    """Plays replies by the turns that the conversation has; one that is callable is called and awaited."""

    async def reply(request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        made = replies[sum(isinstance(entry, ModelEntry) for entry in request.transcript.entries)]
        return await made() if callable(made) else made

    return reply
