"""What a caller is told about a call that failed: the one table from reason to status."""

import random
from collections.abc import Mapping

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Fenced, StoreFailed

DOMAIN = "treadle.dev"
DETAILS_KEY = "grpc-status-details-bin"
MESSAGE_BYTES_MAX = 512
"""The text goes out twice, once with up to three bytes for one: all together stays below 8 KiB."""
STATUS_BYTES_MAX = 4_096
VIOLATIONS_MAX = 20
_VALUE_BYTES_MAX = 256

CODES: Mapping[Reason, grpc.StatusCode] = {
    Reason.FIELD_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.NOT_SUPPORTED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.REQUEST_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.CREDENTIAL_INVALID: grpc.StatusCode.UNAUTHENTICATED,
    Reason.TENANT_MISMATCH: grpc.StatusCode.PERMISSION_DENIED,
    Reason.SCOPE_MISSING: grpc.StatusCode.PERMISSION_DENIED,
    Reason.PARENT_FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Reason.PARENT_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SESSION_BUSY: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.RESOURCE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.RESOURCE_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.THREAD_STATE_CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.APPROVAL_ALREADY_DECIDED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.APPROVAL_STALE: grpc.StatusCode.ABORTED,
    Reason.ETAG_MISMATCH: grpc.StatusCode.ABORTED,
    Reason.AGENT_DISABLED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.CONCURRENCY_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.SEQUENCE_OUT_OF_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    Reason.SUBSCRIBER_TOO_SLOW: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DISK_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.RECORD_CORRUPT: grpc.StatusCode.DATA_LOSS,
    Reason.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.APPROVER_EXCLUDED: grpc.StatusCode.PERMISSION_DENIED,
}

_RETRY_MICROS: Mapping[Reason, int] = {
    Reason.RATE_LIMITED: 1_000_000,
    Reason.CONCURRENCY_LIMITED: 1_000_000,
    Reason.SUBSCRIBER_TOO_SLOW: 1_000_000,
    Reason.DISK_FULL: 1_000_000,
    Reason.DRAINING: 1_000_000,
    Reason.STORE_UNAVAILABLE: 1_000_000,
}
"""When to come again at the earliest, where the refusal does not say it."""
_SPREAD = 0.5
"""Part of such a delay that is added by chance: whoever is refused together does not come back together."""

_QUOTAS = frozenset({Reason.RATE_LIMITED, Reason.CONCURRENCY_LIMITED, Reason.QUOTA_EXCEEDED})
_PRECONDITIONS = frozenset(
    {
        Reason.THREAD_STATE_CONFLICT,
        Reason.APPROVAL_ALREADY_DECIDED,
        Reason.AGENT_DISABLED,
        Reason.PARENT_MISMATCH,
        Reason.SESSION_BUSY,
    }
)


def refusal_of(error: Exception) -> Refused | None:
    """The error as what a caller is told; None for a fault of ours."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, StoreFailed | Fenced):
        return Refused(Reason.STORE_UNAVAILABLE, "the store did not answer; the change may be there")
    return None


def status_of(refused: Refused, *, subject: str = "") -> status_pb2.Status:
    """The status of a refusal. `subject` is the resource that the request names."""
    message = _cut(refused.message, MESSAGE_BYTES_MAX)
    status = status_pb2.Status(code=CODES[refused.reason].value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=refused.reason.value, domain=DOMAIN)
    for key, value in refused.metadata.items():
        info.metadata[key] = _cut(value, _VALUE_BYTES_MAX)
    _add(status, info)
    if refused.resource is not None:
        kind, name = refused.resource
        _add(
            status,
            error_details_pb2.ResourceInfo(
                resource_type=kind, resource_name=_cut(name, _VALUE_BYTES_MAX), description=message
            ),
        )
    _add_advice(status, refused, message, subject)
    _add_violations(status, refused)
    return status


def internal_status(request_id: str) -> status_pb2.Status:
    """What a caller learns of a fault of ours: nothing but the id to ask for."""
    text = f"the server has failed; its log says more under request id {request_id}"
    status = status_pb2.Status(code=code_pb2.INTERNAL, message=text)
    _add(status, error_details_pb2.ErrorInfo(reason=Reason.INTERNAL.value, domain=DOMAIN))
    _add(status, error_details_pb2.RequestInfo(request_id=request_id))
    return status


def trailing_metadata(status: status_pb2.Status) -> tuple[tuple[str, bytes], ...]:
    return ((DETAILS_KEY, status.SerializeToString()),)


def _add_advice(status: status_pb2.Status, refused: Refused, message: str, subject: str) -> None:
    reason = refused.reason
    retry_micros = refused.retry_after_micros
    if retry_micros is None and reason in _RETRY_MICROS:
        retry_micros = round(_RETRY_MICROS[reason] * random.uniform(1.0, 1.0 + _SPREAD))
    if retry_micros is not None:
        delay = Duration()
        delay.FromMicroseconds(retry_micros)
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    named = refused.resource[1] if refused.resource else subject
    if reason in _QUOTAS:
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(subject=_cut(named, _VALUE_BYTES_MAX), description=message)
        _add(status, quota)
    if reason in _PRECONDITIONS:
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(type=reason.value, subject=_cut(named, _VALUE_BYTES_MAX), description=message)
        _add(status, failure)


def _add_violations(status: status_pb2.Status, refused: Refused) -> None:
    """Names as many faulty fields as there is room for."""
    if not refused.violations:
        return
    room = STATUS_BYTES_MAX - status.ByteSize()
    bad = error_details_pb2.BadRequest()
    for fault in refused.violations[:VIOLATIONS_MAX]:
        bad.field_violations.add(
            field=_cut(fault.field, _VALUE_BYTES_MAX), description=_cut(fault.description, _VALUE_BYTES_MAX)
        )
        if bad.ByteSize() + 64 > room:
            del bad.field_violations[-1]
            break
    _add(status, bad)


def _add(status: status_pb2.Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _cut(text: str, bytes_max: int) -> str:
    """At most so many bytes of UTF-8, without half a character or a lone surrogate."""
    data = text.encode("utf-8", "replace")
    if len(data) <= bytes_max:
        return data.decode()
    return data[: bytes_max - 3].decode("utf-8", "ignore") + "..."
