"""One step: a model turn or a tool call, from command to outcome. Whatever the world does is an outcome."""

import asyncio
import random
import time
from dataclasses import dataclass, replace

import structlog

from treadle_server import failpoints
from treadle_server.core import outcomes as o
from treadle_server.core.approvals import ApprovalRule, first_fitting
from treadle_server.core.commands import CallModel, CallTool
from treadle_server.core.ids import idempotency_key
from treadle_server.core.json_text import canonical
from treadle_server.core.kinds import CallStatus, DeltaKind
from treadle_server.core.memory import MemoryPlace, places
from treadle_server.core.spec import Spec, ToolSpec
from treadle_server.core.state import State
from treadle_server.core.text import bounded, clean
from treadle_server.core.values import ProposedCall, ProviderContent
from treadle_server.engine.journal import Head
from treadle_server.ports.clock import Clock
from treadle_server.ports.feed import Feed
from treadle_server.ports.model import ModelError, ModelReply, ModelRequest, Models
from treadle_server.ports.predicates import Predicates
from treadle_server.ports.schemas import Schemas
from treadle_server.ports.tools import Toolbox, ToolCall, ToolError, ToolResult

_LOG = structlog.get_logger(__name__)
_CODE_INTERNAL = 13
TEXT_BYTES_MAX = 128 * 1024
ARGUMENTS_BYTES_MAX = 64 * 1024
ERROR_CHARACTERS_MAX = 2000
NAME_BYTES_MAX = 256
"""Of a tool as the model calls it; one that there is has a shorter name."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Everything a step may touch."""

    models: Models
    toolbox: Toolbox
    schemas: Schemas
    feed: Feed
    clock: Clock
    predicates: Predicates

    async def call_model(self, head: Head, command: CallModel) -> o.ModelReplied | o.ModelFailed:
        """Asks the model for a turn; the caller saw to it that the intent is durable. Raises nothing."""
        spec = head.state.spec
        if failpoints.ACTIVE:
            failpoints.hit("intent.after", head.state.iteration)
            failpoints.hit("model.before", head.state.iteration)
        try:
            model, name = self.models.find(spec.model)
            request = _model_request(head, name, command)
            reply = await model.reply(request, lambda kind, text: self._delta(head, command, kind, text))
            if failpoints.ACTIVE:
                failpoints.hit("model.after", head.state.iteration)
            return self._replied(spec, command, reply)
        except ModelError as error:
            return self._failed(command, error)
        except Exception as error:
            text = f"the model adapter failed: {type(error).__name__}"
            return self._failed(command, ModelError(_CODE_INTERNAL, text, retryable=False), error)

    def _delta(self, head: Head, command: CallModel, kind: DeltaKind, text: str) -> None:
        """Shows a piece, unless the call was given up: an adapter may be slow to notice."""
        call = head.state.model_call
        place = (command.call_id, command.attempt)
        if call is not None and call.in_flight and (call.call_id, call.attempt) == place:
            self.feed.delta(head.key, command.call_id, command.attempt, kind, clean(text))

    def _failed(self, command: CallModel, error: ModelError, cause: Exception | None = None) -> o.ModelFailed:
        if cause is not None:
            log_unexpected(cause, call_id=command.call_id)
        return o.ModelFailed(
            self.clock.now(),
            command.call_id,
            command.attempt,
            error.code,
            clean(error.message[:ERROR_CHARACTERS_MAX]),
            error.retryable,
            error.retry_after_micros,
            random.random(),
        )

    def _replied(self, spec: Spec, command: CallModel, reply: ModelReply) -> o.ModelReplied:
        text, cut = bounded(reply.text, TEXT_BYTES_MAX)
        calls = tuple(self.checked(spec, call) for call in reply.calls)
        problem = ""
        if spec.output_schema_json and not calls and not reply.refusal:
            problem = self.schemas.problem(spec.output_schema_json, text) or ""
        return o.ModelReplied(
            self.clock.now(),
            command.call_id,
            command.attempt,
            text=text,
            thought=bounded(reply.thought, TEXT_BYTES_MAX)[0],
            calls=calls,
            usage=reply.usage,
            cost=reply.cost,
            provider_content=_storable_content(reply.provider_content),
            refusal=bounded(reply.refusal, TEXT_BYTES_MAX)[0],
            truncated=reply.truncated or cut,
            problem=problem,
        )

    def checked(self, spec: Spec, call: ProposedCall) -> ProposedCall:
        """The call with what keeps it from running: a problem, or the rule by which people are asked."""
        tool, name = spec.tool_by_name.get(call.name), bounded(call.name, NAME_BYTES_MAX)[0]
        arguments, cut = bounded(call.arguments_json, ARGUMENTS_BYTES_MAX)
        problem = call.problem
        if cut:
            problem = f"arguments of more than {ARGUMENTS_BYTES_MAX} bytes"
        elif not problem and tool is None:
            problem = f"there is no tool {name!r}; there are: {', '.join(spec.tool_by_name) or 'none'}"
        elif not problem and tool is not None:
            problem = self.toolbox.problem(tool, arguments) or ""
            arguments = arguments if problem else canonical(arguments)
        problem = clean(problem[:ERROR_CHARACTERS_MAX])
        rule = None if problem or tool is None else self._rule(spec, tool, arguments)
        return ProposedCall(name, arguments, problem, clean(call.provider_call_id), rule)

    def _rule(self, spec: Spec, tool: ToolSpec, arguments: str) -> ApprovalRule | None:
        """The agent's rule that decides whether people must approve the call."""
        return first_fitting(
            spec.approval_rules,
            (tool.name, tool.tool),
            tool.effect,
            lambda predicate: self.predicates.holds(predicate, arguments),
        )

    async def call_tool(self, head: Head, command: CallTool) -> o.ToolReturned | o.ToolFailed:
        """Runs a tool; the caller saw to it that the intent is durable where that is promised."""
        tool = head.state.spec.tool_by_name[command.name]
        call = ToolCall(
            head.key.tenant,
            head.key.thread,
            head.session,
            command.call_id,
            command.attempt,
            idempotency_key(head.key.tenant, head.key.thread, command.call_id),
            command.arguments_json,
            memory_of(head.state, tool),
        )
        started = time.monotonic()
        if failpoints.ACTIVE:
            failpoints.hit("intent.after", head.state.iteration)
            failpoints.hit("dispatch.before", head.state.iteration)
            # Runs once the toolbox waits for something.
            asyncio.get_running_loop().call_soon(failpoints.hit, "dispatch.after", head.state.iteration)
        try:
            result = await self.toolbox.call(tool, call)
            if failpoints.ACTIVE:
                failpoints.hit("result.before", head.state.iteration)
            return self._tool_returned(head.state.spec, command, result, started)
        except ToolError as error:
            return self._tool_failed(command, error, started)
        except Exception as error:
            log_unexpected(error, call_id=command.call_id)
            text = f"the tool failed: {type(error).__name__}"
            return self._tool_failed(command, ToolError(text, retryable=False), started)

    def _tool_returned(
        self, spec: Spec, command: CallTool, result: ToolResult, started: float
    ) -> o.ToolReturned:
        tool = spec.tool_by_name[command.name]
        observation, _ = bounded(result.observation, tool.output_bytes_max)
        ok = result.ok
        if ok and tool.finishes and spec.output_schema_json:
            problem = self.schemas.problem(spec.output_schema_json, observation)
            ok, observation = problem is None, problem or observation
        status = CallStatus.SUCCEEDED if ok else CallStatus.FAILED
        return o.ToolReturned(
            self.clock.now(), command.call_id, command.attempt, status, observation, _since(started)
        )

    def _tool_failed(self, command: CallTool, error: ToolError, started: float) -> o.ToolFailed:
        return o.ToolFailed(
            self.clock.now(),
            command.call_id,
            command.attempt,
            CallStatus.FAILED,
            clean(error.message[:ERROR_CHARACTERS_MAX]),
            error.retryable,
            _since(started),
            random.random(),
        )


