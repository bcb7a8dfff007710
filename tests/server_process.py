"""A real server process for tests: started, killed, stopped and restarted on one database file."""

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import grpc

START_SECONDS = 20.0
STOP_SECONDS = 30.0
_LISTENING = re.compile(r"listening on (\S+)")
_ROOT = Path(__file__).parents[1]


class ServerProcess:
    """`treadle serve` on a free loopback port. A restart takes the same port, so clients find it again.

    `module` is what Python runs: the server itself, or one that serves with other parts.
    """

    def __init__(
        self,
        db: Path,
        *,
        environment: dict[str, str] | None = None,
        options: tuple[str, ...] = (),
        module: str = "treadle_server",
    ) -> None:
        self.db = db
        self.log_path = db.with_suffix(".server.log")
        self._environment = environment or {}
        self._options = options
        self._module = module
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[str] | None = None
        self.address = "127.0.0.1:0"

    def start(self, **environment: str) -> "ServerProcess":
        """Returns once the server says that it listens. `environment` holds for this start only."""
        assert self._process is None, "it runs already"
        command = [sys.executable, "-m", self._module, "--db", str(self.db), "--listen", self.address]
        self._log = self.log_path.open("a")
        self._process = subprocess.Popen(
            [*command, *self._options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **self._environment, **environment},
            cwd=_ROOT,
        )
        assert self._process.stdout is not None
        said, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        match = _LISTENING.search(self._process.stdout.readline()) if said else None
        if match is None:
            if not said:
                self._process.kill()
            self._process.wait(START_SECONDS)
            code = self._collect()
            raise AssertionError(f"the server ended with {code}: {self.log_path.read_text()[-4000:]}")
        self.address = match.group(1)
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """As `kill -9`: the process has no chance to do anything."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        self._collect()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal and does not wait for what it does."""
        assert self._process is not None
        self._process.send_signal(number)

    def terminate(self) -> int:
        """As SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Waits for the process to end by itself; returns its exit code."""
        assert self._process is not None
        self._process.wait(seconds)
        return self._collect()

    def _collect(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        if process.stdout is not None:
            process.stdout.close()
        if self._log is not None:
            self._log.close()
        return int(process.returncode)

    def close(self) -> None:
        """Ends whatever is left."""
        if self._process is not None:
            self.kill()

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.address)

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
