"""Port: a language model that answers one turn of a conversation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from treadle_server.core.kinds import DeltaKind
from treadle_server.core.spec import ModelSettings, ToolSpec
from treadle_server.core.transcript import Transcript
from treadle_server.core.values import Cost, ProposedCall, ProviderContent, Usage

OnDelta = Callable[[DeltaKind, str], None]
"""Takes the next piece of text or thought, in order. Never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One turn that is wanted."""

    model: str
    """Without the provider: `gemini-2.5-flash`."""
    call_id: str
    attempt: int
    """1 for the first attempt at this call."""
    instructions: str
    settings: ModelSettings
    tools: tuple[ToolSpec, ...]
    transcript: Transcript
    output_schema_json: str = ""


@dataclass(frozen=True, slots=True)
class ModelReply:
    """One turn. Without calls it is the model's answer."""

    text: str = ""
    thought: str = ""
    calls: tuple[ProposedCall, ...] = ()
    usage: Usage | None = None
    """None when the provider did not say."""
    cost: Cost | None = None
    """None when the price is unknown."""
    provider_content: ProviderContent | None = None
    refusal: str = ""
    """Why the model declined to answer; empty when it did not."""
    truncated: bool = False
    """The output limit cut the answer off."""


class ModelError(Exception):
    """A model call that gave no turn.

    `code` is a `google.rpc.Code` number. `retry_after_micros` is what the provider asked for, or None.
    """

    def __init__(
        self, code: int, message: str, *, retryable: bool, retry_after_micros: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after_micros = retry_after_micros


class Model(Protocol):
    """One provider.

    An adapter makes no retries of its own and keeps no state between calls but caches. It is cancelled by
    cancelling the task that awaits `reply`, and then leaves nothing running.
    """

    def problem(self, model: str) -> str | None:
        """Says why an agent cannot be given this model name, or None. Makes no call."""
        ...

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        """Answers one turn. The deltas of a kind, joined, equal that field of the reply.

        Raises ModelError, and nothing else, for whatever the provider or the network does.
        """
        ...

    async def close(self) -> None:
        """Ends connections. No call is under way."""
        ...


class Models(Protocol):
    """All providers, by the part of a model string before the colon or the first slash."""

    def find(self, model: str) -> tuple[Model, str]:
        """The adapter and the model's name without the provider. Raises Refused for an unknown provider."""
        ...
