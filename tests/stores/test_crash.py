"""The process is killed around a commit: what was acknowledged is there, and units are whole."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.units import bodies
from tests.stores.kit import Opens
from treadle_server import failpoints
from treadle_server.ports.log import ThreadKey

KILLED = -signal.SIGKILL


def _append(path: Path, rules: str) -> tuple[int, int]:
    """Runs the process; its exit code, and the last sequence that it acknowledged."""
    paths = os.pathsep.join(part for part in sys.path if part)
    done = subprocess.run(
        [sys.executable, "-m", "tests.stores.appending", str(path)],
        env={**os.environ, "TREADLE_FAILPOINTS": rules, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    return done.returncode, int(done.stdout.split()[-1]) if done.stdout else 0


async def _stored(opens: Opens, path: Path) -> list[str]:
    opened = await opens(path)
    stored = await bodies(opened.store.log, ThreadKey(1, 1))
    await opened.store.close()
    return stored


@pytest.mark.parametrize(
    ("rules", "exit_code", "acknowledged", "stored"),
    [
        ("", 0, 9, 9),
        ("commit.before@1=kill", KILLED, 0, 0),
        ("commit.after@1=kill", KILLED, 0, 1),
        ("commit.before@4=kill", KILLED, 3, 3),
        ("commit.after@4=kill", KILLED, 3, 5),
        ("commit.before@5=kill", KILLED, 3, 3),
        ("commit.before#3=kill", KILLED, 3, 3),
        ("request.before#2=kill", KILLED, 3, 3),
        ("commit.after@8=exit:70", 70, 7, 9),
    ],
)
async def test_a_unit_is_there_whole_or_not_at_all(
    opens: Opens, path: Path, rules: str, exit_code: int, acknowledged: int, stored: int
) -> None:
    outcome = await asyncio.to_thread(_append, path, rules)

    assert outcome == (exit_code, acknowledged)
    assert await _stored(opens, path) == [str(sequence) for sequence in range(1, stored + 1)]


def test_failpoints_are_off_without_rules() -> None:
    failpoints.configure("")

    assert failpoints.ACTIVE is False
    failpoints.hit("commit.before", 1)


def test_a_rule_that_does_not_match_lets_pass() -> None:
    failpoints.configure("commit.before@7=kill;commit.after#3=kill")
    try:
        assert failpoints.ACTIVE is True
        failpoints.hit("commit.before", 6)
        failpoints.hit_range("commit.before", 8, 10)
        failpoints.hit("commit.after")
        failpoints.hit("other", 7)
    finally:
        failpoints.configure("")


@pytest.mark.parametrize("rule", ["commit.before", "x=explode", "x@y=kill", "=kill", "x@1#2=kill", "x=exit"])
def test_a_faulty_rule_is_an_error(rule: str) -> None:
    with pytest.raises(ValueError, match="is not name"):
        failpoints.configure(rule)
    assert failpoints.ACTIVE is False
