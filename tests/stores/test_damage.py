"""Damage that is met while serving is an error in the server's log: by name, with advice, once."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.contract.units import creation
from tests.stores.kit import Opened, Opens, execute
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.thread_queries import ThreadQuery
from treadle_server.ports.log import ThreadKey
from treadle_server.stores.sqlite import damage
from treadle_server.stores.sqlite.store import SqliteStore

EVENT = "UPDATE events SET body = x'00' WHERE thread = 1 AND sequence = 2"
ROW = "UPDATE threads SET cost_micros = 7 WHERE thread = 1"


async def _filled(opened: Opened) -> ThreadKey:
    """Two threads of a tenant, the first of which is to be damaged; the second is whole."""
    tenant = await opened.store.tenants.get_or_create("acme", create_time=1)
    for number in (1, 2):
        key = ThreadKey(tenant.key, opened.store.log.allocate_thread())
        assert key.thread == number
        await opened.store.log.submit(creation(key, "one", "two", thread_id=f"t-{number}")).wait()
    return ThreadKey(tenant.key, 1)


Read = Callable[[SqliteStore, ThreadKey], Awaitable[object]]
_READS: dict[str, tuple[str, str, Read]] = {
    "its log": (EVENT, "event 2", lambda store, key: store.log.read(key, 0, 10)),
    "its row by name": (ROW, "its row", lambda store, key: store.threads.get(key.tenant, "t-1")),
    "its row": (ROW, "its row", lambda store, key: store.threads.get_by_key(key)),
    "a list": (ROW, "its row", lambda store, key: store.threads.list(ThreadQuery(key.tenant))),
    "what is unfinished": (ROW, "its row", lambda store, key: store.threads.unfinished(after=0, limit=9)),
}


@pytest.mark.parametrize("reader", list(_READS))
async def test_a_damaged_thread_is_told_by_its_name_and_once(opened: Opened, path: Path, reader: str) -> None:
    sql, what, read = _READS[reader]
    key = await _filled(opened)
    execute(path, sql)

    with capture_logs() as lines:
        for _ in range(3):
            await _read_on(read, opened.store, key)

    (line,) = lines
    assert (line["log_level"], line["event"]) == ("error", "thread_damaged")
    assert (line["tenant"], line["thread"], line["what"]) == ("acme", "threads/t-1", what)
    assert f"treadle check {path}" in line["advice"]


async def _read_on(read: Read, store: SqliteStore, key: ThreadKey) -> None:
    with suppress(Refused):  # one of a list keeps no other from being read
        await read(store, key)


async def test_sound_threads_are_not_told(opened: Opened) -> None:
    key = await _filled(opened)

    with capture_logs() as lines:
        for _, _, read in _READS.values():
            await read(opened.store, key)

    assert lines == []


async def test_a_damaged_spec_is_told_once(opened: Opened, path: Path) -> None:
    key = await _filled(opened)
    ((digest,),) = execute(path, "SELECT spec_digest FROM thread_details WHERE thread = 1")
    assert isinstance(digest, bytes)
    execute(path, "UPDATE specs SET body = x'00'")

    with capture_logs() as lines:
        for _ in range(2):
            with pytest.raises(Refused):
                await opened.store.threads.spec(key.tenant, digest)

    assert [(line["event"], line["log_level"], line["tenant"]) for line in lines] == [
        ("spec_damaged", "error", "acme")
    ]


async def test_a_page_that_cannot_be_read_is_told_once(opens: Opens, path: Path) -> None:
    first = await opens(path)
    key = await _filled(first)
    await first.store.close()
    ((root,),) = execute(path, "SELECT rootpage FROM sqlite_master WHERE name = 'tenants'")
    opened = await opens(path)
    assert isinstance(root, int)
    with path.open("r+b") as file:
        file.seek((root - 1) * 8192)
        file.write(b"\xff" * 64)

    with capture_logs() as lines:
        for _ in range(2):
            with pytest.raises(Refused) as refused:
                await opened.store.tenants.get_by_key(key.tenant)
            assert refused.value.reason is Reason.RECORD_CORRUPT

    assert [(line["event"], line["log_level"]) for line in lines] == [("page_damaged", "error")]


async def test_a_file_full_of_damage_has_a_bounded_number_of_lines(opened: Opened, path: Path) -> None:
    key = await _filled(opened)
    damages = damage.Damages(path, opened.store.readers)

    with capture_logs() as lines:
        for number in range(damage.TOLD_MAX + 10):
            await damages.spec(key.tenant, number.to_bytes(4, "big"))

    told = [line["event"] for line in lines]
    assert told == ["spec_damaged"] * damage.TOLD_MAX + ["more_damage_not_told"]
