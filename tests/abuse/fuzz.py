"""Throws requests at a real server process: `python -m tests.abuse.fuzz --requests 1000000 --seed 1`.

Every method gets bytes that are no message, damaged messages, and messages whose fields are plausible or
hostile. No answer may be INTERNAL, UNKNOWN or DATA_LOSS, none may fail to come, the server must stay alive
and its memory flat. Streams are opened and left. A worker process has one event loop and many calls under
way; the first process watches the server.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from tests.abuse.hostile import SCRIPT, Ask, Known, Requests
from tests.abuse.observed import MIB, faults_in, resident_bytes
from tests.server_process import ServerProcess
from treadle import Client

ANSWER_SECONDS = 60.0
STREAM_SECONDS = 2.0
WAITING = frozenset({"ExecuteAgent"})
GROWTH_BYTES_MAX = 64 * MIB
WARM_UP = 0.25
"""Part of the requests after which memory must stay where it is."""
REPORT_EVERY = 1_000
FORBIDDEN = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "CANCELLED", "HANG"})
ENVIRONMENT = {
    "TREADLE_RUNNING_THREADS_MAX": "50",
    "TREADLE_TENANT_RUNNING_THREADS_MAX": "50",
    "TREADLE_TENANT_PENDING_THREADS_MAX": "200",
}
_EXAMPLES_MAX = 20
_NAMES = {
    "treadle.dev/Agent": ["agents/plain", "agents/plain", "agents/tooled"],
    "treadle.dev/AgentVersion": ["agents/plain/versions/1", "agents/tooled/versions/1"],
    "treadle.dev/Tenant": ["tenants/default", "tenants/other"],
    "treadle.dev/ApiKey": ["tenants/other/apiKeys/first"],
    "treadle.dev/ToolGroup": ["toolGroups/builtin"],
    "treadle.dev/MemoryNamespace": ["memories/a", "memories/-"],
    "treadle.dev/Memory": ["memories/a/items/k", "memories/a/items/l"],
}


@dataclass(slots=True)
class Outcome:
    """What came of a run so far."""

    statuses: Counter[str] = field(default_factory=Counter)
    """By method and status, `GetAgent NOT_FOUND`."""
    examples: list[dict[str, str]] = field(default_factory=list)
    """Requests that were answered as none may be."""
    resident: list[int] = field(default_factory=list)
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    alive: bool = True

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    def by_status(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for key, count in self.statuses.items():
            found[key.split()[1]] += count
        return dict(found.most_common())

    def growth(self) -> int:
        """Bytes from the end of the warm-up to the end."""
        if not self.resident:
            return 0
        return self.resident[-1] - self.resident[int(len(self.resident) * WARM_UP)]

    def problems(self) -> list[str]:
        """Why the run has failed; empty when it has not."""
        found = [f"{count} x {key}" for key, count in self.statuses.items() if key.split()[1] in FORBIDDEN]
        if not self.alive:
            found.append("the server has ended")
        if self.faults:
            found.append(f"{len(self.faults)} faults in the server's log, the first: {self.faults[0]}")
        if self.growth() > GROWTH_BYTES_MAX:
            found.append(f"the server has grown by {self.growth() / MIB:.0f} MiB after its warm-up")
        if not any(key.endswith(" OK") for key in self.statuses):
            found.append("not one request was answered with OK")
        return found


class Caller:
    """Sends requests and judges what comes back."""

    def __init__(self, channel: grpc.aio.Channel, requests: Requests, known: Known, seed: int) -> None:
        self._channel = channel
        self._requests = requests
        self._known = known
        self._chance = random.Random(seed)
        self._calls: dict[str, Any] = {}
        self.statuses: Counter[str] = Counter()
        self.examples: list[dict[str, str]] = []

    async def one(self) -> None:
        ask = self._requests.next()
        try:
            status, details = await asyncio.wait_for(self._send(ask), 2 * ANSWER_SECONDS), ""
        except grpc.aio.AioRpcError as error:
            status, details = error.code().name, error.details() or ""
        except TimeoutError:
            status, details = "HANG", "not even the deadline ended it"
        if status == "DEADLINE_EXCEEDED" and not self._may_last(ask):
            status = "HANG"
        self.statuses[f"{ask.method.name} {status}"] += 1
        if status in FORBIDDEN and len(self.examples) < _EXAMPLES_MAX:
            self.examples.append(
                {"path": ask.path, "status": status, "details": details, "hex": ask.data[:4_000].hex()}
            )

    def _may_last(self, ask: Ask) -> bool:
        return ask.method.server_streaming or ask.method.name in WAITING

    async def _send(self, ask: Ask) -> str:
        call: Any = self._calls.get(ask.path)
        if call is None:
            kind: Any = (
                self._channel.unary_stream if ask.method.server_streaming else self._channel.unary_unary
            )
            call = self._calls[ask.path] = kind(ask.path)
        metadata = self._metadata()
        if ask.method.server_streaming:
            return await self._look_in(call(ask.data, timeout=STREAM_SECONDS, metadata=metadata))
        seconds = STREAM_SECONDS if self._may_last(ask) else ANSWER_SECONDS
        answer: bytes = await call(ask.data, timeout=seconds, metadata=metadata)
        if self._chance.random() < 0.3:
            self._learn(ask, answer)
        return "OK"

    async def _look_in(self, stream: Any) -> str:
        """Takes some messages of a stream and leaves it, most often before its end."""
        try:
            for _ in range(self._chance.randrange(4)):
                if await asyncio.wait_for(stream.read(), 0.05) is grpc.aio.EOF:
                    return "OK"
        except TimeoutError:
            return "LEFT"
        except asyncio.CancelledError:
            return "LEFT"
        finally:
            stream.cancel()
        return "LEFT"

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        lot = self._chance.random()
        if lot < 0.9:
            return ()
        if lot < 0.94:
            return (("treadle-tenant", "other"),)
        if lot < 0.96:
            return (("treadle-tenant", self._chance.choice(("nobody", "", "UPPER", "x" * 300))),)
        secret = self._known.one("secret", self._chance) or "trdl_0011223344556677_x"
        return (("authorization", f"Bearer {secret}" if lot < 0.99 else secret),)

    def _learn(self, ask: Ask, answer: bytes) -> None:
        try:
            message = GetMessageClass(ask.method.output_type).FromString(answer)
        except DecodeError as error:
            raise AssertionError(f"{ask.path} answered what is no message") from error
        self._known.learn(message)


async def prepare(address: str) -> None:
    """What plausible requests are about."""
    async with Client(address, api_key="") as client:
        model = "scripted:" + json.dumps(SCRIPT)
        await client.create_agent("plain", model=model)
        await client.create_agent("tooled", model="scripted:", tool_groups=["toolGroups/builtin"])
        await client.create_api_key("other", api_key_id="first", principal="first")


async def work(address: str, *, requests: int, seed: int, in_flight: int) -> None:
    """One worker: a line of JSON on standard output for every so many answers."""
    known = Known(_NAMES)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 * MIB))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        caller = Caller(channel, Requests(seed, known), known, seed)
        tickets = iter(range(1, requests + 1))

        async def keep_calling() -> None:
            for ticket in tickets:
                await caller.one()
                if ticket % REPORT_EVERY == 0 or ticket == requests:
                    _tell(caller)

        await asyncio.gather(*(keep_calling() for _ in range(in_flight)))
        _tell(caller)


def _tell(caller: Caller) -> None:
    print(json.dumps({"statuses": caller.statuses, "examples": caller.examples}), flush=True)
    caller.statuses, caller.examples = Counter(), []


async def run(
    server: ServerProcess,
    *,
    requests: int,
    seed: int,
    workers: int = 2,
    in_flight: int = 48,
    log: bool = False,
) -> Outcome:
    """Sends so many requests to a started server; returns what came of them."""
    await prepare(server.address)
    outcome, began = Outcome(), time.monotonic()
    share = -(-requests // workers)
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.abuse.fuzz", "--worker", server.address),
            *("--requests", str(share), "--seed", str(seed * 1_000 + number), "--in-flight", str(in_flight)),
            stdout=asyncio.subprocess.PIPE,
            limit=16 * MIB,
        )
        for number in range(workers)
    ]
    try:
        await asyncio.gather(*(_collect(process, server, outcome, log) for process in processes))
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
    outcome.seconds = time.monotonic() - began
    outcome.alive = server.running
    outcome.faults = faults_in(server.log_path)
    if any(process.returncode for process in processes):
        outcome.faults.append("a worker has failed")
    return outcome


async def _collect(process: Any, server: ServerProcess, outcome: Outcome, log: bool) -> None:
    async for line in process.stdout:
        said = json.loads(line)
        outcome.statuses.update(said["statuses"])
        outcome.examples.extend(said["examples"])
        if not server.running:
            outcome.alive = False
            return
        outcome.resident.append(resident_bytes(server.pid))
        if log:
            print(f"{outcome.requests:>9} requests  {outcome.resident[-1] / MIB:6.1f} MiB", flush=True)
    await process.wait()  # to kill one that is just ending would take its code from it


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.abuse.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=48, help="calls of one worker at one time")
    parser.add_argument("--worker", metavar="ADDRESS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(
            work(options.worker, requests=options.requests, seed=options.seed, in_flight=options.in_flight)
        )
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as folder,
        ServerProcess(Path(folder, "treadle.db"), environment=ENVIRONMENT) as server,
    ):
        outcome = asyncio.run(
            run(
                server.start(),
                requests=options.requests,
                seed=options.seed,
                workers=options.workers,
                in_flight=options.in_flight,
                log=True,
            )
        )
        return _report(outcome)


def _report(outcome: Outcome) -> int:
    print(f"{outcome.requests} requests in {outcome.seconds:.0f} s, by status: {outcome.by_status()}")
    print(f"growth after the warm-up: {outcome.growth() / MIB:.1f} MiB")
    for example in outcome.examples:
        print(json.dumps(example))
    for fault in outcome.faults[:_EXAMPLES_MAX]:
        print(fault)
    problems = outcome.problems()
    print("\n".join(problems) or "no fault was found")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
