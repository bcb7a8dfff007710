"""Tenants: made, changed, listed, and not believed when they are damaged."""

from pathlib import Path

import pytest

from tests.contract.units import NOW, request
from tests.stores.kit import Opened, Opens, execute
from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.catalogue.tenants import TenantRow
from treadle_server.ports.log import Replayed
from treadle_server.stores.sqlite.store import SqliteStore

DAY = 86_400_000_000


async def make(store: SqliteStore, tenant_id: str, retention: int | None = None) -> TenantRow:
    return await store.tenants.create(
        tenant_id, display_name="A.", thread_retention=retention, create_time=NOW, caller=1
    )


async def test_a_tenant_is_found_as_it_was_made(opened: Opened) -> None:
    tenants = opened.store.tenants

    made = await make(opened.store, "acme", DAY)
    plain = await tenants.get_or_create("plain", create_time=NOW + 1)

    assert made == TenantRow(made.key, "acme", "A.", DAY, 1, NOW, NOW)
    assert plain == TenantRow(plain.key, "plain", "", None, 1, NOW + 1, NOW + 1)
    assert await tenants.find("acme") == await tenants.get_by_key(made.key) == made
    assert await tenants.get_or_create("acme", create_time=NOW + 2) == made
    assert await tenants.find("nobody") is None


async def test_an_id_that_is_taken_is_refused(opened: Opened) -> None:
    await make(opened.store, "acme")

    with pytest.raises(Refused) as refused:
        await make(opened.store, "acme")

    assert (refused.value.reason, refused.value.resource) == (
        Reason.RESOURCE_EXISTS,
        ("treadle.dev/Tenant", "tenants/acme"),
    )


async def test_of_two_changes_of_one_revision_the_second_is_refused(opened: Opened) -> None:
    tenants, made = opened.store.tenants, await make(opened.store, "acme", DAY)
    change = {"display_name": "B.", "thread_retention": None, "update_time": NOW + 5, "caller": 1}

    changed = await tenants.update(made, **change, request=request())  # type: ignore[arg-type]
    with pytest.raises(Refused) as refused:
        await tenants.update(made, **change)  # type: ignore[arg-type]
    with pytest.raises(Replayed):
        await tenants.update(changed, **change, request=request())  # type: ignore[arg-type]

    assert changed == TenantRow(made.key, "acme", "B.", None, 2, NOW, NOW + 5)
    assert await tenants.find("acme") == changed
    assert refused.value.reason is Reason.ETAG_MISMATCH


async def test_tenants_are_listed_newest_first_in_pages(opened: Opened) -> None:
    made = [await make(opened.store, f"t{number}") for number in range(3)]

    first = await opened.store.tenants.list(limit=2)
    rest = await opened.store.tenants.list(limit=2, after=first.next)

    assert [*first.items, *rest.items] == made[::-1]
    assert rest.next is None
    assert await opened.store.tenants.count() == 3


@pytest.mark.parametrize("column", ["display_name = 'x'", "thread_retention = 1", "revision = 7"])
async def test_a_damaged_tenant_is_never_returned(opens: Opens, path: Path, column: str) -> None:
    opened = await opens(path)
    await make(opened.store, "acme", DAY)
    await opened.store.close()
    execute(path, f"UPDATE tenants SET {column}")
    tenants = (await opens(path)).store.tenants

    for read in (tenants.find("acme"), tenants.get_by_key(1), tenants.list(limit=9)):
        with pytest.raises(Refused) as refused:
            await read
        assert refused.value.reason is Reason.RECORD_CORRUPT
        assert refused.value.metadata == {"resource": "tenants/acme"}
