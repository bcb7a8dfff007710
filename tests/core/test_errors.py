"""What a refusal says, in words and in its parts."""

import pytest

from treadle_server.core.errors import FieldViolation, Reason, Refused, invalid, not_found, not_supported


def test_all_faulty_fields_are_named_at_once() -> None:
    refused = invalid(("agent.model", "must be provider:model"), ("page_size", "must not be negative"))

    assert refused.reason is Reason.FIELD_INVALID
    assert str(refused) == "agent.model: must be provider:model; page_size: must not be negative"
    assert refused.violations == (
        FieldViolation("agent.model", "must be provider:model"),
        FieldViolation("page_size", "must not be negative"),
    )


def test_a_feature_that_is_not_there_is_named_with_its_field() -> None:
    refused = not_supported("thread.webhook_targets", "a webhook")

    assert refused.reason is Reason.NOT_SUPPORTED
    assert refused.message == "thread.webhook_targets: a webhook is not supported by this server"
    assert refused.metadata == {"field": "thread.webhook_targets"}
    assert refused.violations == (
        FieldViolation("thread.webhook_targets", "a webhook is not supported by this server"),
    )


def test_what_is_absent_is_named_with_its_type() -> None:
    refused = not_found("Thread", "threads/t")

    assert refused.reason is Reason.RESOURCE_NOT_FOUND
    assert refused.message == "threads/t does not exist"
    assert refused.metadata == {"resource": "threads/t"}
    assert refused.resource == ("treadle.dev/Thread", "threads/t")


def test_a_refusal_has_only_the_parts_that_it_was_given() -> None:
    with pytest.raises(Refused, match="no room") as caught:
        raise Refused(Reason.DISK_FULL, "no room")

    refused = caught.value
    assert (refused.metadata, refused.violations, refused.resource) == ({}, (), None)
    assert refused.retry_after_micros is None
    assert Refused(Reason.DISK_FULL, "no room", retry_after_micros=5).retry_after_micros == 5
