"""The commands that people begin with."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

TREADLE = Path(sys.executable).with_name("treadle")


def test_the_demo_survives_the_kill_of_its_server() -> None:
    shown = subprocess.run([TREADLE, "demo"], capture_output=True, text=True, timeout=90, check=False)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    before, killed, after = shown.stdout.partition("kill -9 of the server")
    assert killed
    assert "calculator" in before
    assert "calculator" in after
    assert "14.4" in after
    assert "COMPLETED" in after
    iterations = re.findall(r"^Iteration (\d+)", shown.stdout, re.MULTILINE)
    assert len(set(iterations)) >= 4


async def test_serve_refuses_an_unsafe_address(tmp_path: Path) -> None:
    command = [TREADLE, "serve", "--listen", "0.0.0.0:0", "--db", str(tmp_path / "x.db")]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)

    async with asyncio.timeout(30):
        _, errors = await process.communicate()

    assert process.returncode == 2
    assert b"not loopback" in errors
    assert not (tmp_path / "x.db").exists()
