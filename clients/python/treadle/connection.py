"""What both clients know of the server: where it is, who calls, and how patiently."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from ipaddress import ip_address
from typing import Any, Generic, TypeVar

import grpc

from treadle._version import __version__
from treadle.channels import Channels
from treadle.retry import Attempts, Retry

C = TypeVar("C")
DEFAULT_TARGET = "127.0.0.1:50051"
API_KEY_VARIABLE = "TREADLE_API_KEY"
RECEIVED_BYTES_MAX = 64 * 1024 * 1024

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # Repeating is ours: the transport's own knows neither request ids nor sequences.
    ("grpc.enable_retries", 0),
    # A server that vanished without a word is noticed within 40 s. Servers refuse more frequent pings.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The default of two minutes between attempts to connect would outlast any patience.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", RECEIVED_BYTES_MAX),
    # Channels of a process that go to the same server would share one connection, and its limit of streams.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", f"treadle-python/{__version__}"),
)


class Connection(ABC, Generic[C]):
    """Address, identity and patience of a client. It connects with the first call, and again at need."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        tenant: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        insecure: bool = False,
        timeout: float = 30.0,
        retry: Retry | None = None,
    ) -> None:
        """`credentials` is None for plain text or `grpc.ssl_channel_credentials(...)`.

        Without an `api_key` the environment's TREADLE_API_KEY is sent, if it is set. A key goes unencrypted
        to another machine only with `insecure`. `tenant` is for admins acting for a tenant. `timeout` is in
        seconds, for a call with all its attempts; streams and `execute` have their own.
        """
        key = os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key
        if key and credentials is None and not insecure and not _is_local(target):
            raise ValueError(
                f"the API key would go to {target} unencrypted: give credentials, or insecure=True"
            )
        self.target = target
        self._credentials = credentials
        self._timeout = timeout
        self._retry = retry or Retry()
        metadata = {"authorization": f"Bearer {key}" if key else "", "treadle-tenant": tenant or ""}
        self._metadata = tuple((name, value) for name, value in metadata.items() if value)
        self._channels: Channels[C] = Channels(self._connect)

    @abstractmethod
    def _connect(self) -> C:
        """A new channel to the server."""

    def _attempts(self, timeout: float | None) -> Attempts:
        return Attempts(self._retry, timeout=self._timeout if timeout is None else timeout)


def options() -> list[tuple[str, Any]]:
    """Channel options in the form that both of grpc's stacks take."""
    return list(CHANNEL_OPTIONS)


def _is_local(target: str) -> bool:
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    address = rest.lstrip("/") if scheme in ("dns", "ipv4", "ipv6") else target
    host = address.rpartition(":")[0].strip("[]") or address
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
