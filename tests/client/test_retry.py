"""What is tried again, after how long, and until when."""

from contextlib import suppress

import grpc
import pytest
from google.rpc import error_details_pb2

from treadle.errors import TreadleError
from treadle.retry import Attempts, Retry, retriable
from treadle_server.core.errors import Reason, Refused
from treadle_server.rpc import errors
from treadle_server.services.rates import DELAY_SECONDS_MAX, SPREAD, Rate

UNAVAILABLE = TreadleError(grpc.StatusCode.UNAVAILABLE, "gone")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def failed(code: grpc.StatusCode, retry_after: float | None = None, thread: str = "") -> TreadleError:
    return TreadleError(code, "no", retry_after=retry_after, thread=thread)


def spent(attempts: Attempts, clock: Clock, error: TreadleError) -> float:
    """Seconds after the first failure at which the attempts are given up."""
    began = clock.now
    with suppress(TreadleError):
        for _ in range(10_000):
            clock.now += attempts.delay(error)
        raise AssertionError("never given up")
    return clock.now - began


def test_pauses_double_up_to_the_longest_and_are_spread() -> None:
    retry = Retry(first_delay_seconds=0.1, delay_seconds_max=1.0)

    for failures, most in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.0), (50, 1.0)):
        drawn = [retry.delay(failures, None) for _ in range(50)]
        assert all(most / 2 <= pause <= most for pause in drawn)
        assert len(set(drawn)) > 1


def test_the_server_is_not_asked_again_before_it_wants_to_be() -> None:
    assert all(3.0 <= Retry().delay(1, 3.0) <= 3.3 for _ in range(50))


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_only_passing_failures_are_tried_again(code: grpc.StatusCode) -> None:
    passing = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

    assert retriable(failed(code)) is passing
    assert retriable(failed(code, retry_after=1.0)) is (passing or code is grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_a_server_that_was_never_reached_is_given_up_soon() -> None:
    clock = Clock()
    attempts = Attempts(Retry(call_seconds_max=15, stream_seconds_max=300), clock=clock)

    assert 9 < spent(attempts, clock, UNAVAILABLE) <= 15


@pytest.mark.parametrize("known", ["by an answer", "by the thread's name"])
def test_one_that_was_reached_is_waited_for_longer(known: str) -> None:
    clock = Clock()
    attempts = Attempts(Retry(call_seconds_max=15, stream_seconds_max=300), clock=clock)
    if known == "by an answer":
        attempts.progressed()
    else:
        clock.now += attempts.delay(failed(grpc.StatusCode.UNAVAILABLE, thread="threads/t1"))

    assert 290 < spent(attempts, clock, UNAVAILABLE) <= 300


def test_patience_begins_anew_with_every_answer() -> None:
    clock = Clock()
    attempts = Attempts(Retry(call_seconds_max=15, stream_seconds_max=300), clock=clock)
    attempts.progressed()
    for _ in range(100):
        clock.now += 100
        assert attempts.delay(UNAVAILABLE) <= 0.1
        attempts.progressed()


def test_no_attempt_goes_beyond_the_deadline() -> None:
    clock = Clock()
    attempts = Attempts(Retry(), timeout=2.0, clock=clock)

    assert attempts.timeout() == pytest.approx(2.0)
    assert spent(attempts, clock, UNAVAILABLE) <= 2.0


def test_a_pause_longer_than_the_patience_is_left_to_the_caller() -> None:
    attempts = Attempts(Retry(call_seconds_max=15))
    asked = failed(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=60.0)

    with pytest.raises(TreadleError) as raised:
        attempts.delay(asked)

    assert raised.value.retry_after == 60.0


def test_no_server_asks_for_a_longer_pause_than_a_client_has_patience() -> None:
    longest = DELAY_SECONDS_MAX * (1 + SPREAD)
    refused = failed(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=longest)

    for _ in range(100):
        assert longest <= Attempts(Retry()).delay(refused) <= Retry().call_seconds_max
    rate = Rate(1.0, Clock())
    assert max(rate.begin() for _ in range(1_000)) <= longest


@pytest.mark.parametrize("reason", Reason)
def test_no_refusal_is_given_up_at_once_that_may_pass(reason: Reason) -> None:
    for _ in range(20):
        status = errors.status_of(Refused(reason, "no"))
        told = error_details_pb2.RetryInfo()
        if any(detail.Unpack(told) for detail in status.details):
            delay = told.retry_delay.ToMicroseconds() / 1_000_000
            asked = failed(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=delay)
            assert Attempts(Retry()).delay(asked) <= Retry().call_seconds_max


def test_no_patience_means_no_second_attempt() -> None:
    with pytest.raises(TreadleError):
        Attempts(Retry(call_seconds_max=0)).delay(UNAVAILABLE)
