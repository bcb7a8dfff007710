"""Servicer of AdminService."""

from dataclasses import replace

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from treadle.v1 import admin_service_pb2, api_key_pb2, server_info_pb2, tenant_pb2
from treadle_server.core.agent import ApiKey
from treadle_server.core.tenant import Tenant
from treadle_server.rpc import masks, names
from treadle_server.rpc.calls import Call
from treadle_server.rpc.digests import asked
from treadle_server.rpc.identity import require_admin
from treadle_server.rpc.paging import page_size, position_of, token_of
from treadle_server.rpc.resources import backup_message, key_message, tenant_message
from treadle_server.rpc.validation import RESOURCES
from treadle_server.services.backups import Backups
from treadle_server.services.keys import Change, Keys
from treadle_server.services.server_info import ReadServerInfo
from treadle_server.services.tenants import Change as TenantChange
from treadle_server.services.tenants import Tenants
from treadle_server.wire.messages import to_message

_pb = admin_service_pb2
_UPDATE = RESOURCES["treadle.v1.UpdateApiKeyRequest"]
_UPDATE_TENANT = RESOURCES["treadle.v1.UpdateTenantRequest"]


class AdminServicer:
    """All but GetServerInfo ask for an admin."""

    def __init__(
        self, keys: Keys, tenants: Tenants, backups: Backups, read_server_info: ReadServerInfo
    ) -> None:
        self._keys = keys
        self._tenants = tenants
        self._backups = backups
        self._read_server_info = read_server_info

    async def GetServerInfo(self, request: _pb.GetServerInfoRequest, call: Call) -> Message:
        message = server_info_pb2.ServerInfo()
        to_message(self._read_server_info(), message)
        return message

    async def CreateApiKey(self, request: _pb.CreateApiKeyRequest, call: Call) -> Message:
        require_admin(call.identity)
        wanted = request.api_key
        api_key = await self._keys.create(
            names.tenant_id(request.parent),
            asked(request, call),
            api_key_id=request.api_key_id,
            display_name=wanted.display_name,
            principal=wanted.principal,
            admin=wanted.admin,
            expire_time_micros=_expire_time(wanted),
            object_patterns=tuple(wanted.object_patterns),
        )
        return key_message(api_key)

    async def GetApiKey(self, request: _pb.GetApiKeyRequest, call: Call) -> Message:
        require_admin(call.identity)
        return key_message(await self._keys.get(*names.api_key_id(request.name)))

    async def ListApiKeys(self, request: _pb.ListApiKeysRequest, call: Call) -> Message:
        require_admin(call.identity)
        page, total = await self._keys.list(
            names.tenant_id(request.parent),
            limit=page_size(request.page_size),
            after=position_of(request, call),
        )
        return _pb.ListApiKeysResponse(
            api_keys=[key_message(api_key) for api_key in page.items],
            next_page_token=token_of(page.next, request, call),
            total_size=total,
        )

    async def UpdateApiKey(self, request: _pb.UpdateApiKeyRequest, call: Call) -> Message:
        require_admin(call.identity)
        tenant_id, api_key_id = names.api_key_id(request.api_key.name)
        api_key = await self._keys.update(
            tenant_id, asked(request, call), api_key_id, _change(request), etag=request.api_key.etag
        )
        return key_message(api_key)

    async def DeleteApiKey(self, request: _pb.DeleteApiKeyRequest, call: Call) -> Message:
        require_admin(call.identity)
        tenant_id, api_key_id = names.api_key_id(request.name)
        await self._keys.delete(tenant_id, asked(request, call), api_key_id, etag=request.etag)
        return Empty()

    async def CreateTenant(self, request: _pb.CreateTenantRequest, call: Call) -> Message:
        require_admin(call.identity)
        tenant = await self._tenants.create(
            call.tenant,
            asked(request, call),
            tenant_id=request.tenant_id,
            display_name=request.tenant.display_name,
            thread_retention_micros=_thread_retention(request.tenant),
        )
        return tenant_message(tenant)

    async def GetTenant(self, request: _pb.GetTenantRequest, call: Call) -> Message:
        require_admin(call.identity)
        return tenant_message(await self._tenants.get(names.tenant_id(request.name)))

    async def ListTenants(self, request: _pb.ListTenantsRequest, call: Call) -> Message:
        require_admin(call.identity)
        page, total = await self._tenants.list(
            limit=page_size(request.page_size), after=position_of(request, call)
        )
        return _pb.ListTenantsResponse(
            tenants=[tenant_message(tenant) for tenant in page.items],
            next_page_token=token_of(page.next, request, call),
            total_size=total,
        )

    async def UpdateTenant(self, request: _pb.UpdateTenantRequest, call: Call) -> Message:
        require_admin(call.identity)
        tenant = await self._tenants.update(
            call.tenant,
            asked(request, call),
            names.tenant_id(request.tenant.name),
            _tenant_change(request),
            etag=request.tenant.etag,
        )
        return tenant_message(tenant)

    async def CreateBackup(self, request: _pb.CreateBackupRequest, call: Call) -> Message:
        require_admin(call.identity)
        backup = await self._backups.create(call.tenant, asked(request, call), backup_id=request.backup_id)
        return backup_message(backup)


def _change(request: _pb.UpdateApiKeyRequest) -> Change:
    def wanted(present: ApiKey) -> ApiKey:
        message = key_message(present)
        masks.apply(request.update_mask, request.api_key, message, _UPDATE.only)
        return replace(present, display_name=message.display_name, expire_time_micros=_expire_time(message))

    return wanted


def _tenant_change(request: _pb.UpdateTenantRequest) -> TenantChange:
    def wanted(present: Tenant) -> Tenant:
        message = tenant_message(present)
        masks.apply(request.update_mask, request.tenant, message, _UPDATE_TENANT.only)
        return replace(
            present,
            display_name=message.display_name,
            thread_retention_micros=_thread_retention(message),
        )

    return wanted


def _thread_retention(message: tenant_pb2.Tenant) -> int | None:
    """None when the server's holds."""
    return message.thread_retention.ToMicroseconds() if message.HasField("thread_retention") else None


def _expire_time(message: api_key_pb2.ApiKey) -> int | None:
    """None when it never expires."""
    if not message.HasField("expire_time"):
        return None
    return message.expire_time.seconds * 1_000_000 + message.expire_time.nanos // 1_000
