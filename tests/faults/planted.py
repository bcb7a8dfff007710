"""`python -m tests.faults.planted [NAME ...]`: shows that the fault tests find the bugs they are there for.

Plants one bug at a time in a copy of the server, runs the tests that should find it against the copy, and
prints which did. Exits with 1 when a bug is not found, or when the copy no longer works at all. The tests
run once without a bug first, where all must pass.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = "tests/faults"
WORKS = f"{TESTS}/test_one_server.py::test_a_second_server_on_the_same_file_is_refused_and_the_first_goes_on"
"""Finds none of the bugs: a copy that fails this one is broken otherwise."""
TEST_SECONDS = 60
_FAILED = re.compile(r"^(?:FAILED|ERROR) \S*?::(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Edit:
    """Text that occurs once in a file of the server, and what takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Bug:
    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    """Files or tests below tests/faults, one of which should fail."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the tests said of one copy of the server."""

    works: bool
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0


_COMMITTER = "stores/sqlite/committer.py"
_BEFORE_COMMIT = """            if failpoints.ACTIVE:
                _pass_requests(batch)
"""
_TELL = """        applied = [ticket.work for ticket in batch if ticket.error is None]
        for listener"""
_AFTER_COMMIT = """        if failpoints.ACTIVE:
            _pass_records("commit.after", batch)
"""
_ORDER = "test_commit_order.py"
_EVENTS = (
    "test_kill_at_every_event.py::test_a_run_killed_at_any_stored_event_has_the_log_of_a_run_that_was_not"
)

BUGS: tuple[Bug, ...] = (
    Bug(
        "publish before commit",
        (
            Edit(
                _COMMITTER,
                _BEFORE_COMMIT,
                "            self._post(self._tell, list(batch))\n" + _BEFORE_COMMIT,
            ),
            Edit(
                _COMMITTER,
                "    def _deliver(self, batch: Sequence[WorkTicket]) -> None:\n",
                "    def _tell(self, batch: Sequence[WorkTicket]) -> None:\n",
            ),
            Edit(
                _COMMITTER,
                "        for ticket in batch:\n            ticket.resolve()\n",
                "\n    def _deliver(self, batch: Sequence[WorkTicket]) -> None:\n"
                "        for ticket in batch:\n            ticket.resolve()\n",
            ),
        ),
        (_ORDER,),
    ),
    Bug(
        "acknowledge before commit",
        (
            Edit(
                _COMMITTER,
                _BEFORE_COMMIT,
                "            for ticket in batch:\n                self._post(ticket.resolve)\n"
                + _BEFORE_COMMIT,
            ),
        ),
        (_ORDER,),
    ),
    Bug(
        "request id in a second transaction",
        (
            Edit(
                "stores/sqlite/append.py",
                "            steps.append(remember(unit.key.tenant, unit.request))\n",
                "            pass\n",
            ),
            Edit(
                _COMMITTER, "import REFUSALS, needs_savepoint", "import REFUSALS, needs_savepoint, remember"
            ),
            Edit(
                _COMMITTER,
                _AFTER_COMMIT,
                _AFTER_COMMIT
                + """        for ticket in batch:
            unit = getattr(ticket.work, "unit", None)
            if ticket.error is None and unit is not None and unit.request is not None:
                remember(unit.key.tenant, unit.request).apply(self._cursor)
""",
            ),
        ),
        ("test_request_ids.py",),
    ),
    Bug(
        "resume one too early",
        (Edit("feed/feed.py", "Subscriber(watch.after,", "Subscriber(max(0, watch.after - 1),"),),
        (_EVENTS, "test_request_ids.py"),
    ),
    Bug(
        "resume one too late",
        (Edit("feed/feed.py", "Subscriber(watch.after,", "Subscriber(watch.after + bool(watch.after),"),),
        (_EVENTS, "test_request_ids.py"),
    ),
    Bug(
        "no durable intent",
        (
            Edit(
                "engine/driver.py",
                "        if command.effect is not Effect.READ_ONLY:\n            await self.head.durable()\n",
                "",
            ),
        ),
        (_ORDER,),
    ),
    Bug(
        "a call at most once is repeated after a crash",
        (
            Edit(
                "core/replies.py",
                "    return call.in_flight and call.effect is Effect.AT_MOST_ONCE\n",
                "    return False\n",
            ),
        ),
        ("test_kill_within_a_step.py",),
    ),
    Bug(
        "a new idempotency key for every attempt",
        (
            Edit(
                "engine/steps.py",
                "idempotency_key(head.key.tenant, head.key.thread, command.call_id)",
                'idempotency_key(head.key.tenant, head.key.thread, f"{command.call_id}/{command.attempt}")',
            ),
        ),
        ("test_kill_within_a_step.py",),
    ),
    Bug(
        "begun threads are not taken up",
        (
            Edit(
                "engine/recovery.py",
                "        engine.enqueue(row.key, subject_of(row), agent_max, row.create_time)\n\n\n",
                "        pass\n\n\n",
            ),
        ),
        (
            "test_kill_within_a_step.py::test_a_model_call_is_made_again_once_and_the_lost_attempt_is_in_the_cost",
        ),
    ),
    Bug(
        "a shutdown waits for no call",
        (
            Edit(
                "engine/driver.py",
                "            if _repeatable(running.command):\n                del",
                "            if True:\n                del",
            ),
        ),
        ("test_shutdown.py",),
    ),
    Bug(
        "a shutdown says that streams are complete",
        (
            Edit(
                "feed/feed.py",
                "            raise Refused(Reason.DRAINING, text, retry_after_micros=1_000_000)\n",
                "            raise StopAsyncIteration(text)\n",
            ),
        ),
        ("test_shutdown.py",),
    ),
    Bug(
        "no group commit",
        (Edit(_COMMITTER, "while byte_count < BYTES_MAX and", "while byte_count < 0 and"),),
        ("test_two_hundred_threads.py",),
    ),
)


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
        missed = 0
        for number, bug in enumerate(bugs):
            report = try_out(Path(folder) / str(number), bug)
            _say(bug.name, report)
            missed += not (report.works and report.failed)
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs were found")
    return 1 if missed else 0


def _say(name: str, report: Report) -> None:
    print(f"{name}  ({report.seconds:.0f} s)")
    if not report.works:
        print("    THE COPY DOES NOT WORK")
    for test in report.failed:
        print(f"    {test}")
    if not report.failed:
        print("    no test failed")
    sys.stdout.flush()


def try_out(folder: Path, bug: Bug) -> Report:
    """Runs the bug's tests against a copy of the server that has it."""
    copy = folder / "server"
    shutil.copytree(ROOT / "server", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in bug.edits:
        _apply(copy / "treadle_server" / edit.file, edit, bug)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])}
    _check_imported(copy, environment)
    works = not _failed([WORKS], environment)
    began = time.monotonic()
    failed = _failed([f"{TESTS}/{test}" for test in bug.tests], environment) if works else []
    return Report(works, failed, time.monotonic() - began)


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


def _failed(tests: Sequence[str], environment: dict[str, str]) -> list[str]:
    """Names of tests that did not pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "-m", "not soak"]
    options = ["--timeout", str(TEST_SECONDS)]
    ran = subprocess.run(
        [*command, *options, *tests], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    failed = _FAILED.findall(ran.stdout)
    if ran.returncode not in (0, 1) or bool(ran.returncode) != bool(failed):
        raise SystemExit(f"pytest ended with {ran.returncode}:\n{ran.stdout[-4000:]}{ran.stderr[-4000:]}")
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
