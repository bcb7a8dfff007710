"""A durable run of an agent beside its floor: `python -m benchmarks.durable_loop`.

A run is four tool iterations and an answer by a scripted model without latency, with FULL durability,
started and streamed to its end by one call from another process. Rounds alternate with those of
`benchmarks.floor`, so that the ratio holds though the machine's speed drifts.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from benchmarks.floor import run_floor
from benchmarks.measure import (
    HEADERS,
    Result,
    Served,
    cpu_seconds,
    drive,
    median_result,
    row,
    run_loop,
    sync_ms,
    table,
)
from treadle import Client
from treadle.v1 import thread_service_pb2

TOOL_ITERATIONS = 4
_LISTENING = re.compile(rb"listening on \S+:(\d+)")
_METHOD = "/treadle.v1.ThreadService/ExecuteAgentStream"


def script() -> str:
    """The model of the benchmark: it calls the calculator four times, then answers."""
    call = {"name": "calculator", "arguments": {"expression": "6*7"}}
    turns: list[dict[str, object]] = [{"thought": "One more step.", "calls": [call]}] * TOOL_ITERATIONS
    return "scripted:" + json.dumps({"turns": [*turns, {"text": "It is {observation}."}]})


@asynccontextmanager
async def treadle_server(folder: Path) -> AsyncIterator[Served]:
    """A server process on a new file."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "treadle_server", "--listen", "127.0.0.1:0", "--log-level", "error"),
        *("--db", str(folder / "benchmark.db")),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        match = _LISTENING.search(await process.stdout.readline())
        if match is None:
            raise RuntimeError("the server did not start")
        yield Served(pid=process.pid, port=int(match.group(1)))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def run_treadle(concurrency: int, runs: int) -> Result:
    """One measured load on a new server."""
    with tempfile.TemporaryDirectory() as folder:
        async with treadle_server(Path(folder)) as served:
            async with Client(served.target) as client:
                await client.create_agent("bench", model=script(), tool_groups=["toolGroups/builtin"])
                before = await client.get_server_info()
            async with grpc.aio.insecure_channel(served.target) as channel:
                run = _runner(channel)
                await drive(run, concurrency=concurrency, runs=2 * concurrency)
                cpu = cpu_seconds(served.pid)
                load = await drive(run, concurrency=concurrency, runs=runs)
                cpu = cpu_seconds(served.pid) - cpu
            async with Client(served.target) as client:
                after = await client.get_server_info()
    commits = after.statistics.commit_count - before.statistics.commit_count
    return Result("treadle", concurrency, load, cpu, commits)


def _runner(channel: grpc.aio.Channel):  # type: ignore[no-untyped-def]
    request = thread_service_pb2.ExecuteAgentStreamRequest()
    request.thread.agent = "agents/bench"
    request.thread.input.text = "Go."
    data = request.SerializeToString()
    stream = channel.unary_stream(_METHOD)

    async def run() -> None:
        last = b""
        async for response in stream(data):
            last = response
        events = thread_service_pb2.WatchThreadResponse.FromString(last).events
        if events[-1].thread_ended.stop_reason != 1:
            raise RuntimeError(f"a run ended with {events[-1]}")

    return run


async def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(f"fdatasync of one page: {sync_ms(Path(folder)):.3f} ms\n")
    rows, ratios = [], []
    for concurrency in arguments.concurrency:
        runs = max(arguments.runs, 4 * concurrency) if concurrency > 1 else arguments.runs // 4
        floors, loops = [], []
        for _ in range(arguments.rounds):
            floors.append(await run_floor(concurrency, runs))
            loops.append(await run_treadle(concurrency, runs))
        rows += [row(median_result(floors)), row(median_result(loops))]
        pairs = list(zip(loops, floors, strict=True))
        throughput = statistics.median(a.runs_per_second / b.runs_per_second for a, b in pairs)
        cpu = statistics.median(a.cpu_ms_per_run / b.cpu_ms_per_run for a, b in pairs)
        ratios.append((str(concurrency), f"{throughput:.2f}", f"{cpu:.1f}"))
    print(table(HEADERS, rows))
    print("\n" + table(("c", "throughput / floor", "CPU / floor"), ratios))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--runs", type=int, default=2000, help="runs a round; a quarter at c=1")
    parser.add_argument("--rounds", type=int, default=3)
    run_loop(main(parser.parse_args()))
