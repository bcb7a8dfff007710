"""The planted bugs still fit the source of the server; `python -m tests.faults.planted` runs them."""

import pytest

from tests.faults.bugs import BUGS, Bug
from tests.faults.history import INVARIANTS
from tests.faults.planted import ROOT, WORKS


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_fits_the_source_and_names_tests_that_exist(bug: Bug) -> None:
    for edit in bug.edits:
        text = (ROOT / "server" / "treadle_server" / edit.file).read_text()
        assert text.count(edit.old) == 1, edit.file

    for test in (*(f"tests/faults/{name}" for name in bug.tests), WORKS):
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / file).read_text()


def test_every_invariant_is_broken_by_a_planted_bug() -> None:
    broken = {name for bug in BUGS for name in bug.breaks}

    assert broken == {invariant.__name__ for invariant in INVARIANTS}
