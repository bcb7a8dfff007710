"""What a server is and can do."""

from collections.abc import Callable
from dataclasses import dataclass

from treadle_server.core.errors import Reason
from treadle_server.services.requests import LIFETIME_MICROS

FULL = 1
RELAXED = 2

WRITABLE = 1
DISK_FULL = 2
BLOCKED = 3


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits that hold for every caller; 0 means no limit where there can be none."""

    request_bytes_max: int
    input_bytes_max: int
    client_metadata_bytes_max: int
    page_size_max: int
    running_threads_max: int = 0
    streams_max: int = 0
    request_id_lifetime_micros: int = LIFETIME_MICROS


@dataclass(frozen=True, slots=True)
class ModelProvider:
    """A provider of models, with or without what is needed to call it."""

    name: str
    available: bool = True
    problem: str = ""
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """What a server has done since it started, and has to do."""

    commit_count: int = 0
    unit_count: int = 0
    read_count: int = 0
    running_thread_count: int = 0
    waiting_thread_count: int = 0
    stream_count: int = 0


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The whole answer of GetServerInfo."""

    version: str
    epoch: int
    start_time_micros: int
    durability: int
    limits: ServerLimits
    model_providers: tuple[ModelProvider, ...] = ()
    statistics: ServerStatistics = ServerStatistics()
    store_state: int = WRITABLE


def store_state(blocked_by: Reason | None) -> int:
    """What becomes of changes, by what the log is blocked by."""
    if blocked_by is None:
        return WRITABLE
    return DISK_FULL if blocked_by is Reason.DISK_FULL else BLOCKED


ReadServerInfo = Callable[[], ServerInfo]
"""Asked anew for every call: a provider's credentials may come and go."""
