"""Calls of AdminService about tenants."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.field_mask_pb2 import FieldMask

from treadle.calls import names
from treadle.calls.call import Pages, Unary, request_id_or_new
from treadle.v1 import admin_service_pb2 as rpc
from treadle.v1.tenant_pb2 import Tenant


def create_tenant(
    tenant_id: str = "",
    *,
    display_name: str = "",
    thread_retention: timedelta | None = None,
    request_id: str = "",
) -> Unary[Tenant]:
    """Makes a tenant. Without a `thread_retention` its threads are kept as long as the server says."""
    made = Tenant(display_name=display_name)
    if thread_retention is not None:
        made.thread_retention.FromTimedelta(thread_retention)
    request = rpc.CreateTenantRequest(
        tenant=made, tenant_id=tenant_id, request_id=request_id_or_new(request_id)
    )
    return Unary(request, Tenant)


def get_tenant(name: str) -> Unary[Tenant]:
    """Answers a tenant."""
    return Unary(rpc.GetTenantRequest(name=names.tenant(name)), Tenant)


def list_tenants(*, page_size: int = 0) -> Pages[Tenant]:
    """Lists the tenants, newest first."""
    request = rpc.ListTenantsRequest(page_size=page_size)
    return Pages(request, rpc.ListTenantsResponse, lambda page: page.tenants)


def update_tenant(
    name: str,
    *,
    display_name: str | None = None,
    thread_retention: timedelta | None = None,
    clear_thread_retention: bool = False,
    etag: str = "",
    request_id: str = "",
) -> Unary[Tenant]:
    """Changes exactly what is given; `clear_thread_retention` goes back to what the server says.

    What it says of retention also holds for threads that have ended already.
    """
    tenant, paths = Tenant(name=names.tenant(name), etag=etag), []
    if display_name is not None:
        tenant.display_name = display_name
        paths.append("display_name")
    if thread_retention is not None and clear_thread_retention:
        raise ValueError("thread_retention is either given or cleared")
    if thread_retention is not None:
        tenant.thread_retention.FromTimedelta(thread_retention)
    if thread_retention is not None or clear_thread_retention:
        paths.append("thread_retention")
    request = rpc.UpdateTenantRequest(
        tenant=tenant, update_mask=FieldMask(paths=paths), request_id=request_id_or_new(request_id)
    )
    return Unary(request, Tenant)
