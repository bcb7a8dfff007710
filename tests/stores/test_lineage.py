"""Trees of threads in a file, and the mail in it: found, checked, and gone with their threads."""

from pathlib import Path

import pytest

from tests.contract.units import COMPLETED, NOW, create, creation, projection, records
from tests.stores.kit import HandClock, Opened, Opens, execute
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import StopReason
from treadle_server.ports.catalogue.thread_queries import Condition, Operator, ThreadColumn, ThreadQuery
from treadle_server.ports.log import Posted, ThreadKey, Unit
from treadle_server.stores.sqlite.checking import open_inspection
from treadle_server.stores.sqlite.housekeeping import FORGET_MICROS
from treadle_server.stores.sqlite.store import SqliteStore


async def below(store: SqliteStore, parent: ThreadKey) -> ThreadKey:
    key = ThreadKey(parent.tenant, store.log.allocate_thread())
    unit = creation(key, "child")
    assert unit.new_thread is not None
    unit.new_thread.parent = parent.thread
    await store.log.submit(unit).wait()
    return key


async def end(store: SqliteStore, key: ThreadKey, *mail: Posted) -> None:
    unit = Unit(key, 1, records("end"), projection=projection(COMPLETED), mail=list(mail))
    assert unit.projection is not None
    unit.projection.summary, unit.projection.end_time = b"over", NOW
    await store.log.submit(unit).wait()


async def test_a_tree_is_known_from_any_of_its_threads(opened: Opened) -> None:
    store = opened.store
    root = await create(store.log, "root")
    stranger = await create(store.log, "stranger")
    child = await below(store, root)
    grandchild = await below(store, child)
    other = await below(store, root)

    found = {key: await store.lineage.of(key) for key in (root, child, grandchild)}

    assert {key: (at.parent, at.root) for key, at in found.items() if at is not None} == {
        root: (0, root.thread),
        child: (root.thread, root.thread),
        grandchild: (child.thread, root.thread),
    }
    everybody = {root.thread, child.thread, grandchild.thread, other.thread}
    assert await store.lineage.tree(root) == everybody
    assert await store.lineage.tree(child) == {child.thread, grandchild.thread}
    assert await store.lineage.tree(stranger) == {stranger.thread}
    assert await store.lineage.of(ThreadKey(1, 99)) is None


async def test_commits_of_a_tree_are_read_alone_and_from_the_first(opened: Opened) -> None:
    store = opened.store
    await create(store.log, "stranger")
    root = await create(store.log, "root")
    child = await below(store, root)
    await create(store.log, "stranger")

    begin = await store.lineage.of(root)
    assert begin is not None
    page = await store.commits.read(1, after=begin.begin_position - 1, limit=9, root=root.thread)

    assert [(commit.key, commit.parent) for commit in page.items] == [(root, 0), (child, root.thread)]
    assert page.items[0].position == begin.begin_position


async def test_a_place_of_a_first_commit_that_is_wrong_is_looked_for(opened: Opened, path: Path) -> None:
    store = opened.store
    await create(store.log, "stranger")
    root = await create(store.log, "root")
    await store.close()
    execute(path, "UPDATE thread_details SET begin_position = 1")
    reopened = await SqliteStore.open(path, on_fatal=opened.fatal.append, clock=HandClock())

    found = await reopened.lineage.of(root)
    await reopened.close()

    assert found is not None
    assert found.begin_position == 2


async def test_a_tree_is_over_once_all_of_it_has_ended_and_was_read(opened: Opened) -> None:
    store = opened.store
    root = await create(store.log, "root")
    child = await below(store, root)

    await end(store, root)
    lives = await store.lineage.over(root, 99)
    await end(store, child)
    unread = await store.lineage.over(root, 3)

    assert (lives, unread) == (False, False)
    assert await store.lineage.over(root, 4)


async def test_a_part_of_a_tree_is_over_though_the_rest_goes_on(opened: Opened) -> None:
    store = opened.store
    root = await create(store.log, "root")
    child = await below(store, root)
    await end(store, child)

    await store.log.submit(Unit(root, 1, records("more"))).wait()

    assert await store.lineage.over(child, 3)
    assert not await store.lineage.over(child, 2)
    assert not await store.lineage.over(root, 4)


