"""`treadle demo`: an agent at work, whose server is killed in the middle and whose run goes on."""

import asyncio
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

from treadle import Client, Thread, ThreadEvent
from treadle.view import LiveView

QUESTION = (
    "Alice buys 3 notebooks at 4.50 each and 2 pens at 1.25 each. She gets a 10% discount on the total. "
    "How much does she pay?"
)
"""Needs several tool iterations, each of which builds on what the one before observed."""
MODEL = "demo:react?delay_ms=25"
KILL_AFTER_TOOL_CALLS = 2
STOP_SECONDS = 15.0
_LISTENING = re.compile(rb"listening on (\S+)")


class DemoServer:
    """A real server process on a temporary file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self.address = "127.0.0.1:0"

    async def start(self) -> None:
        """Returns once it listens; after a kill it takes the same address and file again."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TREADLE_")}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "treadle_server"),
            *("--listen", self.address, "--db", str(self._folder / "demo.db"), "--log-level", "error"),
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdout is not None
        match = _LISTENING.search(await self._process.stdout.readline())
        if match is None:
            raise RuntimeError("the demo's server did not start")
        self.address = match.group(1).decode()

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            await self.kill()


async def run() -> int:
    """Exit code 0 when the thread completed though its server was killed."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="treadle-demo-") as folder:
        server = DemoServer(Path(folder))
        try:
            await server.start()
            return await _show(server)
        except asyncio.CancelledError:
            return 128 + signal.SIGTERM
        finally:
            await server.stop()


async def _show(server: DemoServer) -> int:
    _say(f"A server runs on {server.address}. The agent thinks by rules, so it needs no key.")
    _say(f"Question: {QUESTION}\n")
    async with Client(server.address, api_key="") as client:
        await client.create_agent("helper", model=MODEL, tool_groups=["toolGroups/builtin"])
        tool_calls, last = 0, None
        with LiveView() as view:
            async for event in client.stream("helper", QUESTION, include_deltas=True):
                view.show(event)
                last = event
                if event.WhichOneof("payload") != "tool_call_completed":
                    continue
                tool_calls += 1
                if tool_calls == KILL_AFTER_TOOL_CALLS:
                    await _kill_and_restart(server, event)
    killed = tool_calls >= KILL_AFTER_TOOL_CALLS
    if last is None or not killed or last.thread_ended.state != Thread.COMPLETED:
        return 1
    _say(f"\nThe run went on where it was: {last.sequence} events, numbered without a hole.")
    return 0


async def _kill_and_restart(server: DemoServer, event: ThreadEvent) -> None:
    _say(f"\n  kill -9 of the server, after event {event.sequence} ...")
    await server.kill()
    await server.start()
    _say("  ... and a new one on the same file. The stream resumes after that event.\n")


def _say(text: str) -> None:
    print(text, flush=True)
