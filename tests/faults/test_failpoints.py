"""Every failpoint is reached, and a kill at any of them breaks no promise."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.scripts import script
from tests.faults.site import AGENT, Site, make_agents
from tests.faults.watching import Seen, executing, watch
from treadle import Thread
from treadle_server import failpoints

SIGKILLED = -9
ROOT = Path(__file__).parents[2]
THREADS = 4
SOAK_THREADS = 20
TURNS = (("look", "save", "send"), ("save",))
AT_START = tuple(name for name in failpoints.NAMES if name.startswith("migration."))
"""Reached before a server serves."""
BY_PEOPLE = ("decision.after",)
"""Reached when somebody decides: `test_kill_at_a_decision` goes there."""
IN_TREES = tuple(name for name in failpoints.NAMES if name.startswith(("child.", "mail.")))
"""Reached where agents call agents: `test_tree_kills` goes there."""
BY_THREADS = tuple(name for name in failpoints.NAMES if name not in (*AT_START, *BY_PEOPLE, *IN_TREES))


async def killed(folder: Path, prepared: Path, rule: str, threads: int) -> None:
    """Some threads at once on a server that is killed by the rule and started again; all promises hold."""
    async with Site(folder, prepared=prepared) as site:
        await site.start(rule)
        async with site.client() as client, site.channel() as channel:
            seen = [Seen(f"the stream of {number}", f"threads/t{number}") for number in range(threads)]
            streams = [
                asyncio.create_task(
                    watch(
                        each,
                        executing(
                            channel,
                            AGENT,
                            data=script(f"t{number}", TURNS),
                            thread_id=f"t{number}",
                            request_id=f"r{number}",
                        ),
                    )
                )
                for number, each in enumerate(seen)
            ]
            assert await site.ended() == SIGKILLED, rule
            await site.start()
            await asyncio.gather(*streams)
            acknowledged = [Acknowledged(f"r{number}", each.thread) for number, each in enumerate(seen)]
            history = await History(acknowledged, seen, ledger=site.ledger.all()).read(client)
    check(history)
    assert {thread.state for thread in history.threads.values()} == {Thread.COMPLETED}, rule
    assert len(history.threads) == threads


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("name", BY_THREADS)
async def test_a_kill_at_a_failpoint_breaks_no_promise(
    tmp_path: Path, prepared: Path, name: str, nth: int
) -> None:
    await killed(tmp_path / "site", prepared, f"{name}#{nth}=kill", THREADS)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BY_THREADS)
async def test_twenty_kills_at_a_failpoint_break_no_promise(
    tmp_path: Path, prepared: Path, name: str
) -> None:
    for nth in range(1, 21):
        await killed(tmp_path / str(nth), prepared, f"{name}#{nth}=kill", SOAK_THREADS)


@pytest.mark.parametrize("name", AT_START)
async def test_a_kill_while_a_new_file_is_made_leaves_one_that_serves(tmp_path: Path, name: str) -> None:
    async with Site(tmp_path / "site") as site:
        with pytest.raises(AssertionError, match=f"the server ended with {SIGKILLED}"):
            await site.start(f"{name}=kill")

        await site.start()

        async with site.client() as client:
            await make_agents(client)
            thread = await client.execute(AGENT, data=script("first", TURNS))
    assert thread.state == Thread.COMPLETED


def test_a_failpoint_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"no failpoint 'comit\.before'; there are "):
        failpoints.configure("comit.before=kill")


def test_all_failpoints_of_the_source_and_no_others_have_a_meaning() -> None:
    called = re.compile(r'failpoints\.hit(?:_range)?\(\s*"([a-z.]+)"|call_soon\(failpoints\.hit, "([a-z.]+)"')
    passed = re.compile(r'_pass_(?:requests|records)\("([a-z.]+)"')
    found: set[str] = set()
    for path in (ROOT / "server" / "treadle_server").rglob("*.py"):
        for pattern in (called, passed):
            found |= {name for match in pattern.finditer(path.read_text()) for name in match.groups() if name}

    assert found == set(failpoints.NAMES)


def test_each_failpoint_is_documented_for_contributors() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()

    assert [name for name in failpoints.NAMES if f"`{name}`" not in text] == []
