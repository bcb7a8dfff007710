"""`treadle check` on files of a real server: sound, left by a kill, in use, damaged."""

import asyncio
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.server_process import ServerProcess
from treadle import Client
from treadle_server.core.events import Event, ThreadEnded
from treadle_server.ports.log import StoredRecord
from treadle_server.services.file_check import FileCheck
from treadle_server.stores.sqlite.checking import open_inspection
from treadle_server.stores.sqlite.database import open_database
from treadle_server.stores.sqlite.lock import FileUnusable
from treadle_server.wire.codec import ProtoCodec

_CHECK = "import typer; from treadle_server.cli import check; typer.run(check)"


_REFUSED = "what is wrong with its structure keeps a server from starting on it: the way back is a backup"


def _check(path: Path, *before: str) -> tuple[int, list[str]]:
    """The exit code, and what it printed. `before` stands before the command."""
    command = [*before, sys.executable, "-c", _CHECK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


async def _fill(server: ServerProcess) -> list[str]:
    """Threads that ended, and one that goes on."""
    async with Client(server.address, api_key="") as client:
        await client.create_agent("adder", model="demo:react", tool_groups=["toolGroups/builtin"])
        await client.create_agent("stuck", model='scripted:{"turns":[{"hang":true}]}')
        names = [(await client.execute("adder", "What is 6 * 7?", tags=["a"])).name for _ in range(3)]
        names.append((await client.create_thread("stuck", "Go.", session_key="s")).name)
        return names


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The file of a server that stopped, and the names of its threads."""
    with ServerProcess(tmp_path_factory.mktemp("stopped") / "t.db") as server:
        names = asyncio.run(_fill(server.start()))
        assert server.terminate() == 0
        return server.db, names


@pytest.fixture
def path(tmp_path: Path, stopped: tuple[Path, list[str]]) -> Path:
    """A copy of it."""
    return Path(shutil.copyfile(stopped[0], tmp_path / "t.db"))


@pytest.fixture
def names(stopped: tuple[Path, list[str]]) -> list[str]:
    return stopped[1]


def _digests(path: Path) -> dict[str, str]:
    return {
        ending: hashlib.sha256(Path(f"{path}{ending}").read_bytes()).hexdigest()
        for ending in ("", "-wal")
        if Path(f"{path}{ending}").exists()
    }


def test_a_file_is_sound_in_use_after_a_kill_and_after_a_stop(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "t.db") as server:
        asyncio.run(_fill(server.start()))
        in_use = _check(server.db)
        server.kill()
        left = _digests(server.db)
        killed = _check(server.db)
        untouched = _digests(server.db) == left
        server.start()
        assert server.terminate() == 0
        stopped = _check(server.db)

    for code, lines in (in_use, killed, stopped):
        assert (code, len(lines)) == (0, 1), lines
        assert "no problems; 4 threads" in lines[0]
    assert "a server has it open" in in_use[1][0]
    assert untouched
    assert "-wal" in left


def test_a_server_that_goes_on_writing_is_not_taken_for_damage(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "t.db") as server:
        found = asyncio.run(_check_while_writing(server.start()))

    for code, lines in found:
        assert (code, len(lines)) == (0, 1), lines
        assert "a server has it open" in lines[0]


async def _check_while_writing(server: ServerProcess) -> list[tuple[int, list[str]]]:
    """What checks say while threads begin, go on, are changed and deleted."""
    turn = {"calls": [{"name": "calculator", "arguments": {"expression": "6 * 7"}}], "delay_ms": 1}
    model = "scripted:" + json.dumps({"turns": [turn] * 20 + [{"text": "Done."}]})
    stopping = asyncio.Event()
    async with Client(server.address, api_key="") as client:
        await client.create_agent("busy", model=model, tool_groups=["toolGroups/builtin"])

        async def write() -> None:
            while not stopping.is_set():
                made = await client.execute("busy", "Go.", tags=["a"], labels={"of": "b"})
                await client.update_thread(made.name, tags=["b", "c"])
                if made.name[-1] in "02468":
                    await client.delete_thread(made.name)

        writers = [asyncio.ensure_future(write()) for _ in range(6)]
        found = [await asyncio.to_thread(_check, server.db) for _ in range(3)]
        stopping.set()
        await asyncio.gather(*writers)
    return found


def test_a_server_is_seen_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "t.db")
    with ServerProcess(tmp_path / "t.db") as server:
        server.start()
        code, lines = _check(link)

    assert code == 0, lines
    assert "a server has it open" in lines[0]


def test_a_folder_that_cannot_be_written_is_checked_and_left_as_it_is(tmp_path: Path) -> None:
    """In use, after a kill, after a stop. For root only without its privileges."""
    before = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    folder = tmp_path / "read-only"
    folder.mkdir()
    found = []
    with ServerProcess(folder / "t.db") as server:
        asyncio.run(_fill(server.start()))
        for end in (lambda: None, server.kill, lambda: server.start().terminate()):
            end()
            modes = {each: each.stat().st_mode for each in (*folder.iterdir(), folder)}
            for each in modes:
                each.chmod(0o500 if each.is_dir() else 0o400)
            found.append(_check(server.db, *before))
            for each in reversed(modes):
                each.chmod(modes[each])

    for code, lines in found:
        assert (code, len(lines)) == (0, 1), lines
    assert ["a server has it open" in lines[0] for _, lines in found] == [True, False, False]


_DAMAGE = {
    "an event": (
        "UPDATE events SET body = x'00' WHERE thread = 1 AND sequence = 2",
        "event 2 is not as it was",
    ),
    "a hole": ("DELETE FROM events WHERE thread = 1 AND sequence = 2", "event 2 is missing"),
    "an end": (
        "DELETE FROM events WHERE thread = 1 AND sequence ="
        " (SELECT max(sequence) FROM events WHERE thread = 1)",
        "events, its log has",
    ),
    "a row": ("UPDATE threads SET cost_micros = 7 WHERE thread = 1", "its row is not as it was written"),
    "a row that is valid and wrong": (
        "UPDATE threads SET total_tokens = total_tokens + 1, progress_sum = progress_sum + 11"
        " WHERE thread = 1",
        "its row says total_tokens",
    ),
    "a spec": ("UPDATE specs SET body = x'00'", "its spec is missing or damaged"),
    "a tag": ("DELETE FROM thread_tags WHERE thread = 1", "the tables of tags and labels"),
    "a commit": ("DELETE FROM commits WHERE thread = 1 AND first = 1", "the commits do not cover"),
}


@pytest.mark.parametrize("damage", list(_DAMAGE))
def test_damage_is_told_by_the_name_of_its_thread(path: Path, names: list[str], damage: str) -> None:
    sql, said = _DAMAGE[damage]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql)

    code, lines = _check(path)

    assert code == 1, lines
    assert any(line.startswith(f"{names[0]}: ") and said in line for line in lines), lines
    assert "; 4 threads" in lines[-1]


class _OneThatFails(ProtoCodec):
    """Makes of the end of a thread what no fold can take."""

    def decode(self, stored: StoredRecord) -> Event:
        event = super().decode(stored)
        if isinstance(event.payload, ThreadEnded):
            return replace(event, payload=replace(event.payload, stop_reason=99))  # type: ignore[arg-type]
        return event


def test_a_log_that_does_not_add_up_is_told_and_the_other_threads_are_checked(
    path: Path, names: list[str]
) -> None:
    with closing(open_inspection(path)) as inspection:
        problems = list(FileCheck(inspection, _OneThatFails()).problems())

        assert [problem.partition(":")[0] for problem in problems] == names[:3]
        assert all("does not follow from those before it" in problem for problem in problems)
        assert inspection.counts()["threads"] == 4


_ROWS = {
    "sessions": "UPDATE sessions SET active_mirror = 3",
    "agent adder": "UPDATE agents SET revision = 9 WHERE id = 'adder'",
    "agent_versions": "UPDATE agent_versions SET create_time = 1",
    "request_ids": "UPDATE request_ids SET resource = 'threads/x'",
    "commits": "UPDATE commits SET last = last + 1 WHERE position = 1",
    "meta": "UPDATE meta SET epoch = epoch + 64",
    "structure": "PRAGMA writable_schema = ON; DELETE FROM sqlite_master WHERE name = 'threads_by_agent'",
}


@pytest.mark.parametrize("where", list(_ROWS))
def test_damage_beside_the_threads_is_told_by_its_place(path: Path, where: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(_ROWS[where])

    code, lines = _check(path)

    assert code == 1, lines
    assert any(where in line for line in lines[:-1]), lines


def test_threads_that_are_gone_count_neither_as_threads_nor_as_rows(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "t.db") as server:
        names = asyncio.run(_fill(server.start()))
        assert server.terminate() == 0
        before = _check(server.db)
        asyncio.run(_delete(server.start(), names[0]))
        assert server.terminate() == 0
        after = _check(server.db)

    assert (before[0], after[0]) == (0, 0)
    assert "; 4 threads, " in before[1][0]
    assert "; 3 threads (and 1 deleted or expired), " in after[1][0]
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        of = {
            name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
            for name in tables
            if name not in ("meta", "thread_details", "thread_tags", "thread_labels")
            and not name.startswith(("sqlite_", "memory_index"))
        }
        (hidden,) = connection.execute(
            "SELECT count(*) FROM events e JOIN threads t USING (thread) WHERE t.delete_time IS NOT NULL"
        ).fetchone()
    assert f" {sum(of.values()) - 1 - hidden} rows " in after[1][0]


async def _delete(server: ServerProcess, name: str) -> None:
    async with Client(server.address, api_key="") as client:
        await client.delete_thread(name)


def _fill_bytes(table: str) -> Callable[[Path], None]:
    """The first page of a table becomes nonsense."""

    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            (page,) = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
            ).fetchone()
        _write(path, (page - 1) * 8192, b"\xff" * 64)

    return damage


def _write(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def _sql(text: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(text)

    return damage


_UNFIT: dict[str, Callable[[Path], object]] = {
    "a row of meta": _sql("UPDATE meta SET epoch = epoch + 64"),
    "no row of meta": _sql("DELETE FROM meta"),
    "the page of meta": _fill_bytes("meta"),
    "the page of threads": _fill_bytes("threads"),
    "the page of an index": _fill_bytes("threads_by_state"),
    "a table more": _sql("CREATE TABLE mine (x)"),
    "a newer schema": _sql("UPDATE meta SET schema = 999"),
    "free pages": lambda path: _write(path, 32, b"\0\0\0\5\0\0\0\3"),
    "half a file": lambda path: os.truncate(path, path.stat().st_size // 2),
    "no database": lambda path: _write(path, 0, b"no database at all"),
}


@pytest.mark.parametrize("damage", list(_UNFIT))
def test_what_keeps_a_server_from_starting_is_told_as_fully(path: Path, damage: str) -> None:
    _UNFIT[damage](path)

    code, lines = _check(path)
    with pytest.raises(FileUnusable) as refused:
        open_database(path)

    why = re.fullmatch(r".* is damaged: (.*); `treadle check .* says what is lost, .*", str(refused.value))
    said = why[1] if why else str(refused.value).partition(": ")[2] or str(refused.value)
    assert code == 1, lines
    assert any(said in line for line in lines), (said, lines)
    assert not why or any("backup" in line for line in lines)
    assert not any("`treadle check" in line for line in lines)


def test_a_log_that_would_be_dropped_is_told_as_the_start_tells_it(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "t.db") as server:
        asyncio.run(_fill(server.start()))
        server.kill()
    size = Path(f"{server.db}-wal").stat().st_size
    copies = []
    for number, (place, data) in enumerate([(0, b"\xff" * 30), (size // 2, b"\xff" * 99)]):
        copies.append(tmp_path / f"{number}" / "t.db")
        copies[-1].parent.mkdir()
        for ending in ("", "-wal", "-lock"):
            shutil.copyfile(f"{server.db}{ending}", f"{copies[-1]}{ending}")
        _write(Path(f"{copies[-1]}-wal"), place, data)

    for copy in copies:
        code, lines = _check(copy)
        with pytest.raises(FileUnusable) as refused:
            open_database(copy)
        assert code == 1
        assert any(str(refused.value) in line for line in lines), lines


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.db"
    with closing(sqlite3.connect(theirs)) as connection:
        connection.execute("CREATE TABLE t (x)")

    missing, folder, other = _check(tmp_path / "nowhere.db"), _check(tmp_path), _check(theirs)

    assert missing == (2, [f"treadle check: {tmp_path / 'nowhere.db'} is not there"])
    assert folder == (2, [f"treadle check: {tmp_path} is no file"])
    assert other == (1, [f"treadle check: {theirs} is not a database of this program"])
    assert not (tmp_path / "nowhere.db-lock").exists()


def test_a_backup_is_checked_without_anything_beside_it(path: Path) -> None:
    assert _check(path)[0] == 0

    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_pages_that_cannot_be_read_are_told_a_line_each(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for page in range(10, len(data) // 8192, 3):
        data[page * 8192 : page * 8192 + 64] = b"\xff" * 64
    path.write_bytes(data)

    code, lines = _check(path)

    assert code == 1
    assert len(lines) > 3
    assert all(line.partition(": ")[0] for line in lines), lines
    assert lines[-2] == _REFUSED
    assert f"{len(lines) - 2} problems" in lines[-1]


def test_a_server_does_not_start_on_a_file_whose_index_is_damaged(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA writable_schema = ON;"
            "UPDATE sqlite_master SET sql = replace(sql, 'delete_time IS NULL', 'delete_time IS NOT NULL')"
            " WHERE name = 'threads_by_state'"
        )

    server = ServerProcess(path)
    with pytest.raises(AssertionError, match="the server ended with 1"):
        server.start()

    said = server.log_path.read_text().splitlines()[-1]
    assert f"{path} is damaged" in said
    assert f"`treadle check {path}` says what is lost" in said
