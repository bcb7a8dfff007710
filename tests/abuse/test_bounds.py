"""Bounds that an operator or the system sets, and what is taken for none."""

import resource

import pytest

from treadle.channels import STREAMS_PER_CHANNEL
from treadle_server import files
from treadle_server.config import load

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (1_024, 4_096, 4_096),
        (1_024, UNLIMITED, 2**20),
        (256, 2**30, 2**20),
        (2**22, 2**30, 2**22),
        (2**22, UNLIMITED, 2**22),
        (UNLIMITED, UNLIMITED, UNLIMITED),
    ],
)
def test_the_limit_of_files_is_raised_as_far_as_a_number_goes_and_never_lowered(
    soft: int, hard: int, wanted: int
) -> None:
    assert files.raised(soft, hard, UNLIMITED) == wanted


@pytest.mark.parametrize("days", [0, -1, 1e-12, 1e-6, 36_526])
def test_a_retention_of_less_than_a_second_or_of_ages_is_no_setting(days: float) -> None:
    with pytest.raises(ValueError, match="thread_retention_days"):
        load(thread_retention_days=days)


def test_the_shortest_retention_is_a_second() -> None:
    assert load(thread_retention_days=1 / 86_400).thread_retention_days == 1 / 86_400


def test_a_connection_has_room_for_a_clients_streams_and_short_calls() -> None:
    with pytest.raises(ValueError, match="connection_streams_max"):
        load(connection_streams_max=STREAMS_PER_CHANNEL)
    with pytest.raises(ValueError, match="connection_streams_max"):
        load(connection_streams_max=599)
    assert load(connection_streams_max=600).connection_streams_max > STREAMS_PER_CHANNEL
