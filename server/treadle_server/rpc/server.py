"""The gRPC server: services by name, health, reflection, and the address that they are served on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
from google.rpc import error_details_pb2  # noqa: F401 - reflection shows what is loaded: details of errors too
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from treadle.v1 import (
    admin_service_pb2,
    agent_service_pb2,
    approval_service_pb2,
    memory_service_pb2,
    session_service_pb2,
    thread_service_pb2,
    tool_service_pb2,
)
from treadle_server import files
from treadle_server.address import AddressUnusable
from treadle_server.rpc.doorway import Doorway
from treadle_server.rpc.handlers import Handlers
from treadle_server.rpc.limits import REQUEST_BYTES_MAX

STOP_SECONDS = 2.0
"""Streams that took their status have ended at once; calls that go on get so long."""
SERVICES = {
    f"{module.DESCRIPTOR.package}.{name}": module.DESCRIPTOR.services_by_name[name]
    for module in (
        agent_service_pb2,
        approval_service_pb2,
        session_service_pb2,
        thread_service_pb2,
        tool_service_pb2,
        admin_service_pb2,
        memory_service_pb2,
    )
    for name in module.DESCRIPTOR.services_by_name
}
"""All services of the API."""


class GrpcServer:
    """Filled, bound, started, drained and stopped, in this order; `stop` may come after any of them."""

    def __init__(self, connection_streams_max: int) -> None:
        self._health = health.aio.HealthServicer()
        self._grpc: grpc.aio.Server = grpc.aio.server(
            options=_channel_options(connection_streams_max), compression=None
        )

    def add(self, doorway: Doorway, servicers: Mapping[str, object]) -> None:
        """Serves these, by the names of their services, through this door; health and reflection too."""
        handlers = Handlers(doorway)
        for name, servicer in servicers.items():
            handlers.add(SERVICES[name], servicer)
        self._grpc.add_generic_rpc_handlers((handlers,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpc)

    def bind(self, listen: str, tls_cert: Path | None, tls_key: Path | None) -> str:
        """The address that it has then. Raises AddressUnusable."""
        try:
            port = self._add_port(listen, tls_cert, tls_key)
        except (RuntimeError, OSError) as error:
            raise AddressUnusable(f"cannot listen on {listen}: {error}") from error
        return f"{listen.rpartition(':')[0]}:{port}"

    def _add_port(self, listen: str, tls_cert: Path | None, tls_key: Path | None) -> int:
        if tls_cert is None or tls_key is None:
            return self._grpc.add_insecure_port(listen)
        pair = (tls_key.read_bytes(), tls_cert.read_bytes())
        return self._grpc.add_secure_port(listen, grpc.ssl_server_credentials([pair]))

    async def start(self) -> None:
        """From now on it is called, and its health says so."""
        await self._grpc.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Its health says that it serves no longer."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        await self._grpc.stop(STOP_SECONDS)


def _channel_options(connection_streams_max: int) -> Sequence[tuple[str, int]]:
    """Values that were measured on grpc.aio 1.85: bursts are refused with CANCELLED at the defaults."""
    return (
        ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
        ("grpc.max_send_message_length", 2 * REQUEST_BYTES_MAX),
        ("grpc.max_concurrent_streams", connection_streams_max),
        ("grpc.max_allowed_incoming_connections", files.connections_max() or 1_000_000),
        ("grpc.server.max_pending_requests", 20_000),
        ("grpc.server.max_pending_requests_hard_limit", 30_000),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.http2.settings_timeout", 10_000),
        ("grpc.max_connection_idle_ms", 30 * 60_000),
        ("grpc.max_connection_age_ms", 6 * 3_600_000),
        ("grpc.max_connection_age_grace_ms", 6 * 3_600_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 4),
        ("grpc.so_reuseport", 0),
    )
