"""A server killed while it makes or drives a fork: that is whole or not there, and comes to its end."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.ledger import Line
from tests.faults.normal_form import normal_form
from tests.faults.scripts import script
from tests.faults.site import AGENT, PATIENCE_SECONDS, Site
from treadle import Action, Client, Thread, ThreadEvent

FIRST, FORK, REQUEST = "first", "fork", "once"
TURNS = (("look", "save", "send"), ("save",))
AT_ONCE = 3
SIGKILLED = -9


@dataclass(frozen=True, slots=True)
class Run:
    """A fork as it is in the end, and what tools did for it."""

    thread: Thread
    log: list[ThreadEvent]
    original: list[ThreadEvent]
    effects: list[Line]
    thread_count: int


@pytest.fixture(scope="module")
def recorded(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a stopped server with a thread that has ended."""
    return asyncio.run(_record(tmp_path_factory.mktemp("recorded") / "site", prepared))


async def _record(folder: Path, prepared: Path) -> Path:
    async with Site(folder, prepared=prepared) as site:
        await site.start()
        async with site.client() as client:
            await client.execute(AGENT, data=script(FIRST, TURNS), thread_id=FIRST)
        assert await asyncio.to_thread(site.server.terminate) == 0
        return site.db


class Scene:
    """The same fork again and again, each time on a copy of the file."""

    def __init__(self, folder: Path, recorded: Path, cut: int) -> None:
        self._folder = folder
        self._recorded = recorded
        self._cut = cut
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def run(self, failpoint: str = "") -> Run:
        """With a failpoint the server must be killed by it, and is started again without."""
        folder = self._folder / f"{self._cut}-{failpoint or 'whole'}"
        async with self._turn, Site(folder, prepared=self._recorded) as site:
            await site.start(f"{failpoint}=kill" if failpoint else "")
            async with asyncio.timeout(PATIENCE_SECONDS), site.client() as client:
                forking = asyncio.create_task(self._fork(client))
                if failpoint:
                    assert await site.ended() == SIGKILLED
                    await site.start()
                assert await forking == f"threads/{FORK}"
                log = [event async for event in client.watch(FORK)]
                original = [event async for event in client.list_events(FIRST)]
                names = [thread.name async for thread in client.list_threads()]
                thread = await client.get_thread(FORK)
            return Run(thread, log, original, site.ledger.effects(), len(names))

    async def _fork(self, client: Client) -> str:
        made = await client.fork_thread(FIRST, sequence=self._cut, thread_id=FORK, request_id=REQUEST)
        return made.name

    def check(self, run: Run) -> None:
        """What holds of every run."""
        assert run.thread_count == 2
        assert [event.sequence for event in run.log] == list(range(1, len(run.log) + 1))
        assert _shared(run.log, self._cut) == _shared(run.original, self._cut)
        assert run.log[self._cut].HasField("thread_forked")
        assert sum(event.HasField("thread_forked") for event in run.log) == 1
        assert [event.HasField("thread_ended") for event in run.log].index(True) == len(run.log) - 1
        assert run.thread.state == Thread.COMPLETED
        notes = [line.note for line in run.effects if line.tool == "send"]
        assert len(notes) == len(set(notes)), "what is called at most once is called at most once"


def _shared(log: list[ThreadEvent], cut: int) -> list[bytes]:
    shared = []
    for event in log[:cut]:
        copy = ThreadEvent()
        copy.CopyFrom(event)
        copy.ClearField("thread")
        shared.append(copy.SerializeToString(deterministic=True))
    return shared


async def _cuts(scene: Scene) -> list[int]:
    """Within the first turn's calls: with all in flight, and with none left."""
    original = (await scene.run()).original
    started = [event.sequence for event in original if event.HasField("tool_call_started")]
    completed = [event.sequence for event in original if event.HasField("tool_call_completed")]
    return [started[2], completed[2]]


@pytest.mark.timeout(240)
async def test_a_fork_that_a_kill_overtakes_is_made_once_and_has_the_log_of_one_that_none_did(
    tmp_path: Path, recorded: Path
) -> None:
    for cut in await _cuts(Scene(tmp_path, recorded, 2)):
        scene = Scene(tmp_path, recorded, cut)
        whole = await scene.run()
        scene.check(whole)
        own = range(cut + 1, len(whole.log) + 1)
        places = ["request.before", "request.after", f"commit.before@{cut + 1}", f"commit.after@{cut + 1}"]
        places += [f"commit.after@{sequence}" for sequence in own[1::3]]

        runs = await asyncio.gather(*map(scene.run, places))

        for place, run in zip(places, runs, strict=True):
            scene.check(run)
            assert normal_form(run.log) == normal_form(whole.log), place


@pytest.mark.timeout(120)
async def test_calls_at_most_once_in_flight_at_the_cut_are_not_made_for_the_fork_however_it_is_killed(
    tmp_path: Path, recorded: Path
) -> None:
    in_flight, _ = await _cuts(Scene(tmp_path, recorded, 2))
    scene = Scene(tmp_path, recorded, in_flight)

    runs = await asyncio.gather(scene.run(), scene.run("request.before"), scene.run("effect.after"))

    for run in runs:
        scene.check(run)
        unknown = [
            event.tool_call_completed.tool_call_id
            for event in run.log[in_flight:]
            if event.tool_call_completed.status == Action.UNKNOWN
        ]
        assert unknown == ["call-1-3"]
        assert not [line for line in run.effects if line.tool == "send"]
