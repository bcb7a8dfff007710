"""Port: the tools that agents call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from treadle_server.core.memory import MemoryPlace, MemoryRule
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.catalogue.memories import MemoryRow
from treadle_server.ports.log import ThreadKey


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One attempt at one call."""

    tenant: int
    thread: int
    """The store's key of the thread."""
    session: int
    """The store's key of its session; 0 when it has none."""
    tool_call_id: str
    attempt: int
    idempotency_key: str
    """The same for every attempt at this call, different for every other call anywhere."""
    arguments_json: str
    memory: tuple[MemoryPlace, ...] = ()
    """The namespaces of memories that it may use, of those that its tool's rules name."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the agent observes. `ok` is false when the tool answered that it could not."""

    observation: str
    ok: bool = True


class ToolError(Exception):
    """The call gave no answer: connection, time-out, crash of the tool. The text is for the agent to read."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable


class Toolbox(Protocol):
    """Every tool that this server can run."""

    def builtins(self) -> tuple[ToolSpec, ...]:
        """The tools of `toolGroups/builtin`, in the order to show them."""
        ...

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        """The tools that an agent with these settings may call.

        Raises Refused naming the field and index of a group or tool that is not there.
        """
        ...

    def problem(self, spec: ToolSpec, arguments_json: str) -> str | None:
        """Says, for the model to read, why these arguments do not fit the tool's schema, or None."""
        ...

    async def call(self, spec: ToolSpec, call: ToolCall) -> ToolResult:
        """Runs one attempt. Arguments were checked. Raises ToolError, and nothing else.

        The caller bounds the observation to `spec.output_bytes_max`, and cancels the call by cancelling the
        task that awaits it.
        """
        ...


class Notes(Protocol):
    """Durable short texts by key, shared by the threads of a session."""

    async def put(self, tenant: int, scope: str, key: str, text: str) -> None:
        """Stores or replaces; durable on return. Raises Refused at the limit of a scope."""
        ...

    async def get(self, tenant: int, scope: str, key: str) -> str | None: ...

    async def keys(self, tenant: int, scope: str) -> list[str]:
        """All keys of a scope, in order."""
        ...


class Memories(Protocol):
    """Texts by namespace and key, which outlive sessions and which callers see too."""

    async def save(self, thread: ThreadKey, namespace: str, key: str, text: str) -> None:
        """Stores or replaces, in the name of the thread; durable on return. Raises Refused where there is no
        room.
        """
        ...

    async def search(
        self, tenant: int, namespaces: Sequence[str], query: str, limit: int
    ) -> Sequence[MemoryRow]:
        """Those of these namespaces that fit best first; no query is faulty."""
        ...


class MemoryTools(Protocol):
    """The tools that an agent gets by its memory rules."""

    def of_memory(self, rules: Sequence[MemoryRule]) -> tuple[ToolSpec, ...]:
        """None without rules; saving only where a rule allows it."""
        ...
