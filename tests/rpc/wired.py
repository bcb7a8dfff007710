"""Handlers with servicers of a test's own, on a loopback port."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from treadle.v1 import agent_service_pb2, thread_service_pb2
from treadle_server.rpc.admission import Admission
from treadle_server.rpc.arrivals import ARRIVALS_MAX, Arrivals
from treadle_server.rpc.doorway import Doorway
from treadle_server.rpc.handlers import Handlers
from treadle_server.rpc.stalls import Stalls
from treadle_server.services.keys import Identity

AGENTS = agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"]
THREADS = thread_service_pb2.DESCRIPTOR.services_by_name["ThreadService"]


@dataclass(slots=True)
class Wired:
    """A server of handlers alone, and a channel to it."""

    doorway: Doorway
    channel: grpc.aio.Channel
    address: str

    def unary(self, path: str) -> Any:
        """A call of bytes, or of messages that know their bytes."""
        return self.channel.unary_unary(f"/treadle.v1.{path}", request_serializer=_bytes_of)

    def stream(self, path: str) -> Any:
        return self.channel.unary_stream(f"/treadle.v1.{path}", request_serializer=_bytes_of)


async def tenant_by_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
    """Callers say their tenant's key themselves; 1 when they say nothing."""
    keys = [int(value) for key, value in metadata if key == "tenant"]
    tenant = keys[0] if keys else 1
    return Identity(tenant, f"tenant-{tenant}", "tester", admin=False)


@asynccontextmanager
async def wired(
    *servicers: tuple[Any, object],
    admission: Admission | None = None,
    stall_seconds: float = 30.0,
    request_seconds: float = 30.0,
    arrivals_max: int = ARRIVALS_MAX,
) -> AsyncIterator[Wired]:
    """Serves pairs of service descriptor and servicer."""
    doorway = Doorway(
        tenant_by_metadata,
        admission or Admission(),
        Stalls(stall_seconds),
        arrivals=Arrivals(request_seconds, arrivals_max),
    )
    handlers = Handlers(doorway)
    for descriptor, servicer in servicers:
        handlers.add(descriptor, servicer)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    address = f"127.0.0.1:{port}"
    channel = grpc.aio.insecure_channel(address)
    try:
        yield Wired(doorway, channel, address)
    finally:
        await channel.close()
        await server.stop(0)


def _bytes_of(request: Any) -> bytes:
    return request if isinstance(request, bytes) else bytes(request.SerializeToString())
