# ruff: noqa: N818 - the names are those of the statuses
"""What a call can end with: one class per status, with the details that the server sent along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"
THREAD_KEY = "treadle-thread"
DOMAIN = "treadle.dev"
Detail = TypeVar("Detail")


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: a field of the request, an exceeded quota or an unmet precondition."""

    field: str
    description: str


class TreadleError(Exception):
    """A call that did not succeed; `reason` is empty when the transport and not the server ended it."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
        resource: str = "",
        request_id: str = "",
        thread: str = "",
    ) -> None:
        details = dict(metadata or {})
        # All of it goes to `args`, so that the error survives pickling.
        super().__init__(
            code, message, reason, details, violations, retry_after, resource, request_id, thread
        )
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = details
        self.violations = violations
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again."""
        self.resource = resource
        """Name of the resource that the error is about."""
        self.request_id = request_id
        """What to tell the operator, who finds it in the server's log."""
        self.thread = thread
        """`threads/{thread}` that the call had made before it failed; the thread goes on."""

    def __str__(self) -> str:
        kind = f"{self.code.name} / {self.reason}" if self.reason else self.code.name
        # A text that holds a violation word for word has told it.
        untold = [each for each in self.violations if each.description not in self.message]
        faults = "; ".join(f"{each.field}: {each.description}" for each in untold)
        asked = f"request {self.request_id}" if self.request_id else ""
        return " - ".join(part for part in (f"{kind}: {self.message}", faults, asked) if part)


class InvalidArgument(TreadleError):
    """The request is faulty, or asks for what the server does not have; `violations` name the fields."""


class NotFound(TreadleError):
    """There is no such resource, or it is another tenant's."""


class AlreadyExists(TreadleError):
    """The id is taken, or the request_id was used for another request."""


class FailedPrecondition(TreadleError):
    """The state of things does not allow it."""


class StateConflict(FailedPrecondition):
    """The thread's state does not allow it; nothing has changed."""


class Aborted(TreadleError):
    """The resource has changed since it was read: read it again."""


class OutOfRange(TreadleError):
    """The log does not hold the sequence to go on from."""


class ResourceExhausted(TreadleError):
    """Too much at one time or in a span of time, or the disk is full."""


class Unauthenticated(TreadleError):
    """There is no credential, or the server does not take it."""


class PermissionDenied(TreadleError):
    """The credential does not allow it."""


class Unavailable(TreadleError):
    """The server was not reached, is stopping, or lost the connection; the call may have taken effect."""


class Cancelled(TreadleError):
    """The server or the transport gave the call up, and this client had not asked for it."""


class DeadlineExceeded(TreadleError):
    """The call's time was over; it may have taken effect, and a thread goes on."""


class DataLoss(TreadleError):
    """A stored record is damaged."""


class Unimplemented(TreadleError):
    """This server does not have the method."""


class Internal(TreadleError):
    """A fault of the server."""


_KINDS: dict[grpc.StatusCode, type[TreadleError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
}
_REASONS: dict[str, type[TreadleError]] = {"THREAD_STATE_CONFLICT": StateConflict}


class Failure(Protocol):
    """What the errors of both of grpc's stacks can tell."""

    def code(self) -> grpc.StatusCode | None: ...
    def details(self) -> str | None: ...
    def initial_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def error_of(failure: Failure) -> TreadleError:
    """Turns a failed call into its error; details that cannot be read are left out."""
    code = failure.code() or grpc.StatusCode.UNKNOWN
    status = status_pb2.Status()
    for key, value in failure.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = _status(value)
    thread = next((str(value) for key, value in failure.initial_metadata() or () if key == THREAD_KEY), "")
    return _error(code, failure.details() or status.message, status, thread)


def _status(raw: bytes) -> status_pb2.Status:
    try:
        return status_pb2.Status.FromString(raw)
    except DecodeError:  # the code and the text are still good
        return status_pb2.Status()


def _error(code: grpc.StatusCode, message: str, status: status_pb2.Status, thread: str) -> TreadleError:
    info = _detail(status, error_details_pb2.ErrorInfo())
    reason = info.reason if info.domain == DOMAIN else ""
    retry = _detail(status, error_details_pb2.RetryInfo())
    kind = _REASONS.get(reason) or _KINDS.get(code, TreadleError)
    return kind(
        code,
        message,
        reason,
        info.metadata,
        _violations(status),
        retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
        _detail(status, error_details_pb2.ResourceInfo()).resource_name,
        _detail(status, error_details_pb2.RequestInfo()).request_id,
        thread,
    )


def _detail(status: status_pb2.Status, empty: Detail) -> Detail:
    """Fills `empty` from the status' detail of its type, if there is one that can be read."""
    for packed in status.details:
        with suppress(DecodeError):
            if packed.Unpack(empty):
                break
    return empty


def _violations(status: status_pb2.Status) -> tuple[Violation, ...]:
    fields = _detail(status, error_details_pb2.BadRequest()).field_violations
    quotas = _detail(status, error_details_pb2.QuotaFailure()).violations
    conditions = _detail(status, error_details_pb2.PreconditionFailure()).violations
    return (
        *(Violation(each.field, each.description) for each in fields),
        *(Violation(each.subject, each.description) for each in quotas),
        *(Violation(each.subject, each.description) for each in conditions),
    )
