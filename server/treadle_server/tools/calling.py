"""How every tool of our own is called: what a call gives, whatever becomes of the function."""

from collections.abc import Awaitable

from treadle_server import failpoints
from treadle_server.core.kinds import Effect
from treadle_server.core.spec import ToolSpec
from treadle_server.core.text import bounded
from treadle_server.ports.tools import ToolError, ToolResult


async def answered(spec: ToolSpec, running: Awaitable[str]) -> ToolResult:
    """What the agent observes: a ValueError is an answer, anything else that is raised a ToolError."""
    try:
        if failpoints.ACTIVE:
            failpoints.hit("effect.before")
        result = ToolResult(await running)
        if failpoints.ACTIVE:
            failpoints.hit("effect.after")
    except ValueError as error:
        result = ToolResult(str(error), ok=False)
    except Exception as error:
        # Its text is for us and not for the agent: it may name files or hosts.
        retryable = spec.effect in (Effect.READ_ONLY, Effect.IDEMPOTENT)
        raise ToolError(f"{spec.name} broke off: {type(error).__name__}", retryable=retryable) from error
    return ToolResult(bounded(result.observation, spec.output_bytes_max)[0], result.ok)
