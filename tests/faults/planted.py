"""`python -m tests.faults.planted [NAME ...]`: shows that the fault tests find the bugs they are there for.

Plants one bug at a time in a copy of the server, runs the tests that should find it against the copy, and
prints which did and which invariants named it. Exits with 1 when a bug is not found or does not break the
invariants that it should, or when the copy no longer works at all. The tests run once without a bug first,
where all must pass. At the end stands a table in Markdown.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.bugs import BUGS, Bug, Edit
from tests.faults.history import INVARIANTS

ROOT = Path(__file__).parents[2]
TESTS = "tests/faults"
WORKS = f"{TESTS}/test_one_server.py::test_a_second_server_on_the_same_file_is_refused_and_the_first_goes_on"
"""Finds none of the bugs: a copy that fails this one is broken otherwise."""
TEST_SECONDS = 90
_BROKEN = re.compile(rf"\b({'|'.join(each.__name__ for each in INVARIANTS)}): ")
_FAILED = re.compile(r"^(?:FAILED|ERROR) \S*?::(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Report:
    """What the tests said of one copy of the server."""

    works: bool
    failed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Invariants that the failures name."""
    seconds: float = 0.0

    def finds(self, bug: Bug) -> bool:
        return self.works and bool(self.failed) and set(bug.breaks) <= set(self.broken)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", help="bugs to plant; all when none is named")
    names = parser.parse_args().names
    bugs = [bug for bug in BUGS if not names or bug.name in names]
    with tempfile.TemporaryDirectory(prefix="treadle-planted-") as folder:
        tests = sorted({test for bug in bugs for test in bug.tests})
        clean = try_out(Path(folder) / "clean", Bug("no bug", (), tuple(tests)))
        _say("no bug", clean)
        if not clean.works or clean.failed:
            print("the tests must pass before they can find anything", file=sys.stderr)
            return 1
        reports = {}
        for number, bug in enumerate(bugs):
            reports[bug] = try_out(Path(folder) / str(number), bug)
            _say(bug.name, reports[bug])
    missed = [bug.name for bug, report in reports.items() if not report.finds(bug)]
    print(f"\n{_table(reports)}\n\n{len(bugs) - len(missed)} of {len(bugs)} planted bugs were found")
    if missed:
        print(f"not found, or not by the invariants that should: {', '.join(missed)}")
    return 1 if missed else 0


def _table(reports: Mapping[Bug, Report]) -> str:
    rows = ["| Planted bug | Tests that failed | Invariants that named it |", "|---|---|---|"]
    for bug, report in reports.items():
        tests = sorted({name.partition("[")[0] for name in report.failed})
        rows.append(f"| {bug.name} | {_code(tests)} | {_code(report.broken)} |")
    return "\n".join(rows)


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _say(name: str, report: Report) -> None:
    print(f"{name}  ({report.seconds:.0f} s)")
    if not report.works:
        print("    THE COPY DOES NOT WORK")
    for test in report.failed:
        print(f"    {test}")
    if not report.failed:
        print("    no test failed")
    if report.broken:
        print(f"    named by {', '.join(report.broken)}")
    sys.stdout.flush()


def try_out(folder: Path, bug: Bug) -> Report:
    """Runs the bug's tests against a copy of the server that has it."""
    copy = folder / "server"
    shutil.copytree(ROOT / "server", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in bug.edits:
        _apply(copy / "treadle_server" / edit.file, edit, bug)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])}
    _check_imported(copy, environment)
    works = not _failed([WORKS], environment)[0]
    began = time.monotonic()
    failed, broken = _failed([f"{TESTS}/{test}" for test in bug.tests], environment) if works else ([], [])
    return Report(works, failed, broken, time.monotonic() - began)


def _apply(path: Path, edit: Edit, bug: Bug) -> None:
    text = path.read_text()
    count = text.count(edit.old)
    if count != 1:
        raise SystemExit(f"{bug.name}: {edit.file} has the text to replace {count} times: {edit.old!r}")
    path.write_text(text.replace(edit.old, edit.new))


def _check_imported(copy: Path, environment: dict[str, str]) -> None:
    """The server that the tests start must be the copy, and not the one that is installed."""
    command = [sys.executable, "-c", "import treadle_server.app as app; print(app.__file__)"]
    found = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(copy), found.stdout


def _failed(tests: Sequence[str], environment: dict[str, str]) -> tuple[list[str], list[str]]:
    """Names of tests that did not pass, and of the invariants that they found broken."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-m", "not soak"]
    options = ["--timeout", str(TEST_SECONDS)]
    ran = subprocess.run(
        [*command, *options, *tests], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    failed = _FAILED.findall(ran.stdout)
    if ran.returncode not in (0, 1) or bool(ran.returncode) != bool(failed):
        raise SystemExit(f"pytest ended with {ran.returncode}:\n{ran.stdout[-4000:]}{ran.stderr[-4000:]}")
    return failed, sorted(set(_BROKEN.findall(ran.stdout)))


if __name__ == "__main__":
    raise SystemExit(main())
