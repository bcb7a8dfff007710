"""From refusal to status."""

from google.rpc import error_details_pb2

from treadle.v1 import error_reason_pb2
from treadle_server.core.errors import FieldViolation, Reason, Refused
from treadle_server.rpc import errors
from treadle_server.stores.refusals import disk_full


def _unpacked(status: object, kind: type) -> object:
    for packed in status.details:  # type: ignore[attr-defined]
        if packed.Is(kind.DESCRIPTOR):  # type: ignore[attr-defined]
            message = kind()
            packed.Unpack(message)
            return message
    return None


def test_every_reason_has_a_code_and_stands_in_the_api() -> None:
    assert set(errors.CODES) == set(Reason)
    assert {reason.value for reason in Reason} <= set(error_reason_pb2.ErrorReason.keys())


def test_a_status_stays_below_8_kib_whatever_is_wrong() -> None:
    long = "\u4e16\n" * 5_000
    violations = tuple(FieldViolation(f"agent.labels{n}.{long}", long) for n in range(1_000))

    for reason in Reason:
        refused = Refused(
            reason,
            long,
            metadata={"resource": long, "state": long},
            violations=violations,
            resource=("treadle.dev/Agent", long),
        )
        status = errors.status_of(refused, subject=long)
        percent_encoded = 3 * len(status.message.encode())
        base64_encoded = len(errors.trailing_metadata(status)[0][1]) * 4 // 3
        assert percent_encoded + base64_encoded + 200 < 8_192, reason


def test_at_most_twenty_violations_are_named_and_at_least_one() -> None:
    many = tuple(FieldViolation(f"f{n}", "is required") for n in range(50))
    status = errors.status_of(Refused(Reason.FIELD_INVALID, "x", violations=many))

    bad = _unpacked(status, error_details_pb2.BadRequest)

    assert [fault.field for fault in bad.field_violations] == [f"f{n}" for n in range(20)]  # type: ignore[attr-defined]


def test_text_that_is_no_unicode_is_sent_all_the_same() -> None:
    status = errors.status_of(Refused(Reason.FIELD_INVALID, "bad \ud800", metadata={"field": "\udfff"}))

    assert status.message == "bad ?"
    assert errors.trailing_metadata(status)


def test_those_for_whom_the_disk_was_full_do_not_come_back_together() -> None:
    statuses = [errors.status_of(disk_full()) for _ in range(20)]

    delays = {
        _unpacked(status, error_details_pb2.RetryInfo).retry_delay.ToMicroseconds()  # type: ignore[attr-defined]
        for status in statuses
    }
    assert len(delays) > 10
    assert all(1_000_000 <= delay <= 1_500_000 for delay in delays)


def test_what_the_store_asks_for_wins_over_the_usual_delay() -> None:
    status = errors.status_of(Refused(Reason.DISK_FULL, "full", retry_after_micros=2_500_000))

    retry = _unpacked(status, error_details_pb2.RetryInfo)

    assert retry.retry_delay.ToMicroseconds() == 2_500_000  # type: ignore[attr-defined]