async def test_the_end_of_a_tree_that_was_ended_by_its_row_alone_is_found(opened: Opened) -> None:
    store = opened.store
    await create(store.log, "stranger")
    root = await create(store.log, "root")
    await store.threads.condemn(root, stop_reason=StopReason.DATA_LOSS, now=NOW)

    assert not await store.lineage.over(root, 1)
    assert await store.lineage.over(root, 2)


async def test_threads_are_listed_by_their_parent(opened: Opened) -> None:
    store = opened.store
    root, stranger = await create(store.log, "root"), await create(store.log, "stranger")
    child = await below(store, root)

    async def listed(operator: Operator, value: str | tuple[str, ...]) -> list[ThreadKey]:
        condition = Condition(ThreadColumn.PARENT_THREAD, operator, value)
        page = await store.threads.list(ThreadQuery(1, (condition,)))
        return [row.key for row in page.items]

    assert await listed(Operator.EQUAL, f"thread-{root.thread}") == [child]
    assert await listed(Operator.IN, (f"thread-{root.thread}", f"thread-{stranger.thread}")) == [child]
    assert await listed(Operator.EQUAL, f"thread-{child.thread}") == []
    with pytest.raises(ValueError, match="compared by = alone"):
        await listed(Operator.NOT_EQUAL, f"thread-{root.thread}")


async def test_mail_and_lineage_go_with_their_threads(opened: Opened, path: Path) -> None:
    store = opened.store
    root = await create(store.log, "root")
    child = await below(store, root)
    await end(store, child, Posted(f"thread-{root.thread}", b"42"))
    await end(store, root)
    for key in (root, child):
        row = await store.threads.get_by_key(key)
        assert row is not None
        await store.threads.delete(row, delete_time=NOW)

    await store.housekeeping.purge_threads()
    purged = execute(path, "SELECT (SELECT count(*) FROM mail), (SELECT count(*) FROM lineage)")
    await store.housekeeping.forget_threads(NOW + FORGET_MICROS)

    assert purged == [(0, 1)]
    assert execute(path, "SELECT count(*) FROM lineage") == [(0,)]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE mail SET body = x'00'", "mail: position 1"),
        ("UPDATE mail SET to_thread = 2", "mail: position 1"),
        ("UPDATE lineage SET parent = 7", "lineage: thread 2"),
        ("UPDATE lineage SET root = 2", "lineage: thread 2"),
        ("UPDATE mail SET to_thread = 99", "mail: 1 is for no thread"),
    ],
)
async def test_a_check_of_the_file_finds_damaged_mail_and_lineage(
    opens: Opens, path: Path, damage: str, told: str
) -> None:
    opened = await opens(path)
    root = await create(opened.store.log, "root")
    child = await below(opened.store, root)
    await end(opened.store, child, Posted(f"thread-{root.thread}", b"42"))
    await opened.store.close()
    sound = _problems(path)
    execute(path, damage)

    found = _problems(path)

    assert [line for line in sound if line.startswith(("mail", "lineage"))] == []
    assert [line for line in found if line.startswith(told)] != []


def _problems(path: Path) -> list[str]:
    inspection = open_inspection(path)
    try:
        return list(inspection.rows())
    finally:
        inspection.close()


async def test_a_damaged_letter_is_told_from_one_without_words(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    root = await create(opened.store.log, "root")
    child = await below(opened.store, root)
    await end(opened.store, child, Posted(f"thread-{root.thread}", b"42"))
    await opened.store.close()
    execute(path, "UPDATE mail SET body = x'3433'")

    again = await opens(path)
    (letter,) = await again.store.mail.waiting(after=0, limit=9)

    assert (letter.key, letter.body) == (root, None)


async def test_the_parent_of_a_thread_that_was_ended_by_its_row_is_told_to_look(opened: Opened) -> None:
    store = opened.store
    root = await create(store.log, "root")
    child = await below(store, root)

    await store.threads.condemn(child, stop_reason=23, now=NOW)

    (letter,) = await store.mail.waiting(after=0, limit=9)
    assert (letter.key, letter.body) == (root, b"")


async def test_a_damaged_place_in_a_tree_is_not_believed(opens: Opens, path: Path) -> None:
    opened = await opens(path)
    root = await create(opened.store.log, "root")
    child = await below(opened.store, root)
    await opened.store.close()
    execute(path, "UPDATE lineage SET parent = 3")

    again = await opens(path)
    with pytest.raises(Refused) as refused:
        await again.store.lineage.of(child)

    assert refused.value.reason is Reason.RECORD_CORRUPT
