"""One call on its way through the door: who makes it, what it asks, and what is said when it fails."""

from __future__ import annotations

import asyncio
import secrets
from time import monotonic
from typing import Any, cast

import grpc
import structlog

from treadle_server.core.errors import Reason, Refused, invalid
from treadle_server.rpc import errors
from treadle_server.rpc.arrivals import Arrivals
from treadle_server.rpc.calls import Call, Context
from treadle_server.rpc.identity import Identify
from treadle_server.rpc.log_lines import LogLines

_log = structlog.get_logger("treadle.rpc")
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Visit:
    """One call on its way through the door, and what is said when it fails."""

    __slots__ = ("_began", "_context", "_ending", "_lines", "call", "path", "request")

    call: Call
    """Set once the caller is known."""

    def __init__(self, lines: LogLines, path: str, context: Context) -> None:
        self._lines = lines
        self.path = path
        self.request: Any = None
        """Set once it has come."""
        self._context = context
        self._began = monotonic()
        self._ending: asyncio.Task[None] | None = None

    @property
    def context(self) -> Context:
        return self._context

    async def arrive(self, arrivals: Arrivals, identify: Identify) -> None:
        """Learns who calls, and waits for the request: nobody waits for one of a stranger.

        Raises Refused for a stranger or without a request, AbortError when it came too late.
        """
        metadata = cast(Any, self._context.invocation_metadata() or ())
        arrivals.begin(self)
        try:
            self.call = Call(self.path, await identify(metadata), self._context)
            if self._ending is None:
                self.request = await self._context.read()
        finally:
            arrivals.end(self)
        if self._ending is not None:
            await self._ending
            raise grpc.aio.AbortError("it came too late")
        if self.request is grpc.aio.EOF:
            self.request = None
            raise invalid(("request", "is not there, or not whole"))

    def stalled(self) -> None:
        self._end_early(invalid(("request", "did not come in time")))

    def crowded_out(self, most: int) -> None:
        text = "its request did not come, and newer calls needed the place"
        self._end_early(Refused(Reason.CONCURRENCY_LIMITED, text, metadata={"limit": str(most)}))

    def _end_early(self, refused: Refused) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(refused))

    async def _end(self, refused: Refused) -> None:
        try:
            await self.fail(refused)
        except grpc.aio.AbortError:
            return

    async def fail(self, error: Exception) -> None:
        """Ends the call with the error's status. Returns only if the caller is gone."""
        if isinstance(error, grpc.aio.InternalError | grpc.aio.AbortError):
            return  # the call has ended already
        refused = errors.refusal_of(error)
        if refused is None:
            await self._abort(errors.internal_status(self._log_failure(error)))
            return
        status = errors.status_of(refused, subject=_named(self.request))
        more = self._lines.admit(refused.reason.value)
        if more is not None:
            facts = {**self._facts(), **more}
            _log.info("call_refused", reason=refused.reason.value, message=status.message, **facts)
        await self._abort(status)

    def _log_failure(self, error: Exception) -> str:
        """The request id under which the log tells of it: in a flood of failures briefly."""
        request_id = secrets.token_hex(8)
        more = self._lines.admit("call_failed")
        about = {"error": type(error).__name__} if more is None else {"exc_info": error, **more}
        _log.error("call_failed", request_id=request_id, **about, **self._facts())
        return request_id

    async def _abort(self, status: Any) -> None:
        code = _STATUS_CODES[status.code]
        try:
            await self._context.abort(code, status.message, errors.trailing_metadata(status))
        except grpc.aio.AbortError:
            raise
        except grpc.aio.BaseError:
            return  # nobody is there to be told

    def answered(self) -> None:
        _log.debug("call_answered", **self._facts())

    def _facts(self) -> dict[str, object]:
        call = getattr(self, "call", None)
        return {
            "method": self.path,
            "tenant": call.identity.tenant_id if call else "",
            "principal": call.principal if call else "",
            "peer": self._context.peer(),
            "seconds": round(monotonic() - self._began, 6),
        }


def _named(request: Any) -> str:
    """The resource that a request is about, as far as it says."""
    return getattr(request, "name", "") or getattr(request, "parent", "") or ""
