"""Errors of SQLite, one by one: what each costs a unit, the others and the process."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.units import bodies, create, records
from tests.stores.disk import Raise, refusal
from tests.stores.kit import Gate, Opened, Opens, StatementWork, execute
from tests.waiting import eventually
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import StoreFailed, Unit
from treadle_server.stores.sqlite.faults import FAULTS, Fault, fault_of
from treadle_server.stores.sqlite.statements import Answer, Write


def error(code: int) -> sqlite3.OperationalError:
    """As Python's module raises it for an extended code of this kind."""
    made = sqlite3.OperationalError(f"error {code}")
    made.sqlite_errorcode = code | (1 << 8)
    return made


def of_kind(fault: Fault) -> list[int]:
    return [code for code, kind in FAULTS.items() if kind is fault]


def test_the_table_names_every_primary_code_of_an_error() -> None:
    assert sorted(FAULTS) == list(range(sqlite3.SQLITE_ERROR, sqlite3.SQLITE_NOTADB + 1))


def test_a_code_that_is_not_known_is_the_end_of_the_store() -> None:
    assert fault_of(error(99)) is Fault.STORE


@pytest.mark.parametrize("fault", list(Fault))
def test_nobody_knows_whether_a_commit_that_failed_is_there_unless_it_found_no_room_or_lock(
    fault: Fault,
) -> None:
    known = {Fault.FULL, Fault.BUSY}

    for code in of_kind(fault):
        assert fault_of(error(code), committing=True) is (fault if fault in known else Fault.STORE)


def test_an_error_that_is_not_of_sqlite_is_the_units_own() -> None:
    assert fault_of(OverflowError("too large")) is Fault.UNIT
    assert fault_of(OverflowError("too large"), committing=True) is Fault.STORE


@pytest.mark.parametrize(
    "make",
    [*((lambda code=code: error(code)) for code in of_kind(Fault.STORE)), MemoryError],
    ids=[*map(str, of_kind(Fault.STORE)), "no memory"],
)
async def test_an_error_that_is_the_end_of_the_store_stops_the_process(
    opens: Opens, path: Path, make: Callable[[], Exception]
) -> None:
    opened = await opens(path)
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    gate = Gate()
    await gate.hold(store)
    beside = log.submit(Unit(key, 1, records("beside")))
    failing = store.committer.submit(StatementWork([Raise(make)]))

    gate.opening.set()
    for ticket in (beside, failing):
        with pytest.raises(StoreFailed):
            await ticket.wait()
    with pytest.raises(Refused) as refused:
        await log.submit(Unit(key, 1, records("later"))).wait()

    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert [type(reason) for reason in opened.fatal] == [StoreFailed]
    assert await bodies(log, key) == ["created"]


@pytest.mark.parametrize("code", of_kind(Fault.UNIT))
async def test_an_error_that_is_a_units_own_costs_the_others_nothing(opened: Opened, code: int) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    gate = Gate()
    await gate.hold(store)
    beside = log.submit(Unit(key, 1, records("beside")))
    failing = store.committer.submit(StatementWork([Raise(lambda: error(code))]))

    gate.opening.set()
    await beside.wait()
    with pytest.raises(StoreFailed, match=f"error {code}"):
        await failing.wait()

    assert opened.fatal == []
    assert await bodies(log, key) == ["created", "beside"]


@pytest.mark.parametrize("code", of_kind(Fault.DAMAGE))
async def test_damage_is_told_to_the_unit_that_met_it(opened: Opened, code: int) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    gate = Gate()
    await gate.hold(store)
    beside = log.submit(Unit(key, 1, records("beside")))
    failing = store.committer.submit(StatementWork([Raise(lambda: error(code))]))

    gate.opening.set()
    await beside.wait()
    with pytest.raises(Refused) as refused:
        await failing.wait()

    assert refused.value.reason is Reason.RECORD_CORRUPT
    assert opened.fatal == []


@pytest.mark.parametrize("code", [*of_kind(Fault.FULL), *of_kind(Fault.BUSY)])
async def test_an_error_that_heals_lets_what_happened_wait_and_refuses_callers(
    opened: Opened, code: int
) -> None:
    store, log = opened.store, opened.store.log
    key = await create(log, "created")
    left = [2]

    def twice() -> Exception:
        left[0] -= 1
        return error(code) if left[0] >= 0 else LookupError("healed")

    gate = Gate()
    await gate.hold(store)
    waits = log.submit(Unit(key, 1, records("recorded")))
    asked = store.committer.submit(StatementWork([Raise(twice)]))

    gate.opening.set()
    with pytest.raises(Refused) as refused:
        await asked.wait()
    await waits.wait()

    reason = Reason.DISK_FULL if FAULTS[code] is Fault.FULL else Reason.STORE_UNAVAILABLE
    assert refused.value.reason is reason
    assert await bodies(log, key) == ["created", "recorded"]
    await eventually(lambda: refusal(log) is None)
    assert opened.fatal == []


async def test_a_file_that_may_not_be_written_any_more_stops_the_process(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    key = await create(opened.store.log, "created")
    await opened.store.committer.submit(StatementWork([Answer("PRAGMA query_only = ON")])).wait()

    with pytest.raises(StoreFailed, match="readonly"):
        await opened.store.log.submit(Unit(key, 1, records("more"))).wait()

    assert [type(reason) for reason in opened.fatal] == [StoreFailed]


async def test_a_constraint_costs_only_the_unit_that_broke_it(opened: Opened, path: Path) -> None:
    key = await create(opened.store.log, "created")
    twice = StatementWork([Write("INSERT INTO threads SELECT * FROM threads", ())])

    with pytest.raises(StoreFailed, match="UNIQUE"):
        await opened.store.committer.submit(twice).wait()

    await opened.store.log.submit(Unit(key, 1, records("more"))).wait()
    assert execute(path, "SELECT count(*) FROM threads") == [(1,)]
    assert opened.fatal == []


@pytest.mark.parametrize("code", [*of_kind(Fault.STORE), *of_kind(Fault.BUSY), *of_kind(Fault.DAMAGE)])
async def test_a_reader_tells_errors_by_the_same_table(opens: Opens, path: Path, code: int) -> None:
    opened = await opens(path)

    failure = opened.store.readers.judge(error(code))

    transient = FAULTS[code] is Fault.BUSY or code == sqlite3.SQLITE_PROTOCOL
    if FAULTS[code] is Fault.STORE and not transient:
        assert isinstance(failure, StoreFailed)
        assert opened.fatal == [failure]
    else:
        assert isinstance(failure, Refused)
        assert failure.reason is (Reason.STORE_UNAVAILABLE if transient else Reason.RECORD_CORRUPT)
        assert opened.fatal == []
