"""What is seen of a server process from outside: its memory, files and log, and how it serves others."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.measure import percentile
from tests.server_process import ServerProcess
from treadle.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    agent_pb2,
    agent_service_pb2,
    agent_service_pb2_grpc,
    server_info_pb2,
)

MIB = 1024 * 1024
PATIENCE_SECONDS = 30.0
_FAULTS = re.compile(
    r"Traceback|call_failed|exception was never retrieved|Task was destroyed|Segmentation|\[error"
)


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now; Linux only."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def faults_in(log: Path) -> list[str]:
    """Lines of a server's log that tell of a fault of its own."""
    with log.open(errors="replace") as lines:
        return [line.strip()[:400] for line in lines if _FAULTS.search(line)]


class Witness:
    """A well-behaved caller beside those who are not: it must be answered, and soon."""

    def __init__(self, address: str) -> None:
        self.latencies: list[float] = []
        self._channel = grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),))
        self._admin = admin_service_pb2_grpc.AdminServiceStub(self._channel)

    def ask(self, seconds: float = PATIENCE_SECONDS) -> server_info_pb2.ServerInfo:
        began = time.monotonic()
        answer = self._admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=seconds)
        self.latencies.append(time.monotonic() - began)
        return answer

    def create_agent(self) -> None:
        """Something that is written."""
        agents = agent_service_pb2_grpc.AgentServiceStub(self._channel)
        request = agent_service_pb2.CreateAgentRequest(agent=agent_pb2.Agent(model="demo:react"))
        agents.CreateAgent(request, timeout=PATIENCE_SECONDS)

    def ask_while(self, holds: Callable[[], bool], *, at_least: int = 50) -> None:
        """Asks again and again as long as it holds."""
        asked = 0
        while holds() or asked < at_least:
            self.ask()
            asked += 1

    def p99(self) -> float:
        return percentile(self.latencies, 0.99)

    def close(self) -> None:
        self._channel.close()


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a server process holds at one time."""

    resident: int
    files: int

    @classmethod
    def of(cls, server: ServerProcess) -> "Footprint":
        return cls(resident_bytes(server.pid), open_files(server.pid))
