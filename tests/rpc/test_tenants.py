"""Tenants over gRPC: made, read, listed and changed, by admins alone."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, bearer, make_key, running
from treadle.v1 import admin_service_pb2, tenant_pb2

pb: Any = admin_service_pb2
Tenant: Any = tenant_pb2.Tenant
DAY = {"seconds": 86_400}
YEARS_101 = {"seconds": 101 * 365 * 86_400}


async def make(rig: Rig, tenant_id: str = "acme", *, request_id: str = "", **fields: Any) -> Any:
    request = pb.CreateTenantRequest(tenant=fields, tenant_id=tenant_id, request_id=request_id)
    return await rig.admin.CreateTenant(request)


async def get(rig: Rig, tenant_id: str = "acme") -> Any:
    return await rig.admin.GetTenant(pb.GetTenantRequest(name=f"tenants/{tenant_id}"))


async def update(rig: Rig, *paths: str, request_id: str = "", **fields: Any) -> Any:
    tenant = {"name": "tenants/acme", **fields}
    return await rig.admin.UpdateTenant(
        pb.UpdateTenantRequest(tenant=tenant, update_mask={"paths": paths}, request_id=request_id)
    )


async def test_a_tenant_is_answered_as_it_was_made_and_read_back_the_same(rig: Rig) -> None:
    made = await make(rig, display_name="Acme", thread_retention=DAY)

    assert (made.name, made.display_name, made.thread_retention.seconds) == ("tenants/acme", "Acme", 86_400)
    assert made.create_time == made.update_time
    assert made.etag
    assert await get(rig) == made


async def test_a_tenant_without_an_id_gets_one(rig: Rig) -> None:
    made = await make(rig, "")

    assert await get(rig, made.name.removeprefix("tenants/")) == made
    assert not made.HasField("thread_retention")


async def test_the_first_key_of_a_tenant_makes_it_and_the_default_one_is_there(rig: Rig) -> None:
    await make_key(rig, "red")

    for tenant_id in ("red", "default"):
        found = await get(rig, tenant_id)
        assert found.name == f"tenants/{tenant_id}"
        assert not found.HasField("thread_retention")
        assert found.create_time.seconds > 1_600_000_000


async def test_an_id_that_is_taken_is_refused(rig: Rig) -> None:
    await make(rig)

    failure = await failure_of(make(rig))

    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")
    assert failure.details["ResourceInfo"].resource_name == "tenants/acme"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"thread_retention": {"seconds": 0}}, "tenant.thread_retention"),
        ({"thread_retention": {"nanos": 999_999_999}}, "tenant.thread_retention"),
        ({"thread_retention": {"seconds": -1}}, "tenant.thread_retention"),
        ({"thread_retention": YEARS_101}, "tenant.thread_retention"),
        ({"display_name": "x" * 256}, "tenant.display_name"),
    ],
)
async def test_a_faulty_field_is_named(rig: Rig, fields: dict[str, Any], named: str) -> None:
    await make(rig)

    for failure in (await failure_of(make(rig, "other", **fields)), await failure_of(update(rig, **fields))):
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert list(failure.fields) == [named]


async def test_all_faulty_fields_are_named_at_once(rig: Rig) -> None:
    failure = await failure_of(
        make(rig, "No Id", request_id="\n", display_name="x" * 256, thread_retention={"seconds": 0})
    )

    assert set(failure.fields) == {
        *("tenant_id", "request_id"),
        *("tenant.display_name", "tenant.thread_retention"),
    }


async def test_the_shortest_and_the_longest_retention_are_taken(rig: Rig) -> None:
    for tenant_id, seconds in (("short", 1), ("long", 36_525 * 86_400)):
        made = await make(rig, tenant_id, thread_retention={"seconds": seconds})
        assert made.thread_retention.seconds == seconds


async def test_a_mask_says_what_changes(rig: Rig) -> None:
    made = await make(rig, display_name="Acme", thread_retention=DAY)

    named = await update(rig, "display_name", display_name="New", thread_retention={"seconds": 5})
    unmasked = await update(rig, thread_retention={"seconds": 5})
    cleared = await update(rig, "thread_retention")
    emptied = await update(rig, "*")

    assert (named.display_name, named.thread_retention) == ("New", made.thread_retention)
    assert (unmasked.display_name, unmasked.thread_retention.seconds) == ("New", 5)
    assert (cleared.display_name, cleared.HasField("thread_retention")) == ("New", False)
    assert emptied.display_name == ""
    assert emptied.create_time == made.create_time
    assert await get(rig) == emptied


@pytest.mark.parametrize("path", ["name", "create_time", "etag", "nothing", "thread_retention.seconds.x"])
async def test_a_path_that_cannot_be_changed_is_refused(rig: Rig, path: str) -> None:
    made = await make(rig)

    failure = await failure_of(update(rig, path))

    assert list(failure.fields) == ["update_mask"]
    assert await get(rig) == made


async def test_an_older_etag_is_refused_and_the_present_one_is_told(rig: Rig) -> None:
    made = await make(rig)
    changed = await update(rig, etag=made.etag, display_name="A")

    failure = await failure_of(update(rig, etag=made.etag, display_name="B"))

    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert failure.metadata == {"etag": changed.etag}
    assert await get(rig) == changed


async def test_a_repeated_call_gets_the_first_answer_and_does_nothing(rig: Rig) -> None:
    made = await make(rig, request_id="r1", display_name="Acme")
    again = await make(rig, request_id="r1", display_name="Acme")
    nameless = [await make(rig, "", request_id="r2") for _ in range(2)]
    changed = await update(rig, request_id="r3", display_name="New")
    await update(rig, display_name="Newer")
    repeated = await update(rig, request_id="r3", display_name="New")

    assert again == made
    assert nameless[0] == nameless[1]
    assert repeated == changed
    assert (await get(rig)).display_name == "Newer"
    listed = await rig.admin.ListTenants(pb.ListTenantsRequest())
    assert listed.total_size == 3
    failure = await failure_of(make(rig, "other", request_id="r1"))
    assert failure.reason == "REQUEST_ID_REUSED"


async def test_tenants_are_listed_in_pages_newest_first(rig: Rig) -> None:
    for number in range(4):
        await make(rig, f"t{number}")

    found, token = [], ""
    while True:
        page = await rig.admin.ListTenants(pb.ListTenantsRequest(page_size=2, page_token=token))
        found += [tenant.name for tenant in page.tenants]
        assert page.total_size == 5
        token = page.next_page_token
        if not token:
            break
    failures = [
        await failure_of(rig.admin.ListTenants(pb.ListTenantsRequest(page_size=-1))),
        await failure_of(rig.admin.ListTenants(pb.ListTenantsRequest(page_token="bm9uZQ"))),
    ]

    assert found == [*(f"tenants/t{number}" for number in (3, 2, 1, 0)), "tenants/default"]
    assert [list(failure.fields) for failure in failures] == [["page_size"], ["page_token"]]


async def test_a_tenant_that_is_not_there_is_not_found(rig: Rig) -> None:
    for call in (get(rig), update(rig, display_name="x")):
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        assert failure.details["ResourceInfo"].resource_type == "treadle.dev/Tenant"
        assert failure.details["ResourceInfo"].resource_name == "tenants/acme"


async def test_tenants_are_for_admins(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        red, admin = await make_key(rig, "red"), await make_key(rig, "ops", admin=True)
    async with running(tmp_path / "t.db", require_keys=True) as rig:
        asks = [
            (rig.admin.CreateTenant, pb.CreateTenantRequest(tenant_id="new")),
            (rig.admin.GetTenant, pb.GetTenantRequest(name="tenants/red")),
            (rig.admin.ListTenants, pb.ListTenantsRequest()),
            (rig.admin.UpdateTenant, pb.UpdateTenantRequest(tenant={"name": "tenants/red"})),
        ]

        for method, request in asks:
            failure = await failure_of(method(request, metadata=bearer(red)))
            assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
            assert failure.metadata == {"scope": "admin"}
        for method, request in asks:
            assert await method(request, metadata=bearer(admin))
