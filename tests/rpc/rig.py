"""A whole server on a loopback port, and stubs to call it with."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from treadle.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    agent_service_pb2_grpc,
    api_key_pb2,
    approval_service_pb2_grpc,
    memory_service_pb2_grpc,
    session_service_pb2_grpc,
    thread_service_pb2_grpc,
    tool_service_pb2_grpc,
)
from treadle_server.app import MakeToolbox, Server
from treadle_server.config import Config
from treadle_server.tools.groups import ToolGroups

_admin: Any = admin_service_pb2

Metadata = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Rig:
    """A server with a channel to it. The stubs are untyped: tests send what types would forbid too."""

    server: Server
    channel: grpc.aio.Channel

    @property
    def agents(self) -> Any:
        return agent_service_pb2_grpc.AgentServiceStub(self.channel)

    @property
    def approvals(self) -> Any:
        return approval_service_pb2_grpc.ApprovalServiceStub(self.channel)

    @property
    def sessions(self) -> Any:
        return session_service_pb2_grpc.SessionServiceStub(self.channel)

    @property
    def threads(self) -> Any:
        return thread_service_pb2_grpc.ThreadServiceStub(self.channel)

    @property
    def admin(self) -> Any:
        return admin_service_pb2_grpc.AdminServiceStub(self.channel)

    @property
    def tools(self) -> Any:
        return tool_service_pb2_grpc.ToolServiceStub(self.channel)

    @property
    def memories(self) -> Any:
        return memory_service_pb2_grpc.MemoryServiceStub(self.channel)

    async def raw(self, path: str, data: bytes, metadata: Metadata = ()) -> bytes:
        """A unary call of bytes."""
        method: Any = self.channel.unary_unary(path)
        return bytes(await method(data, metadata=tuple(metadata)))


@asynccontextmanager
async def running(
    path: Path, *, make_toolbox: MakeToolbox = ToolGroups, **options: Any
) -> AsyncIterator[Rig]:
    """Serves the database file until the end of the block."""
    stopping: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    config = Config(listen="127.0.0.1:0", db=path, **{"drain_seconds": 1, **options})
    server = await Server.start(config, stopping, make_toolbox)
    channel = grpc.aio.insecure_channel(server.address)
    try:
        yield Rig(server, channel)
    finally:
        await channel.close()
        await server.stop()
        assert not stopping.done(), "the store has failed"


async def make_key(rig: Rig, tenant_id: str, **fields: Any) -> api_key_pb2.ApiKey:
    """A new key with its secret, made by the admin that everybody is on a server without keys.

    The first key of a tenant makes the tenant.
    """
    request = _admin.CreateApiKeyRequest(parent=f"tenants/{tenant_id}", api_key=fields)
    created: api_key_pb2.ApiKey = await rig.admin.CreateApiKey(request)
    return created


def bearer(api_key: api_key_pb2.ApiKey) -> tuple[tuple[str, str], ...]:
    """Metadata of a call with a key."""
    return (("authorization", f"Bearer {api_key.secret}"),)
