"""Ids that callers choose, and keys that follow from them."""

import pytest

from treadle_server.core.ids import idempotency_key, is_resource_id


@pytest.mark.parametrize("text", ["a", "7", "a-b", "a--b", "0-9", "a" * 63])
def test_an_id_may_be(text: str) -> None:
    assert is_resource_id(text)


@pytest.mark.parametrize("text", ["", "-", "-a", "a-", "A", "a_b", "a.b", "a/b", "a b", "ä", "a\n", "a" * 64])
def test_an_id_may_not_be(text: str) -> None:
    assert not is_resource_id(text)


def test_a_key_is_the_same_for_a_call_and_another_for_every_other_one() -> None:
    key = idempotency_key(1, 23, "c4")

    assert key == idempotency_key(1, 23, "c4")
    assert len(key) == 32
    others = {
        idempotency_key(2, 23, "c4"),
        idempotency_key(1, 24, "c4"),
        idempotency_key(1, 23, "c5"),
        idempotency_key(12, 3, "c4"),
    }
    assert len(others | {key}) == 5


def test_a_key_never_changes_between_releases() -> None:
    """Whoever was called with it before an upgrade must know it again after."""
    assert idempotency_key(1, 23, "c4") == "13ca31fe8366c36e535b9cc570605ca3"
