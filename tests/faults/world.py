"""`python -m tests.faults.world --folder F`: the world outside, a process that no kill of the server hits.

It plays the tools (`world_tools`) and the model (`world_model`) on two loopback ports, and writes to the
ledger what really happened. It says where it listens, and ends when its standard input does.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from tests.faults.ledger import ANSWERED, BEGUN, DONE, Ledger, Line
from tests.faults.world_model import ModelServer
from tests.faults.world_tools import ToolCalls

LOOK_SECONDS = 0.02


class Gates:
    """Files that calls wait for: a test opens a gate by making its file. One look serves all that wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looks: dict[str, asyncio.Task[None]] = {}

    async def passed(self, name: str) -> None:
        look = self._looks.get(name)
        if look is None:
            look = self._looks[name] = asyncio.create_task(self._look(self._folder / name))
        await asyncio.shield(look)

    async def _look(self, path: Path) -> None:
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - a test's sign to another process
            await asyncio.sleep(LOOK_SECONDS)


class Diary:
    """The ledger as the world writes it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._answers = 0

    def begun(self, line: Line) -> None:
        self._write(line, BEGUN, line.micros)

    def done(self, line: Line) -> None:
        self._write(line, DONE)

    def answered(self, line: Line) -> None:
        self._write(line, ANSWERED)

    def answer_number(self) -> int:
        """Another one for every answer of the model."""
        self._answers += 1
        return self._answers

    def _write(self, line: Line, step: str, micros: int = 0) -> None:
        at = micros or time.monotonic_ns() // 1000
        self._ledger.append(
            Line(line.tool, line.note, line.call_id, line.key, line.attempt, step, at, line.tokens)
        )


async def play(folder: Path) -> None:
    diary, gates = Diary(Ledger(folder / "ledger")), Gates(folder / "gates")
    tools = await asyncio.start_server(ToolCalls(diary, gates).connected, "127.0.0.1", 0)
    model = await asyncio.start_server(ModelServer(diary, gates).connected, "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (tools, model)]
    print(f"tools 127.0.0.1:{ports[0]} model http://127.0.0.1:{ports[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    asyncio.run(play(parser.parse_args().folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
