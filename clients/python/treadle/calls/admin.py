"""Calls of AdminService and ToolService."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from treadle.calls import names
from treadle.calls.call import Pages, Unary, request_id_or_new
from treadle.v1 import admin_service_pb2 as rpc
from treadle.v1.api_key_pb2 import ApiKey
from treadle.v1.server_info_pb2 import ServerInfo
from treadle.v1.tool_pb2 import Tool
from treadle.v1.tool_service_pb2 import ListBuiltinToolsRequest, ListBuiltinToolsResponse


def get_server_info() -> Unary[ServerInfo]:
    """Answers what the server is and can do."""
    return Unary(rpc.GetServerInfoRequest(), ServerInfo)


def list_builtin_tools(*, page_size: int = 0) -> Pages[Tool]:
    """Lists the tools of `toolGroups/builtin`."""
    request = ListBuiltinToolsRequest(page_size=page_size)
    return Pages(request, ListBuiltinToolsResponse, lambda page: page.tools)


def create_api_key(
    tenant: str,
    *,
    api_key_id: str = "",
    display_name: str = "",
    principal: str = "",
    admin: bool = False,
    expire_time: datetime | None = None,
    object_patterns: Sequence[str] = (),
    request_id: str = "",
) -> Unary[ApiKey]:
    """Makes a key. Its secret comes once: if that answer got lost, a repeated call has an empty one."""
    key = ApiKey(display_name=display_name, principal=principal, admin=admin, object_patterns=object_patterns)
    if expire_time is not None:
        key.expire_time.FromDatetime(expire_time)
    request = rpc.CreateApiKeyRequest(
        parent=names.tenant(tenant),
        api_key=key,
        api_key_id=api_key_id,
        request_id=request_id_or_new(request_id),
    )
    return Unary(request, ApiKey)


def get_api_key(name: str) -> Unary[ApiKey]:
    """Answers a key by its full name, without its secret."""
    return Unary(rpc.GetApiKeyRequest(name=name), ApiKey)


def list_api_keys(tenant: str, *, page_size: int = 0) -> Pages[ApiKey]:
    """Lists the keys of a tenant, newest first."""
    request = rpc.ListApiKeysRequest(parent=names.tenant(tenant), page_size=page_size)
    return Pages(request, rpc.ListApiKeysResponse, lambda page: page.api_keys)


def update_api_key(
    name: str,
    *,
    display_name: str | None = None,
    expire_time: datetime | None = None,
    etag: str = "",
    request_id: str = "",
) -> Unary[ApiKey]:
    """Changes exactly what is given."""
    key, paths = ApiKey(name=name, etag=etag), []
    if display_name is not None:
        key.display_name = display_name
        paths.append("display_name")
    if expire_time is not None:
        key.expire_time.FromDatetime(expire_time)
        paths.append("expire_time")
    request = rpc.UpdateApiKeyRequest(
        api_key=key, update_mask=FieldMask(paths=paths), request_id=request_id_or_new(request_id)
    )
    return Unary(request, ApiKey)


def delete_api_key(name: str, *, etag: str = "", request_id: str = "") -> Unary[Empty]:
    """Deletes a key, which stops working at once."""
    request = rpc.DeleteApiKeyRequest(name=name, etag=etag, request_id=request_id_or_new(request_id))
    return Unary(request, Empty)
