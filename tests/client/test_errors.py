"""Errors say all that the server said, and hold with anything that it did not say."""

import pickle
from dataclasses import dataclass

import grpc
import pytest
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2

from tests.client.server import retry_after, trailers
from treadle import errors

CODES = [code for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)]


@dataclass
class Failed:
    """A failed call as grpc's errors show it."""

    status: grpc.StatusCode | None
    text: str | None = "text"
    trailing: tuple[tuple[str, str | bytes], ...] | None = ()
    initial: tuple[tuple[str, str | bytes], ...] | None = ()

    def code(self) -> grpc.StatusCode | None:
        return self.status

    def details(self) -> str | None:
        return self.text

    def initial_metadata(self) -> tuple[tuple[str, str | bytes], ...] | None:
        return self.initial

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...] | None:
        return self.trailing


def refused(code: grpc.StatusCode, reason: str, *more: object) -> errors.TreadleError:
    return errors.error_of(Failed(code, trailing=trailers(code, "text", reason, more)))  # type: ignore[arg-type]


def test_every_detail_of_a_refusal_is_told() -> None:
    violation = details.BadRequest.FieldViolation(field="agent.model", description="no such provider")

    error = refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        details.BadRequest(field_violations=[violation]),
        details.ResourceInfo(resource_type="treadle.dev/Agent", resource_name="agents/a"),
        details.RequestInfo(request_id="r-17"),
        retry_after(2.5),
    )

    assert isinstance(error, errors.InvalidArgument)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert error.violations == (errors.Violation("agent.model", "no such provider"),)
    assert (error.resource, error.request_id, error.retry_after) == ("agents/a", "r-17", 2.5)


def test_an_error_reads_as_one_line_with_its_violations() -> None:
    violation = details.BadRequest.FieldViolation(field="agent.model", description="no such provider")

    error = refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        details.BadRequest(field_violations=[violation]),
        details.RequestInfo(request_id="r-17"),
    )

    assert str(error) == (
        "INVALID_ARGUMENT / FIELD_INVALID: text - agent.model: no such provider - request r-17"
    )


def test_quotas_and_preconditions_are_violations_too() -> None:
    quota = details.QuotaFailure(
        violations=[details.QuotaFailure.Violation(subject="tenants/a", description="100 a minute")]
    )
    condition = details.PreconditionFailure(
        violations=[details.PreconditionFailure.Violation(subject="threads/t", description="has ended")]
    )

    error = refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_BUSY", quota, condition)

    assert error.violations == (
        errors.Violation("tenants/a", "100 a minute"),
        errors.Violation("threads/t", "has ended"),
    )


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_every_status_has_a_class_of_its_own(code: grpc.StatusCode) -> None:
    error = refused(code, "INTERNAL")

    assert type(error) is not errors.TreadleError
    assert type(error).__name__.lower() == code.name.replace("_", "").lower()


def test_a_state_conflict_is_a_failed_precondition_of_its_own() -> None:
    error = refused(grpc.StatusCode.FAILED_PRECONDITION, "THREAD_STATE_CONFLICT")

    assert type(error) is errors.StateConflict
    assert isinstance(error, errors.FailedPrecondition)


@pytest.mark.parametrize(
    "failed",
    [
        Failed(grpc.StatusCode.UNAVAILABLE),
        Failed(grpc.StatusCode.UNAVAILABLE, trailing=None, initial=None),
        Failed(grpc.StatusCode.UNAVAILABLE, trailing=(("grpc-status-details-bin", b"\xff\xff"),)),
    ],
    ids=["no details", "no metadata", "damaged details"],
)
def test_what_cannot_be_read_leaves_code_and_text(failed: Failed) -> None:
    error = errors.error_of(failed)

    assert isinstance(error, errors.Unavailable)
    assert (error.reason, error.message, error.retry_after) == ("", "text", None)


def test_a_reason_of_another_domain_is_not_ours() -> None:
    foreign = details.ErrorInfo(reason="RATE_LIMITED", domain="proxy.example")
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    packed = trailers(code, "text", "x")[0][1]
    status = status_pb2.Status.FromString(packed)
    del status.details[:]
    status.details.add().Pack(foreign)

    error = errors.error_of(Failed(code, trailing=(("grpc-status-details-bin", status.SerializeToString()),)))

    assert error.reason == ""
    assert isinstance(error, errors.ResourceExhausted)


def test_the_thread_that_a_failed_call_had_made_is_named() -> None:
    error = errors.error_of(
        Failed(grpc.StatusCode.DEADLINE_EXCEEDED, initial=(("treadle-thread", "threads/t1"),))
    )

    assert error.thread == "threads/t1"


def test_an_error_survives_pickling() -> None:
    error = refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH", retry_after(1))

    again = pickle.loads(pickle.dumps(error))

    assert (type(again), str(again), again.retry_after) == (errors.Aborted, str(error), 1.0)
