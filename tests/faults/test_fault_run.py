"""Threads made, watched and ended in every way while their server is killed again and again."""

import os
import time
from pathlib import Path

import pytest

from tests.faults.fault_run import Figures, Round, run

MINUTES_VARIABLE = "TREADLE_SOAK_MINUTES"
SOAK_ROUNDS = 10
SOAK_KILLS = 50
SOAK_THREADS = 2_050
"""A round. In all more than 20,000, though some of what is made is not acknowledged as made."""
KILLS, THREADS = 12, 250
FEW_KILLS, FEW_THREADS = 4, 60
"""Enough for most bugs that `planted` plants."""


async def test_promises_hold_through_a_few_kills(tmp_path: Path, prepared: Path) -> None:
    plan = Round(2, FEW_KILLS, FEW_THREADS, at_once=16, google=0.05, seconds=40)

    figures = await run(tmp_path / "run", prepared, plan)

    assert figures.counts["kills"] >= FEW_KILLS
    assert figures.counts["acknowledged threads"] >= FEW_THREADS


@pytest.mark.timeout(240)
async def test_promises_hold_while_a_server_is_killed_at_random(tmp_path: Path, prepared: Path) -> None:
    figures = await run(tmp_path / "run", prepared, Round(1, KILLS, THREADS, google=0.05))

    print(figures)
    assert figures.counts["kills"] >= KILLS
    assert figures.counts["acknowledged threads"] >= THREADS
    assert figures.counts["recoveries"] > KILLS
    assert figures.counts["acknowledged ends"] > 0
    assert figures.counts["model answers over HTTP"] > 0


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_promises_hold_through_five_hundred_kills(tmp_path: Path, prepared: Path) -> None:
    """`TREADLE_SOAK_MINUTES` lets it go on for longer, with other seeds."""
    until = time.monotonic() + 60 * float(os.environ.get(MINUTES_VARIABLE, "0"))
    total, number = Figures(), 0
    while number < SOAK_ROUNDS or time.monotonic() < until:
        number += 1
        plan = Round(number, SOAK_KILLS, SOAK_THREADS, google=0.1 if number % 5 == 0 else 0.0)
        figures = await run(tmp_path / f"round-{number}", prepared, plan)
        print(f"round {number}: {figures}", flush=True)
        total.add(figures)

    print(f"in all: {total}")
    assert total.counts["kills"] >= SOAK_ROUNDS * SOAK_KILLS
    assert total.counts["acknowledged threads"] >= 20_000
