"""What threads tell each other comes back as it went."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.values import values
from treadle_server.core.mail import Told
from treadle_server.core.outcomes import ChildEnded
from treadle_server.core.signals import Cancel, Pause, Resume
from treadle_server.record.v1 import record_pb2
from treadle_server.wire.codec import ProtoCodec

CODEC = ProtoCodec()


@given(st.one_of(values(Pause), values(Resume), values(Cancel), values(ChildEnded)))
def test_a_letter_comes_back_as_it_went(ask: Told) -> None:
    if isinstance(ask, ChildEnded):  # the receiver knows the child's name by the call
        ask = dataclasses.replace(ask, child_thread="")

    assert CODEC.decode_mail(CODEC.encode_mail(ask)) == ask


def _of_a_newer_release() -> bytes:
    message = record_pb2.Mail()
    message.cancel.stop_reason = 999  # type: ignore[assignment]  # the stub names the enum
    return message.SerializeToString()


@pytest.mark.parametrize("body", [b"", b"\xff", _of_a_newer_release()])
def test_a_letter_that_says_nothing_to_this_release_has_no_words(body: bytes) -> None:
    assert CODEC.decode_mail(body) is None
