"""Agents that call agents, memories and busy sessions by commands, against a real server process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.client.test_commands import finished
from tests.server_process import ServerProcess
from treadle import Client, MemoryRule, SyncClient, Thread

CALL = {"calls": [{"name": "expert", "arguments": {"input": "Six times seven?"}}]}
BOSS = "scripted:" + json.dumps({"turns": [CALL, {"text": "It says {observation}."}]})


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "treadle.db") as running:
        yield running.start()


@pytest_asyncio.fixture
async def client(process: ServerProcess) -> AsyncIterator[Client]:
    async with Client(process.address) as made:
        yield made


def playing(*turns: dict[str, Any]) -> str:
    return "scripted:" + json.dumps({"turns": turns})


async def make_boss(process: ServerProcess, client: Client, *turns: dict[str, Any]) -> None:
    """A boss whose one subagent plays these turns."""
    await client.create_agent("expert", model=playing(*turns))
    made = await finished(
        process, "agents", "create", "--id", "boss", "--model", BOSS, "--subagent", "expert"
    )
    assert made.out == "agents/boss\n"


async def test_a_thread_is_watched_with_those_that_it_makes(process: ServerProcess, client: Client) -> None:
    await make_boss(process, client, {"text": "42"})
    await client.execute("boss", "Ask.", thread_id="t")

    alone = await finished(process, "watch", "t")
    shown = await finished(process, "watch", "t", "--children")
    lines = await finished(process, "watch", "t", "--children", "--json")

    events = [json.loads(line) for line in lines.out.splitlines()]
    (child,) = {event["thread"] for event in events} - {"threads/t"}
    assert (alone.code, shown.code, lines.code) == (0, 0, 0)
    assert "> Six times seven?" not in alone.out
    assert "> Six times seven?" in shown.out
    assert f"\n{child}  agents/expert/versions/1" in shown.out
    assert "\nthreads/t\n" in shown.out  # whose turn it is again
    assert shown.out.rstrip().splitlines()[-1].startswith("COMPLETED (FINISHED), 2 iterations, 1 tool call")
    for thread in ("threads/t", child):
        numbers = [int(event["sequence"]) for event in events if event["thread"] == thread]
        assert numbers == [*range(1, len(numbers) + 1)]


async def test_a_child_that_failed_does_not_fail_the_watch(process: ServerProcess, client: Client) -> None:
    await make_boss(process, client, {"calls": [{"name": "none", "arguments": {}}]})
    await client.execute("boss", "Ask.", thread_id="t")

    shown = await finished(process, "watch", "t", "--children")

    assert (shown.code, "FAILED (" in shown.out) == (0, True)


async def test_a_watch_of_a_tree_goes_on_after_a_cursor(process: ServerProcess, client: Client) -> None:
    await client.create_agent("expert", model=playing({"text": "42"}))
    asks = {"calls": [{"name": "ask_user", "arguments": {"question": "Now?"}}]}
    await client.create_agent(
        "boss",
        model=playing(asks, CALL, {"text": "Done."}),
        tool_groups=["toolGroups/builtin"],
        subagents=["agents/expert"],
    )
    waiting = await client.execute("boss", "Ask.", thread_id="t")
    cursor, seen = "", 0
    async with aclosing(client.watch_tree("t")) as batches, asyncio.timeout(30):
        while seen < waiting.last_sequence:
            batch = await anext(batches)
            cursor, seen = batch.cursor, batch.events[-1].sequence
    await client.send_thread_input("t", "Yes.", tool_call_id="call-1-1")

    rest = await finished(process, "watch", "t", "--children", "--after-cursor", cursor, "--json")

    events = [json.loads(line) for line in rest.out.splitlines()]
    numbers = [int(event["sequence"]) for event in events if event["thread"] == "threads/t"]
    theirs = [int(event["sequence"]) for event in events if event["thread"] != "threads/t"]
    assert rest.code == 0
    assert numbers == [*range(seen + 1, (await client.get_thread("t")).last_sequence + 1)]
    assert theirs == [*range(1, len(theirs) + 1)] != []


@pytest.mark.parametrize("options", [("--children", "--after", "3"), ("--after-cursor", "c")], ids=" ".join)
async def test_a_sequence_is_of_one_thread_and_a_cursor_of_a_tree(
    process: ServerProcess, options: tuple[str, ...]
) -> None:
    refused = await finished(process, "watch", "t", *options)

    assert (refused.code, "--after-cursor" in refused.err) == (2, True)


async def test_subagents_and_memories_are_given_and_taken_away(
    process: ServerProcess, client: Client
) -> None:
    await client.create_agent("expert", model=playing({"text": "42"}))
    options = ("--memory", "notes", "--memory", "user=user:{subject.id}:read", "--memory", "log=a:read:write")

    made = await finished(process, "agents", "create", "--id", "a", "--model", "demo:react", *options)
    given = await client.get_agent("a")
    await finished(process, "agents", "update", "a", "--subagent", "expert, agents/a")
    called = await client.get_agent("a")
    await finished(process, "agents", "update", "a", "--subagent", "", "--memory", "")
    taken = await client.get_agent("a")

    assert made.err == ""
    assert [(rule.alias, rule.namespace, rule.access) for rule in given.memory_rules] == [
        ("memory", "notes", MemoryRule.READ_WRITE),
        ("user", "user:{subject.id}", MemoryRule.READ),
        ("log", "a:read", MemoryRule.READ_WRITE),
    ]
    assert (list(called.subagents), called.memory_rules) == (
        ["agents/expert", "agents/a"],
        given.memory_rules,
    )
    assert (list(taken.subagents), list(taken.memory_rules)) == ([], [])


async def test_a_run_meets_a_busy_session_as_it_is_told_to(process: ServerProcess, client: Client) -> None:
    asks = {"calls": [{"name": "ask_user", "arguments": {"question": "Which?"}}]}
    await client.create_agent(
        "asker", model=playing(asks, {"text": "Done."}), tool_groups=["toolGroups/builtin"]
    )
    first = await client.execute("asker", "Go.", session_key="room", thread_id="first")
    assert first.state == Thread.WAITING_INPUT
    run = ("run", "asker", "More.", "--session-key", "room", "--busy-policy")

    refused = await finished(process, *run, "reject")
    steered = await finished(process, *run, "steer")
    stopped = await finished(process, *run, "interrupt", "--json")

    assert (refused.code, "SESSION_BUSY" in refused.err) == (1, True)
    assert "threads/first is WAITING_INPUT" in steered.err
    assert json.loads(stopped.out)["name"] != "threads/first"
    assert (await client.get_thread("first")).state == Thread.CANCELLED


@pytest.mark.parametrize("method", ["stream", "execute", "create_thread"])
def test_an_argument_that_no_new_thread_takes_is_named(method: str) -> None:
    with SyncClient("127.0.0.1:1") as client:
        with pytest.raises(TypeError, match="include_children; watch_tree follows a thread and its children"):
            getattr(client, method)("boss", "Ask.", include_children=True)
        with pytest.raises(TypeError, match=r"takes no argument colour, size$"):
            getattr(client, method)("boss", "Ask.", size=1, colour="red")
