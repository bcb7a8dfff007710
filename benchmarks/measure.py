"""What every measurement shares: a server in a process of its own, a load of runs, and a table of results."""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Served:
    """A server process under measurement; `port` is on the loopback address."""

    pid: int
    port: int

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Load:
    """How long a load of runs took, and each run's own time, both in seconds."""

    seconds: float
    latencies: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One measured load; `cpu_seconds` is the server process's, user and system, all threads."""

    label: str
    concurrency: int
    load: Load
    cpu_seconds: float
    commits: int

    @property
    def runs_per_second(self) -> float:
        return len(self.load.latencies) / self.load.seconds

    @property
    def commits_per_second(self) -> float:
        return self.commits / self.load.seconds

    @property
    def cpu_ms_per_run(self) -> float:
        return self.cpu_seconds * 1000 / len(self.load.latencies)

    def latency_ms(self, fraction: float) -> float:
        return percentile(self.load.latencies, fraction) * 1000


@asynccontextmanager
async def serving(*command: str) -> AsyncIterator[Served]:
    """Runs `python -m command...`, whose first line of output is its port, and ends it with SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        if not line.strip().isdigit():
            raise RuntimeError(f"`{' '.join(command)}` ended or wrote {line!r} instead of its port")
        yield Served(pid=process.pid, port=int(line))
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


async def drive(
    run: Callable[[], Awaitable[None]], *, concurrency: int, runs: int, seconds: float = float("inf")
) -> Load:
    """Keeps `concurrency` runs going until `runs` were started or `seconds` passed; waits for the last."""
    latencies: list[float] = []
    tickets = iter(range(runs))
    begin = time.perf_counter()

    async def worker() -> None:
        for _ in tickets:
            start = time.perf_counter()
            await run()
            end = time.perf_counter()
            latencies.append(end - start)
            if end - begin >= seconds:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, runs)):
            group.create_task(worker())
    return Load(seconds=time.perf_counter() - begin, latencies=tuple(latencies))


def cpu_seconds(pid: int) -> float:
    """CPU time a live process has used so far, in steps of one clock tick (10 ms as a rule); Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def sync_ms(directory: Path, *, writes: int = 200) -> float:
    """The median time the disk under `directory` takes to make an appended page durable, by its own word."""
    with tempfile.TemporaryFile(dir=directory) as file:
        times: list[float] = []
        for _ in range(writes):
            os.write(file.fileno(), bytes(4096))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least `fraction` of all values do not exceed."""
    ordered = sorted(values)
    rank = -int(-fraction * len(ordered) // 1)
    return ordered[max(rank, 1) - 1]


def median_result(results: Sequence[Result]) -> Result:
    """The result whose throughput is the (lower) median of several rounds."""
    middle = statistics.median_low(result.runs_per_second for result in results)
    return next(result for result in results if result.runs_per_second == middle)


HEADERS = ("", "c", "runs", "runs/s", "p50 ms", "p99 ms", "server CPU ms/run", "commits/s")


def row(result: Result) -> tuple[str, ...]:
    """A result as the cells under `HEADERS`."""
    return (
        result.label,
        str(result.concurrency),
        str(len(result.load.latencies)),
        f"{result.runs_per_second:.1f}",
        f"{result.latency_ms(0.50):.2f}",
        f"{result.latency_ms(0.99):.2f}",
        f"{result.cpu_ms_per_run:.2f}",
        f"{result.commits_per_second:.0f}",
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in (headers, *rows)) for i in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(w) for cell, w in rest)]) + " |"

    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([line(headers), rule, *map(line, rows)])


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main` on uvloop where it is installed, as the server does."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
