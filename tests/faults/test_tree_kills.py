"""A server killed while agents call agents: every child is made once, and answers its parent once."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.faults.site import Site
from treadle import Client, Thread, ThreadEvent

SIGKILLED = -9
ROOT = "threads/tree"
DONE = {"text": "Done."}
HANG = {"hang": True}
TREE = 7
"""Threads: a boss, two experts, and two workers of each."""


def played(*turns: dict[str, Any]) -> str:
    return "scripted:" + json.dumps({"turns": turns})


def calling(agent: str) -> dict[str, Any]:
    call = {"name": agent, "arguments": {"input": "Do your part."}}
    return {"text": "I ask.", "calls": [call, call]}


async def make_trees(client: Client) -> None:
    """Agents that call agents that call agents; the last ones answer, or do not."""
    for kind, last in (("quick", DONE), ("endless", HANG)):
        worker, expert = f"{kind}-worker", f"{kind}-expert"
        await client.create_agent(worker, model=played(last))
        turns = played(calling(worker.replace("-", "_")), DONE)
        await client.create_agent(expert, model=turns, subagents=[f"agents/{worker}"])
        turns = played(calling(expert.replace("-", "_")), DONE)
        await client.create_agent(kind, model=turns, subagents=[f"agents/{expert}"])


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the agents; copied for every server."""

    async def prepare(folder: Path) -> Path:
        async with Site(folder) as site:
            await site.start()
            async with site.client() as client:
                await make_trees(client)
            assert await asyncio.to_thread(site.server.terminate) == 0
            return site.db

    return asyncio.run(prepare(tmp_path_factory.mktemp("trees") / "site"))


async def logs_of(client: Client) -> dict[str, list[ThreadEvent]]:
    """Every thread's whole log, once all have ended."""
    logs: dict[str, list[ThreadEvent]] = {}
    names = [thread.name async for thread in client.list_threads()]
    for name in names:
        logs[name] = [event async for event in client.watch(name)]
    return logs


def check_tree(logs: dict[str, list[ThreadEvent]]) -> None:
    """Each log is whole, and parents and children say the same of each other."""
    called: list[str] = []
    for name, log in logs.items():
        assert [event.sequence for event in log] == list(range(1, len(log) + 1)), name
        assert [event.HasField("thread_ended") for event in log].count(True) == 1, name
        assert log[-1].HasField("thread_ended"), name
        children = [event.child_thread_started for event in log if event.HasField("child_thread_started")]
        answers = [event.child_thread_ended for event in log if event.HasField("child_thread_ended")]
        results = [event.tool_call_completed for event in log if event.HasField("tool_call_completed")]
        assert len({result.tool_call_id for result in results}) == len(results), name
        assert {answer.child_thread for answer in answers} <= {child.child_thread for child in children}
        assert len(answers) == len({answer.tool_call_id for answer in answers}), name
        for answer in answers:
            assert logs[answer.child_thread][-1].thread_ended.state == answer.state
        for child in children:
            created = logs[child.child_thread][0].thread_created
            assert (created.parent_thread, created.parent_call.tool_call_id) == (name, child.tool_call_id)
        called += [child.child_thread for child in children]
    assert sorted(called) == sorted(set(logs) - {ROOT})


def left_in(db: Path, folder: Path) -> int:
    """Letters that nobody took, in a copy of the file of a stopped server."""
    copy = folder / "left.db"
    shutil.copyfile(db, copy)
    with closing(sqlite3.connect(copy)) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM mail").fetchall()
    return int(count)


FAILPOINTS = (
    *(f"{name}#{nth}" for name in ("child.before", "child.after", "mail.before") for nth in (1, 2, 4, 6)),
    *(f"commit.after#{nth}" for nth in (2, 4, 6, 8, 10, 12, 14, 16, 18, 20)),
    *(f"commit.before#{nth}" for nth in (5, 9, 13, 17)),
)


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_a_tree_whose_server_was_killed_ends_as_if_it_had_not_been(
    tmp_path: Path, trees: Path, failpoint: str
) -> None:
    async with Site(tmp_path / "site", prepared=trees) as site:
        await site.start(f"{failpoint}=kill")
        async with site.client() as client:
            creating = asyncio.create_task(client.create_thread("quick", "Go.", thread_id="tree"))
            assert await site.ended() == SIGKILLED
            await site.start()
            await creating
            logs = await asyncio.wait_for(_finished(client), 60)
            root = await client.get_thread(ROOT)
        assert await asyncio.to_thread(site.server.terminate) == 0
        left = left_in(site.db, tmp_path)

    check_tree(logs)
    assert len(logs) == TREE
    assert {log[-1].thread_ended.state for log in logs.values()} == {Thread.COMPLETED}
    costs = [log[-1].thread_ended.cost for log in logs.values()]
    assert (root.state, left) == (Thread.COMPLETED, 0)
    assert root.tree_cost.known is all(cost.known for cost in costs)
    assert root.tree_cost.cost_micros == sum(cost.cost_micros for cost in costs)


async def _finished(client: Client) -> dict[str, list[ThreadEvent]]:
    async for _ in client.watch(ROOT):
        pass
    return await logs_of(client)


async def _at_work(client: Client, names: Sequence[str]) -> list[str]:
    """Descendants of these, down to the last, once they are known."""
    found: list[str] = []
    for name in names:
        started = []
        async for event in client.watch(name):
            if event.HasField("child_thread_started"):
                started.append(event.child_thread_started.child_thread)
            if len(started) == 2:
                break
        found += started
    return found


@pytest.mark.parametrize(
    "failpoint", [f"{name}#{nth}" for name in ("mail.before", "commit.after") for nth in (1, 2, 4, 6, 9)]
)
async def test_a_cancel_whose_server_was_killed_reaches_the_whole_tree(
    tmp_path: Path, trees: Path, failpoint: str
) -> None:
    async with Site(tmp_path / "site", prepared=trees) as site:
        await site.start()
        async with site.client() as client:
            await client.create_thread("endless", "Go.", thread_id="tree")
            await _at_work(client, await _at_work(client, [ROOT]))
            await site.kill()
            await site.start(f"{failpoint}=kill")
            cancelling = asyncio.create_task(client.cancel_thread(ROOT, request_id="c"))
            assert await site.ended() == SIGKILLED
            await site.start()
            thread = await cancelling
            logs = await asyncio.wait_for(_finished(client), 60)

    check_tree(logs)
    assert thread.state == Thread.CANCELLED
    assert {log[-1].thread_ended.state for log in logs.values()} == {Thread.CANCELLED}
    reasons = {name: log[-1].thread_ended.stop_reason for name, log in logs.items() if name != ROOT}
    assert set(reasons.values()) == {Thread.PARENT_ENDED}
    assert len(logs) == TREE
