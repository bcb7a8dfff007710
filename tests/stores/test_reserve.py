"""The file that keeps room for when there is none."""

import resource
from pathlib import Path

import pytest

from tests.stores.disk import Space
from tests.stores.kit import Opens
from treadle_server.stores.sqlite.reserve import Reserve, free_bytes_at, give_up_left

MIB = 1024 * 1024


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "t.db"


def on_disk(reserve: Reserve) -> int:
    return reserve.path.stat().st_blocks * 512


def test_a_reserve_is_blocks_on_the_disk_and_not_a_hole(database: Path) -> None:
    reserve = Reserve(database, 3 * MIB)

    assert reserve.take() is True

    assert reserve.path.name == "t.db-reserve"
    assert reserve.path.stat().st_size == 3 * MIB
    assert on_disk(reserve) >= 3 * MIB
    assert reserve.path.stat().st_mode & 0o777 == 0o600


def test_a_reserve_is_not_made_where_as_much_again_would_not_stay_free(database: Path) -> None:
    space = Space(free=6 * MIB - 1)
    reserve = Reserve(database, 3 * MIB, free_bytes=space)

    assert reserve.take() is False
    assert not reserve.path.exists()
    space.free += 1
    assert reserve.take() is True


def test_a_reserve_that_a_killed_server_left_is_taken_over(database: Path) -> None:
    space = Space(free=6 * MIB)
    Reserve(database, 3 * MIB, free_bytes=space).take()
    space.free = 3 * MIB  # as the disk is with the file on it

    after = Reserve(database, 3 * MIB, free_bytes=space)

    assert after.take() is True
    assert on_disk(after) >= 3 * MIB


def test_a_reserve_that_was_left_whole_is_held_though_nothing_else_is_free(database: Path) -> None:
    Reserve(database, 3 * MIB).take()
    space = Space(free=0)

    after = Reserve(database, 3 * MIB, free_bytes=space)

    assert after.take() is True
    assert after.give_up() is True
    assert (after.owed, after.has_room) == (True, False)


def test_a_reserve_that_a_start_had_to_give_up_is_owed_until_it_is_made_again(database: Path) -> None:
    Reserve(database, 3 * MIB).take()
    space = Space(free=6 * MIB - 1)

    given_up = (give_up_left(database), give_up_left(database))
    reserve = Reserve(database, 3 * MIB, owed=True, free_bytes=space)

    assert given_up == (True, False)
    assert (reserve.take(), reserve.owed, reserve.has_room) == (False, True, False)
    space.free += 1
    assert (reserve.take(), reserve.owed, reserve.has_room) == (True, False, True)
    assert Reserve(database, 0, owed=True).owed is False


@pytest.mark.parametrize("left", [1 * MIB, 5 * MIB], ids=["smaller", "larger"])
def test_a_reserve_of_another_size_is_made_the_right_one(database: Path, left: int) -> None:
    Reserve(database, left).take()

    reserve = Reserve(database, 3 * MIB)

    assert reserve.take() is True
    assert reserve.path.stat().st_size == 3 * MIB


def test_what_was_given_up_is_owed_until_twice_as_much_is_free(database: Path) -> None:
    space = Space(free=6 * MIB)
    reserve = Reserve(database, 3 * MIB, free_bytes=space)
    reserve.take()

    space.free = 0
    assert reserve.give_up() is True
    assert not reserve.path.exists()
    assert (reserve.has_room, reserve.restore()) == (False, False)
    space.free = 6 * MIB - 1
    assert (reserve.has_room, reserve.restore()) == (False, False)
    space.free = 6 * MIB
    assert (reserve.has_room, reserve.restore()) == (True, True)
    assert on_disk(reserve) >= 3 * MIB


def test_one_that_was_never_made_is_not_waited_for(database: Path) -> None:
    reserve = Reserve(database, 3 * MIB, free_bytes=Space(free=0))

    assert reserve.take() is False
    assert reserve.give_up() is False
    assert (reserve.has_room, reserve.restore()) == (True, True)


def test_a_reserve_of_nothing_makes_no_file(database: Path) -> None:
    reserve = Reserve(database, 0)

    assert reserve.take() is False
    assert reserve.give_up() is False
    assert (reserve.has_room, reserve.restore()) == (True, True)
    assert list(database.parent.iterdir()) == []


def test_one_that_finds_less_room_than_was_said_leaves_nothing(database: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    reserve = Reserve(database, 3 * MIB, free_bytes=Space())
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 * MIB, hard))
    try:
        taken = reserve.take()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert taken is False
    assert not reserve.path.exists()


def test_free_space_of_a_path_that_is_gone_is_none(tmp_path: Path) -> None:
    assert free_bytes_at(tmp_path) > 0
    assert free_bytes_at(tmp_path / "absent") == 0


async def test_a_store_keeps_a_reserve_while_it_is_open(opens: Opens, path: Path) -> None:
    reserve = path.with_name(path.name + "-reserve")

    opened = await opens(path)
    held = reserve.stat().st_blocks * 512
    await opened.store.close()

    assert held >= 16 * MIB
    assert not reserve.exists()
