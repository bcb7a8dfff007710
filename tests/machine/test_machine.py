"""Random sequences of everything that can be asked of a thread, against the page about the API."""

import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.machine import machine_on
from tests.machine.place import Place

SEED_VARIABLE, SEQUENCES_VARIABLE = "MACHINE_SEED", "MACHINE_SEQUENCES"
SEQUENCES, SOAK_SEQUENCES = 40, 2_000
BATCH = 20
SEED = 1
RULES = settings(
    max_examples=BATCH,
    stateful_step_count=20,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def play(folder: Path, sequences: int, number: int) -> Place:
    """Fails at the first sequence that goes otherwise than expected, and tells it.

    A batch has a seed of its own, so that one that fails is soon played again.
    """
    with Place(folder) as place:
        for batch in range(number, number + math.ceil(sequences / BATCH)):
            print(f"{BATCH} sequences with {SEED_VARIABLE}={batch}", flush=True)
            run_state_machine_as_test(seed(batch)(machine_on(place)), settings=RULES)
    return place


def test_threads_go_through_random_sequences_as_the_api_page_says(tmp_path: Path) -> None:
    place = play(tmp_path, SEQUENCES, int(os.environ.get(SEED_VARIABLE, SEED)))

    assert place.threads > SEQUENCES
    assert place.kills


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_threads_go_through_two_thousand_random_sequences(tmp_path: Path) -> None:
    """With another seed each time, unless one is given."""
    number = int(os.environ.get(SEED_VARIABLE) or int.from_bytes(os.urandom(4)))
    sequences = int(os.environ.get(SEQUENCES_VARIABLE, SOAK_SEQUENCES))

    place = play(tmp_path, sequences, number)

    print(f"{place.threads} threads, {place.kills} kills")
    assert place.threads > sequences
