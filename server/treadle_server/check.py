"""`treadle check`: looks through a whole database file and says what is wrong with it."""

import sys
import time
from pathlib import Path

from treadle_server.services.file_check import FileCheck
from treadle_server.stores.sqlite.checking import open_inspection
from treadle_server.stores.sqlite.lock import FileUnusable
from treadle_server.wire.codec import ProtoCodec

EXIT_SOUND = 0
EXIT_DAMAGED = 1
EXIT_USAGE = 2


def run(path: Path) -> int:
    """Prints a line for each problem and one that sums up; returns the exit code."""
    begun = time.monotonic()
    try:
        inspection = open_inspection(path)
    except FileUnusable as unusable:
        print(f"treadle check: {unusable}", file=sys.stderr)
        return EXIT_USAGE if not path.is_file() else EXIT_DAMAGED
    try:
        check = FileCheck(inspection, ProtoCodec())
        refused = False
        for problem in check.problems():
            print(problem)
            refused |= problem.startswith("structure: ")
        counts, gone = inspection.counts(), inspection.gone_count
        served = " (a server has it open)" if inspection.served else ""
    finally:
        inspection.close()
    seconds = time.monotonic() - begun
    rows = sum(counts.values())
    besides = f" (and {gone} deleted or expired)" if gone else ""
    if refused:
        print("what is wrong with its structure keeps a server from starting on it: the way back is a backup")
    print(
        f"{path}{served}: {_problems(check.problem_count)}; {counts['threads']} threads{besides}, "
        f"{counts['events']} events, {rows} rows in {seconds:.1f} s"
    )
    return EXIT_DAMAGED if check.problem_count else EXIT_SOUND


def _problems(count: int) -> str:
    return "no problems" if not count else "1 problem" if count == 1 else f"{count} problems"
