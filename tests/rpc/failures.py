"""What a caller learns from a call that failed, taken apart for tests."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
    error_details_pb2.QuotaFailure,
    error_details_pb2.PreconditionFailure,
    error_details_pb2.ResourceInfo,
    error_details_pb2.RequestInfo,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Code, text and details of a status."""

    code: grpc.StatusCode
    message: str
    details: dict[str, Any]
    """By the short name of their type."""
    metadata_bytes: int

    @property
    def reason(self) -> str:
        return str(self.details["ErrorInfo"].reason)

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.details["ErrorInfo"].metadata)

    @property
    def fields(self) -> dict[str, str]:
        """Descriptions of faulty fields, by path."""
        return {fault.field: fault.description for fault in self.details["BadRequest"].field_violations}


async def failure_of(call: Awaitable[Any]) -> Failure:
    """The failure that a call must end with."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return taken_apart(error)
    raise AssertionError(f"the call succeeded: {answer}")


def taken_apart(error: grpc.aio.AioRpcError) -> Failure:
    pairs = [(key, value) for key, value in error.trailing_metadata() or ()]
    found = [value for key, value in pairs if key == "grpc-status-details-bin"]
    assert len(found) == 1, f"{error.code()} {error.details()} has no details"
    status = status_pb2.Status.FromString(found[0])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    details = {}
    for packed in status.details:
        for kind in _DETAILS:
            if packed.Is(kind.DESCRIPTOR):
                message = kind()
                packed.Unpack(message)
                details[kind.DESCRIPTOR.name] = message
    assert details["ErrorInfo"].domain == "treadle.dev"
    size = sum(len(key) + len(value) * 4 // 3 + 32 for key, value in pairs) + 3 * len(status.message)
    return Failure(error.code(), status.message, details, size)
