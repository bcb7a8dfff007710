"""Memories by both clients and on the command line, against a real server process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client.conftest import Handle
from tests.client.test_commands import finished
from tests.client.test_real_server import handle, process
from tests.server_process import ServerProcess
from treadle import Aborted, MemoryRule, NotFound

__all__ = ["handle", "process"]


async def test_memories_are_put_read_found_and_deleted(handle: Handle) -> None:
    made = await handle.answer("put_memory", "user:7", "colour", text="Likes green.")
    other = await handle.answer("put_memory", "memories/user:8/items/colour", text="Likes blue.")

    assert made.name == "memories/user:7/items/colour"
    assert await handle.answer("get_memory", "user:7", "colour") == made
    assert await handle.answer("get_memory", made.name) == made
    assert await handle.items("list_memories") == [other, made]
    assert await handle.items("list_memories", "user:7", page_size=1) == [made]
    assert await handle.items("search_memories", "likes", page_size=1) == [other, made]
    assert await handle.items("search_memories", "green", "user:8") == []
    with pytest.raises(Aborted):
        await handle.answer("put_memory", "user:7", "colour", text="x", etag="0")
    await handle.answer("delete_memory", "user:7", "colour", etag=made.etag)
    with pytest.raises(NotFound):
        await handle.answer("get_memory", "user:7", "colour")


async def test_an_agent_is_given_memories(handle: Handle) -> None:
    rules = [MemoryRule(namespace="team", access=MemoryRule.READ)]

    agent = await handle.answer("create_agent", "helper", model="demo:react", memory_rules=rules)

    assert [(rule.namespace, rule.access) for rule in agent.memory_rules] == [("team", MemoryRule.READ)]


async def test_the_command_line_keeps_and_finds_memories(process: ServerProcess, tmp_path: Path) -> None:
    put = await finished(process, "memories", "put", "user:7", "colour", "Likes green.")
    piped = await finished(process, "memories", "put", "user:7", "poem", "-", given="A rose\nis a rose.\n")
    again = await finished(process, "memories", "put", "--new", "user:7", "colour", "x")
    got = await finished(process, "memories", "get", "user:7", "poem")
    listed = await finished(process, "memories", "list", "--namespace", "user:7")
    found = await finished(process, "memories", "search", "green", "--json")
    deleted = await finished(process, "memories", "delete", "memories/user:7/items/colour")
    gone = await finished(process, "memories", "get", "user:7", "colour")

    assert (put.code, put.out) == (0, "memories/user:7/items/colour\n")
    assert (piped.code, got.out) == (0, "A rose\nis a rose.\n\n")
    assert again.code == 1
    assert "has changed since it was read" in again.err
    rows = [line.split("\t") for line in listed.out.splitlines()]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("user:7", "poem", "A rose is a rose."),
        ("user:7", "colour", "Likes green."),
    ]
    assert json.loads(found.out)["text"] == "Likes green."
    assert (deleted.code, deleted.out) == (0, "")
    assert (gone.code, "does not exist" in gone.err) == (1, True)
