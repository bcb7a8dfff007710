"""`python scripts/mutants.py [ROOM ...]`: changes code a little, thousands of times, to see tests fail.

Runs mutmut on a copy under build/mutants, for each room of ROOMS with the tests that are there for it, and
prints how many mutants the tests killed and the difference that each survivor makes. A survivor is a change
that no test notices: a gap in the tests, or the same behaviour in other words. Needs the group `mutants`.
"""

import argparse
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "mutants"
MUTMUT = Path(sys.executable).with_name("mutmut")
_STORE = "src/treadle_server/stores/sqlite"
_WRITING = (
    "committer",
    "inbox",
    "transactions",
    "delivery",
    "outages",
    "retries",
    "append",
    "statements",
    "checkpoints",
    "reserve",
    "unwritten",
)
_TEST_SECONDS = 20
"""A mutant that makes a test wait for ever is caught after so long, and not only at mutmut's own limit."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is mutated, and the tests that should notice."""

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]


ROOMS = (
    Room("core", ("src/treadle_server/core/*.py",), ("tests/core",)),
    Room(
        "committer",
        tuple(f"{_STORE}/{name}.py" for name in _WRITING),
        ("tests/stores", "tests/contract"),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=", ".join(room.name for room in ROOMS))
    parser.add_argument("--children", type=int, default=2, help="mutants tried at the same time")
    given = parser.parse_args()
    chosen = [room for room in ROOMS if not given.rooms or room.name in given.rooms]
    if not chosen:
        parser.error(f"there is no room {given.rooms}")
    for room in chosen:
        house = _copy(room)
        subprocess.run([MUTMUT, "run", "--max-children", str(given.children)], cwd=house, check=True)
        _report(room, house)
    return 0


def _copy(room: Room) -> Path:
    """mutmut wants packages in `src`, and says with its names which module is meant."""
    house = BUILD / room.name
    shutil.rmtree(house, ignore_errors=True)
    for source, target in (
        ("server/treadle_server", "src/treadle_server"),
        ("clients/python/treadle", "src/treadle"),
        ("tests", "tests"),
        ("protos", "protos"),
    ):
        shutil.copytree(ROOT / source, house / target, ignore=shutil.ignore_patterns("__pycache__"))
    settings = f"""
[tool.mutmut]
source_paths = ["src"]
only_mutate = {list(room.files)!r}
pytest_add_cli_args_test_selection = {list(room.tests)!r}
pytest_add_cli_args = ["-p", "no:cacheprovider", "--timeout", "{_TEST_SECONDS}"]
also_copy = ["protos"]
timeout_multiplier = 10.0
"""
    (house / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8") + settings, "utf-8")
    return house


def _report(room: Room, house: Path) -> None:
    said = subprocess.run(
        [MUTMUT, "results", "--all", "true"], cwd=house, check=True, capture_output=True, text=True
    ).stdout
    outcomes = dict(line.strip().split(": ", 1) for line in said.splitlines() if ": " in line)
    counts = Counter(outcomes.values())
    tried = sum(counts.values())
    caught = counts["killed"] + counts["timeout"]
    for name in sorted(name for name, outcome in outcomes.items() if outcome not in ("killed", "timeout")):
        print(f"\n{outcomes[name]}: {name}", flush=True)
        subprocess.run([MUTMUT, "show", name], cwd=house, check=False)
    print(f"\n{room.name}: {caught} of {tried} mutants caught, {caught / max(1, tried):.1%}; {dict(counts)}")


if __name__ == "__main__":
    raise SystemExit(main())
