"""A unit that met a damaged page is tried once more, alone: whose fault was it?"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tests.contract.units import bodies, create, records
from tests.stores.kit import Opened, Opens, StatementWork, execute
from tests.waiting import eventually
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import StoreFailed, Unit
from treadle_server.stores.sqlite.inbox import Urgency


@dataclass(slots=True)
class FailsAtFirst:
    """Writes once the errors that it is to meet before are used up."""

    codes: list[int]
    refuses: ClassVar[bool] = False
    writes: ClassVar[bool] = True

    def apply(self, cursor: sqlite3.Cursor) -> None:
        if self.codes:
            failure = sqlite3.DatabaseError("at first")
            failure.sqlite_errorcode = self.codes.pop(0)
            raise failure
        cursor.execute("UPDATE threads SET epoch = 77")


async def test_a_page_that_is_whole_when_looked_at_again_was_not_the_units_fault(
    opens: Opens, path: Path
) -> None:
    """The disk failed to read it: the unit is written, and nothing after it."""
    opened = await opens(path)
    store, log = opened.store, opened.store.log
    key = await create(log, "created")

    await store.committer.submit(StatementWork([FailsAtFirst([sqlite3.SQLITE_CORRUPT])])).wait()
    await eventually(lambda: bool(opened.fatal))
    with pytest.raises(Refused) as refused:
        await log.submit(Unit(key, 1, records("later"))).wait()

    assert execute(path, "SELECT epoch FROM threads") == [(77,)]
    assert [str(reason) for reason in opened.fatal] == ["the store failed: DatabaseError('at first')"]
    assert refused.value.reason is Reason.STORE_UNAVAILABLE


async def test_a_disk_that_fills_before_the_second_look_lets_the_unit_wait(opened: Opened) -> None:
    store = opened.store
    await create(store.log, "created")
    codes = [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL]

    work = StatementWork([FailsAtFirst(codes)], urgency=Urgency.PATIENT)
    await store.committer.submit(work).wait()

    assert await store.readers.rows("SELECT epoch FROM threads") == [(77,)]
    assert (codes, opened.fatal) == ([], [])


@pytest.mark.parametrize(
    ("codes", "kind"),
    [([sqlite3.SQLITE_CORRUPT] * 2, Refused), ([sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR], StoreFailed)],
    ids=["damage again", "a fault of its own"],
)
async def test_a_unit_that_fails_at_the_second_look_is_told_of_that(
    opened: Opened, codes: list[int], kind: type[Exception]
) -> None:
    store = opened.store
    key = await create(store.log, "created")

    with pytest.raises(kind):
        await store.committer.submit(StatementWork([FailsAtFirst([*codes])])).wait()

    await store.log.submit(Unit(key, 1, records("more"))).wait()
    assert await bodies(store.log, key) == ["created", "more"]
    assert opened.fatal == []
