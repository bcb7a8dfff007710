"""Holds a server process to its promises while it is abused."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.abuse.observed import MIB, Footprint, Witness, faults_in, open_files, resident_bytes
from tests.server_process import ServerProcess
from tests.waiting import until

P99_SECONDS_MAX = 2.0
"""Of a well-behaved caller's unary calls while others abuse the server. Wide, for machines that are busy."""
GROWTH_BYTES_MAX = 96 * MIB
"""A connection may have a thousand calls at one time, and each costs up to 50 kB."""
LOG_BYTES_MAX = 256 * 1024


class Guard:
    """Looks at a server before, during and after an abuse; fails when it did not bear it."""

    def __init__(self, server: ServerProcess, *, growth_bytes_max: int = GROWTH_BYTES_MAX) -> None:
        self.server = server
        self.witness = Witness(server.address)
        self.growth_bytes_max = growth_bytes_max
        self.witness.ask()
        self._before = Footprint.of(server)
        self._log_before = server.log_path.stat().st_size
        self._peak = self._before.resident

    @property
    def address(self) -> str:
        return self.server.address

    def during(self, abuse: Callable[[], object]) -> None:
        """Runs the abuse in a thread of its own while the witness asks; what it raises is raised here."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                abuse()
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            self.witness.ask_while(lambda: self._look() and thread.is_alive())
        finally:
            thread.join()
        if failures:
            raise failures[0]

    def _look(self) -> bool:
        self._peak = max(self._peak, resident_bytes(self.server.pid))
        return True

    def streams_end(self) -> None:
        until(lambda: self.witness.ask().statistics.stream_count == 0, what="no stream is left")

    def check(self) -> None:
        """Everything that must hold after an abuse."""
        self._look()
        self.witness.ask_while(lambda: False)
        self.streams_end()
        # The witness has a connection, and the log and readers of the store may open files late.
        until(lambda: open_files(self.server.pid) <= self._before.files + 4, what="its files are closed")
        assert self.server.running, "it has ended"
        faults = faults_in(self.server.log_path)
        assert not faults, f"{len(faults)} faults in its log, the first: {faults[0]}"
        grown = self._peak - self._before.resident
        assert grown <= self.growth_bytes_max, f"it took {grown / MIB:.0f} MiB more"
        logged = self.server.log_path.stat().st_size - self._log_before
        assert logged <= LOG_BYTES_MAX, f"it logged {logged} bytes"
        assert self.witness.p99() <= P99_SECONDS_MAX, f"p99 of the others was {self.witness.p99():.3f} s"
        print(
            f"others: {len(self.witness.latencies)} calls, p99 {self.witness.p99() * 1000:.1f} ms; "
            f"memory at most +{grown / MIB:.1f} MiB; log +{logged / 1024:.0f} KiB"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.check()
        finally:
            self.witness.close()
