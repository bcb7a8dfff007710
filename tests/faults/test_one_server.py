# ruff: noqa: ASYNC240 - the files are small
"""One server per database file, files that no server takes, exit codes, and a second signal."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.scripts import script
from tests.faults.site import AGENT, Site
from tests.server_process import ServerProcess
from tests.waiting import eventually
from treadle import TreadleError
from treadle_server.leaving import EXIT_FENCED, EXIT_IO_ERROR, EXIT_UNUSABLE
from treadle_server.overdue import EXIT_OVERDUE

ROOT = Path(__file__).parents[2]
REFUSED_SECONDS = 30
TERMINATED = 128 + signal.SIGTERM


async def refused(db: Path, address: str, *options: str) -> str:
    """What a server says that cannot serve; it must end by itself."""
    command = [sys.executable, "-m", "treadle_server", "--db", str(db), "--listen", address, *options]
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
    assert not (tmp_path / "other.db").exists()
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


async def test_a_link_to_the_file_is_the_same_file(site: Site) -> None:
    await site.start()
    link = site.db.with_name("link.db")
    link.symlink_to(site.db)

    message = await refused(link, "127.0.0.1:0")

    assert f"{site.db} is served by process {site.server.pid}" in message


def _folder(path: Path, _: bytes) -> None:
    path.mkdir()


def _text(path: Path, _: bytes) -> None:
    path.write_bytes(b"certainly no database\n" * 1000)


def _half(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[: len(whole) // 2])


def _header(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[:50])


def _pipe(path: Path, _: bytes) -> None:
    os.mkfifo(path)


def _dangling(path: Path, _: bytes) -> None:
    path.symlink_to(path.parent / "nowhere" / "t.db")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_folder, "cannot be opened: it is a folder"),
        (_text, "cannot be opened: file is not a database"),
        (_half, "is damaged: database disk image is malformed"),
        (_header, "is damaged: database disk image is malformed"),
        (_pipe, "cannot be opened: it is not a file"),
        (_dangling, "No such file or directory"),
    ],
)
async def test_a_file_that_is_no_whole_database_is_refused_in_one_line_and_left_as_it_is(
    tmp_path: Path, prepared: Path, make: Callable[[Path, bytes], None], said: str
) -> None:
    path = tmp_path / "t.db"
    make(path, prepared.read_bytes())
    before = path.read_bytes() if path.is_file() else b""

    message = await refused(path, "127.0.0.1:0")

    assert message.startswith("treadle serve: ")
    assert message.count("\n") == 1
    assert said in message
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert {found.name for found in tmp_path.iterdir()} <= {"t.db", "t.db-lock"}


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    message = await refused(tmp_path / "nowhere" / "t.db", "127.0.0.1:0")

    assert message.endswith(f"its folder {tmp_path}/nowhere: No such file or directory\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_what_cannot_be_written_is_refused(tmp_path: Path, prepared: Path, what: str) -> None:
    if os.geteuid() == 0:
        pytest.skip("FILES THAT CANNOT BE WRITTEN ARE NOT TESTED: root can write them")
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "t.db"
    path.write_bytes(prepared.read_bytes())
    (folder if what == "folder" else path).chmod(0o500)

    message = await refused(path, "127.0.0.1:0")

    folder.chmod(0o700)
    assert "cannot be written" in message or "cannot be read and written" in message
    assert [found.name for found in folder.iterdir()] == ["t.db"]


def test_the_page_on_operations_names_every_exit_code() -> None:
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}

    assert codes == {0, EXIT_UNUSABLE, EXIT_OVERDUE, 2, EXIT_IO_ERROR, EXIT_FENCED, TERMINATED}


async def test_a_take_over_that_could_not_serve_changes_nothing(site: Site) -> None:
    await site.start()
    site.server.signal(signal.SIGSTOP)

    message = await refused(site.db, site.server.address, "--take-over")

    assert f"cannot listen on {site.server.address}: Address already in use" in message
    site.server.signal(signal.SIGCONT)
    async with site.client() as client:
        events = [event async for event in client.stream(AGENT, data=script("still", [["save"]]))]
    assert events[-1].thread_ended.output.text == "done after save still/1/1"
