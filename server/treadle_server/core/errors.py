"""What a caller can cause or cure. Everything else is a bug of ours and answered INTERNAL."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Names of `treadle.v1.ErrorReason`, where each is documented with its metadata."""

    FIELD_INVALID = "FIELD_INVALID"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    CREDENTIAL_INVALID = "CREDENTIAL_INVALID"
    TENANT_MISMATCH = "TENANT_MISMATCH"
    SCOPE_MISSING = "SCOPE_MISSING"
    PARENT_FORBIDDEN = "PARENT_FORBIDDEN"
    PARENT_MISMATCH = "PARENT_MISMATCH"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"
    RESOURCE_EXISTS = "RESOURCE_EXISTS"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    THREAD_STATE_CONFLICT = "THREAD_STATE_CONFLICT"
    APPROVAL_ALREADY_DECIDED = "APPROVAL_ALREADY_DECIDED"
    APPROVAL_STALE = "APPROVAL_STALE"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    SESSION_BUSY = "SESSION_BUSY"
    AGENT_DISABLED = "AGENT_DISABLED"
    RATE_LIMITED = "RATE_LIMITED"
    CONCURRENCY_LIMITED = "CONCURRENCY_LIMITED"
    SEQUENCE_OUT_OF_RANGE = "SEQUENCE_OUT_OF_RANGE"
    SUBSCRIBER_TOO_SLOW = "SUBSCRIBER_TOO_SLOW"
    DISK_FULL = "DISK_FULL"
    DRAINING = "DRAINING"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    RECORD_CORRUPT = "RECORD_CORRUPT"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    APPROVER_EXCLUDED = "APPROVER_EXCLUDED"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One faulty field, by its path in the request."""

    field: str
    description: str


class Refused(Exception):  # noqa: N818 - a refusal is not an error of ours
    """A request that changed nothing, and why.

    `metadata` goes to ErrorInfo; `resource` is (type, name) for ResourceInfo.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: dict[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        resource: tuple[str, str] | None = None,
        retry_after_micros: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata or {}
        self.violations = violations
        self.resource = resource
        self.retry_after_micros = retry_after_micros


def invalid(*violations: tuple[str, str]) -> Refused:
    """Refuses the named fields at once: `invalid(("agent.model", "must be provider:model"))`."""
    faults = tuple(FieldViolation(field, description) for field, description in violations)
    text = "; ".join(f"{fault.field}: {fault.description}" for fault in faults)
    return Refused(Reason.FIELD_INVALID, text, violations=faults)


def not_supported(field: str, what: str) -> Refused:
    """Refuses a field whose feature this server does not have."""
    return Refused(
        Reason.NOT_SUPPORTED,
        f"{field}: {what} is not supported by this server",
        metadata={"field": field},
        violations=(FieldViolation(field, f"{what} is not supported by this server"),),
    )


def not_found(kind: str, name: str) -> Refused:
    """Refuses a name that is absent or another tenant's; the two look the same."""
    return Refused(
        Reason.RESOURCE_NOT_FOUND,
        f"{name} does not exist",
        metadata={"resource": name},
        resource=(f"treadle.dev/{kind}", name),
    )
