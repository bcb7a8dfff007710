"""CreateBackup: one at a time, for admins, repeated safely, and not ended by a caller who leaves."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, bearer, make_key, running
from tests.stores.kit import HandClock, execute
from tests.waiting import eventually
from treadle.v1 import admin_service_pb2
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.backup import Copy
from treadle_server.ports.log import Replayed, RequestRow
from treadle_server.rpc.resources import BackupMessages
from treadle_server.services.backups import Backups
from treadle_server.services.requests import Asked, Replays

_admin: Any = admin_service_pb2
ASKED = Asked("me", "CreateBackup", "r1", b"digest")
NAMELESS = Asked("me", "CreateBackup")


async def backup(rig: Rig, backup_id: str = "", **fields: Any) -> Any:
    return await rig.admin.CreateBackup(_admin.CreateBackupRequest(backup_id=backup_id, **fields))


async def test_a_backup_tells_where_it_is_and_what(rig: Rig, tmp_path: Path) -> None:
    made = await backup(rig, "nightly-1")

    path = tmp_path / "treadle.db-backups" / "nightly-1.db"
    assert (made.name, made.path) == ("backups/nightly-1", str(path))
    assert made.size_bytes == path.stat().st_size
    assert len(made.sha256) == 64
    assert made.duration.ToMicroseconds() > 0
    assert made.create_time.ToMicroseconds() > 0


async def test_a_backup_without_an_id_is_called_by_its_time(rig: Rig) -> None:
    made = [await backup(rig) for _ in range(2)]

    names = [each.name for each in made]
    assert names[0] != names[1]
    for each in made:
        assert each.name.startswith(f"backups/{each.create_time.ToDatetime():%Y%m%d-%H%M%S}-")


async def test_the_folder_is_a_setting(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db", backup_dir=tmp_path / "elsewhere") as rig:
        made = await backup(rig, "one")

    assert made.path == str(tmp_path / "elsewhere" / "one.db")
    assert execute(Path(made.path), "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("backup_id", ["../up", "a/b", "Upper", "-a", "a" * 64, ".hidden", "a.db"])
async def test_an_id_that_is_none_is_refused(rig: Rig, tmp_path: Path, backup_id: str) -> None:
    failure = await failure_of(backup(rig, backup_id))

    assert failure.reason == "FIELD_INVALID"
    assert not (tmp_path / "treadle.db-backups").exists()


async def test_a_name_that_is_taken_is_refused(rig: Rig) -> None:
    await backup(rig, "one")

    failure = await failure_of(backup(rig, "one"))

    assert (failure.reason, failure.code.name) == ("RESOURCE_EXISTS", "ALREADY_EXISTS")
    assert failure.details["ResourceInfo"].resource_name == "backups/one"


async def test_the_same_request_is_answered_the_same_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        first = await backup(rig, request_id="r1")
        again = await backup(rig, request_id="r1")
    async with running(tmp_path / "t.db") as rig:
        later = await backup(rig, request_id="r1")
        other = await failure_of(backup(rig, "one", request_id="r1"))

    assert first == again == later
    assert other.reason == "REQUEST_ID_REUSED"
    assert len(list((tmp_path / "t.db-backups").iterdir())) == 1


async def test_a_hundred_of_the_same_request_at_once_make_one_backup(rig: Rig, tmp_path: Path) -> None:
    made = await asyncio.gather(*(backup(rig, request_id="r1") for _ in range(100)))

    assert len({each.SerializeToString() for each in made}) == 1
    assert len(list((tmp_path / "treadle.db-backups").iterdir())) == 1


async def test_only_admins_make_backups(rig: Rig, tmp_path: Path) -> None:
    key = await make_key(rig, "red")

    call = rig.admin.CreateBackup(_admin.CreateBackupRequest(), metadata=bearer(key))

    assert (await failure_of(call)).reason == "SCOPE_MISSING"
    assert not (tmp_path / "treadle.db-backups").exists()


class HeldCopies:
    """Implements `ports.backup.Copies` without a disk: a copy is made when the test lets it."""

    def __init__(self) -> None:
        self.opening = asyncio.Event()
        self.stopped = False
        self.made: list[str] = []
        self.published: list[str] = []

    async def make(self, copy_id: str) -> Copy:
        self.made.append(copy_id)
        await self.opening.wait()
        if self.stopped:
            raise Refused(Reason.DRAINING, "stopped")
        return Copy(Path(f"/copies/{copy_id}.db"), 1, "00")

    async def publish(self, copy: Copy, tenant: int, request: RequestRow | None) -> None:
        self.published.append(copy.path.stem)

    def stop(self) -> None:
        self.stopped = True
        self.opening.set()


class Remembered:
    """Implements `ports.catalogue.requests.Requests`."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str], RequestRow] = {}

    async def find(self, tenant: int, request_id: str, *, now: int) -> RequestRow | None:
        return self.rows.get((tenant, request_id))


@pytest.fixture
def copies() -> HeldCopies:
    return HeldCopies()


@pytest.fixture
def remembered() -> Remembered:
    return Remembered()


@pytest.fixture
def backups(copies: HeldCopies, remembered: Remembered) -> Backups:
    clock = HandClock()
    return Backups(copies, BackupMessages(), Replays(remembered, clock), clock)


async def test_another_backup_is_refused_while_one_is_made(backups: Backups, copies: HeldCopies) -> None:
    making = asyncio.ensure_future(backups.create(1, ASKED, backup_id="one"))
    await eventually(lambda: bool(copies.made))

    for tenant, asked in ((1, NAMELESS), (1, Asked("me", "CreateBackup", "r2", b"digest")), (2, ASKED)):
        with pytest.raises(Refused) as refused:
            await backups.create(tenant, asked, backup_id="two")
        assert refused.value.reason is Reason.CONCURRENCY_LIMITED
    copies.opening.set()

    assert (await making).name == "backups/one"
    assert (await backups.create(1, NAMELESS, backup_id="two")).name == "backups/two"


async def test_a_caller_who_leaves_does_not_end_it_and_finds_it_again(
    backups: Backups, copies: HeldCopies
) -> None:
    gone = asyncio.ensure_future(backups.create(1, ASKED, backup_id="one"))
    await eventually(lambda: bool(copies.made))
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)

    again = asyncio.ensure_future(backups.create(1, ASKED, backup_id="one"))
    await asyncio.sleep(0)  # it begins
    copies.opening.set()

    assert (await again).name == "backups/one"
    assert copies.made == copies.published == ["one"]


async def test_a_stop_ends_the_one_that_is_made(backups: Backups, copies: HeldCopies) -> None:
    making = asyncio.ensure_future(backups.create(1, ASKED, backup_id="one"))
    await eventually(lambda: bool(copies.made))

    await backups.stop()

    with pytest.raises(Refused, match="stopped"):
        await making
    assert copies.published == []


async def test_a_request_that_was_answered_is_not_made_again(
    backups: Backups, copies: HeldCopies, remembered: Remembered
) -> None:
    row = ASKED.row(resource="backups/one", response=b"answer", now=HandClock().now())
    assert row is not None
    remembered.rows[1, "r1"] = row

    with pytest.raises(Replayed) as replayed:
        await backups.create(1, ASKED, backup_id="one")

    assert replayed.value.response == b"answer"
    assert copies.made == []
