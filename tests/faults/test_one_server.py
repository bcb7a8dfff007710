"""One server per database file, and a second signal that does not wait."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.scripts import script
from tests.faults.site import AGENT, Site, eventually
from tests.server_process import ServerProcess
from treadle import TreadleError

ROOT = Path(__file__).parents[2]
REFUSED_SECONDS = 30
TERMINATED = 128 + signal.SIGTERM


async def refused(db: Path, address: str) -> str:
    """What a server says that cannot serve; it must end by itself."""
    command = [sys.executable, "-m", "treadle_server", "--db", str(db), "--listen", address]
    ran = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=REFUSED_SECONDS, cwd=ROOT
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    return ran.stderr


async def test_a_second_server_on_the_same_file_is_refused_and_the_first_goes_on(site: Site) -> None:
    await site.start()

    message = await refused(site.db, "127.0.0.1:0")

    assert f"{site.db} is served by process {site.server.pid}" in message
    assert "--take-over" in message
    async with site.client() as client:
        events = [event async for event in client.stream(AGENT, data=script("first", [["save"]]))]
    assert events[-1].thread_ended.output.text == "done after save first/1/1"
    await site.restart()


async def test_a_server_whose_port_is_taken_says_so_and_leaves_its_file(site: Site, tmp_path: Path) -> None:
    await site.start()

    message = await refused(tmp_path / "other.db", site.server.address)

    assert site.server.address in message
    with ServerProcess(tmp_path / "other.db") as other:
        other.start()


async def test_a_second_sigterm_ends_the_server_at_once(tmp_path: Path, prepared: Path) -> None:
    async with Site(tmp_path / "slow", prepared=prepared, TREADLE_DRAIN_SECONDS="600") as site:
        await site.start()
        async with site.client() as client, site.client(timeout=0.2) as prober:
            body = script("held", [["send"]], more={"send": {"gate": "never"}})
            held = await client.create_thread(AGENT, data=body)
            await eventually(lambda: len(site.ledger.lines()) == 1)
            site.server.signal(signal.SIGTERM)

            async def draining() -> bool:
                try:
                    await prober.get_server_info()
                except TreadleError as refused:
                    return refused.reason == "DRAINING"
                return False

            await eventually(draining)
            assert site.server.running
            began = time.monotonic()
            site.server.signal(signal.SIGTERM)

            assert await site.ended() == TERMINATED
            assert time.monotonic() - began < 5
            await site.start()
            async for _ in client.watch(held.name):
                pass
            assert len(site.ledger.lines()) == 1