def memory_of(state: State, tool: ToolSpec) -> tuple[MemoryPlace, ...]:
    """The memories that a call of the tool may use, by what its thread was made with."""
    origin = state.origin
    if origin is None or not tool.memory:
        return ()
    subject = origin.subject
    facts = {
        "agent": state.spec.agent_version.split("/")[1],
        "session": origin.session.removeprefix("sessions/"),
        "subject.type": subject.type if subject is not None else "",
        "subject.id": subject.id if subject is not None else "",
        "parent_object": origin.parent_object,
        "principal": origin.principal,
    }
    return places(tool.memory, facts)


def _model_request(head: Head, name: str, command: CallModel) -> ModelRequest:
    spec = head.state.spec
    return ModelRequest(
        name,
        command.call_id,
        command.attempt,
        spec.instructions,
        spec.settings,
        spec.tools,
        head.fold.transcript,
        spec.output_schema_json,
    )


def _storable_content(content: ProviderContent | None) -> ProviderContent | None:
    if content is None or content.content_json.isascii():
        return content
    return replace(content, content_json=clean(content.content_json))


def _since(started: float) -> int:
    return int((time.monotonic() - started) * 1_000_000)


def log_unexpected(error: Exception, **context: object) -> None:
    """A bug of an adapter: the agent sees that the call failed, the server's log sees why."""
    _LOG.error("step_failed_unexpectedly", exc_info=error, **context)
