"""The world as a test holds it: a process of its own, started once and ended with the test."""

import re
import select
import subprocess
import sys
from pathlib import Path

from tests.faults.ledger import Ledger

START_SECONDS = 20.0
STOP_SECONDS = 10.0
_LISTENING = re.compile(r"tools (\S+) model (\S+)")
_ROOT = Path(__file__).parents[2]


class WorldProcess:
    """`folder` holds its ledger and its gates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        (folder / "gates").mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(folder / "ledger")
        self.tools = ""
        """Address of the tools; empty until it runs."""
        self.model_uri = ""

    def start(self) -> None:
        """Returns once it listens."""
        command = [sys.executable, "-m", "tests.faults.world", "--folder", str(self._folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
        )
        assert self._process.stdout is not None
        said, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        match = _LISTENING.search(self._process.stdout.readline()) if said else None
        assert match is not None, "the world did not begin"
        self.tools, self.model_uri = match[1], match[2]

    def open_gate(self, name: str) -> None:
        (self._folder / "gates" / name).touch()

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
