"""Any bytes for any method: never a fault of the server's, never a hang. And what the fuzzer would notice."""

from collections import Counter
from pathlib import Path

import pytest

from tests.abuse import fuzz
from tests.abuse.fuzz import Outcome
from tests.abuse.hostile import METHODS, Known, Requests
from tests.abuse.observed import MIB
from tests.server_process import ServerProcess


@pytest.mark.parametrize(
    "requests",
    [10_000, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(7_200)])],
)
async def test_no_request_makes_the_server_fail(tmp_path: Path, requests: int) -> None:
    with ServerProcess(tmp_path / "treadle.db", environment=fuzz.ENVIRONMENT) as server:
        outcome = await fuzz.run(server.start(), requests=requests, seed=20)

    assert outcome.problems() == [], outcome.examples[:3]
    assert outcome.requests >= requests
    answered = {key.split()[0] for key in outcome.statuses}
    assert answered == {method.name for method in METHODS}
    assert outcome.by_status()["OK"] > requests / 20
    print(f"{requests} in {outcome.seconds:.0f} s, grown by {outcome.growth() / MIB:.1f} MiB")


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        ({"statuses": Counter({"GetAgent INTERNAL": 1})}, "1 x GetAgent INTERNAL"),
        ({"statuses": Counter({"GetAgent HANG": 2})}, "2 x GetAgent HANG"),
        ({"faults": ["Traceback"]}, "1 faults in the server's log"),
        ({"alive": False}, "the server has ended"),
        ({"resident": [0, 0, 0, 0, 0, 65 * MIB]}, "has grown by 65 MiB"),
    ],
)
def test_a_fault_is_a_problem(fault: dict[str, object], noticed: str) -> None:
    outcome = Outcome(statuses=Counter({"GetAgent OK": 9}))
    assert outcome.problems() == []
    for name, value in fault.items():
        setattr(outcome, name, value)

    assert any(noticed in problem for problem in outcome.problems())


def test_a_run_that_reached_nothing_is_a_problem() -> None:
    assert Outcome(statuses=Counter({"GetAgent NOT_FOUND": 9})).problems() != []


def test_the_same_seed_makes_the_same_requests_and_another_others() -> None:
    def made(seed: int) -> list[bytes]:
        requests = Requests(seed, Known({"treadle.dev/Agent": ["agents/plain"]}))
        return [requests.next().data for _ in range(300)]

    assert made(1) == made(1)
    assert made(1) != made(2)
