"""A server killed at every stored event in turn goes on to the same end."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.normal_form import normal_form
from tests.faults.scripts import script
from tests.faults.site import AGENT, PATIENCE_SECONDS, Site
from tests.faults.watching import Seen, executing, watch
from treadle import Action, Client, Thread, ThreadEvent

THREAD = "run"
REQUEST = "once"
REPEATABLE = (("look", "save"), ("save", "look", "save"))
AT_MOST_ONCE = (("send", "look"), ("send", "save", "send"))
AT_ONCE = 3
"""Servers at work at one time."""
SIGKILLED = -9


@dataclass(frozen=True, slots=True)
class Run:
    """How one thread went, seen by a client and by a watcher without its filter."""

    history: History
    events: list[ThreadEvent]
    """What the client gave."""

    @property
    def log(self) -> list[ThreadEvent]:
        return self.history.logs[f"threads/{THREAD}"]


class Scene:
    """The same thread again and again, each time at a place of its own."""

    def __init__(self, folder: Path, prepared: Path, turns: tuple[tuple[str, ...], ...]) -> None:
        self._folder = folder
        self._prepared = prepared
        self._fields: dict[str, Any] = {
            "data": script(THREAD, turns),
            "thread_id": THREAD,
            "request_id": REQUEST,
        }
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def run(self, failpoint: str = "") -> Run:
        """With a failpoint the server must be killed by it, and is started again without."""
        async with self._turn, Site(self._folder / (failpoint or "whole"), prepared=self._prepared) as site:
            await site.start(f"{failpoint}=kill" if failpoint else "")
            async with asyncio.timeout(PATIENCE_SECONDS), site.client() as client, site.channel() as channel:
                seen = Seen("watcher", f"threads/{THREAD}")
                watcher = asyncio.create_task(watch(seen, executing(channel, AGENT, **self._fields)))
                reader = asyncio.create_task(self._read(client))
                if failpoint:
                    assert await site.ended() == SIGKILLED
                    await site.start()
                events, _ = await reader, await watcher
                acknowledged = [Acknowledged(REQUEST, events[0].thread)]
                history = await History(acknowledged, [seen], ledger=site.ledger.all()).read(client)
        return Run(history, events)

    async def _read(self, client: Client) -> list[ThreadEvent]:
        return [event async for event in client.stream(AGENT, **self._fields)]

    async def runs(self, failpoints: list[str]) -> dict[str, Run]:
        found = await asyncio.gather(*map(self.run, failpoints))
        return dict(zip(failpoints, found, strict=True))


def places(moment: str, count: int, *, every: int) -> list[str]:
    return [f"{moment}@{sequence}" for sequence in range(1, count + 1, every)]


def compare(whole: Run, killed: Run) -> None:
    """All that must be the same, and all invariants."""
    check(killed.history)
    assert [event.sequence for event in killed.events] == list(range(1, len(killed.log) + 1))
    assert normal_form(killed.log) == normal_form(whole.log)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("moment", "every"),
    [
        ("commit.after", 1),
        ("commit.before", 3),
        pytest.param("commit.before", 1, marks=pytest.mark.soak),
    ],
)
async def test_a_run_killed_at_any_stored_event_has_the_log_of_a_run_that_was_not(
    tmp_path: Path, prepared: Path, moment: str, every: int
) -> None:
    scene = Scene(tmp_path, prepared, REPEATABLE)
    whole = await scene.run()
    assert whole.history.threads[f"threads/{THREAD}"].state == Thread.COMPLETED

    runs = await scene.runs(places(moment, len(whole.log), every=every))

    for killed in runs.values():
        compare(whole, killed)
    recovered = [run for run in runs.values() if any(e.HasField("execution_recovered") for e in run.log)]
    assert len(recovered) > len(runs) / 3, "most places have a call in flight"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("moment", "every"),
    [
        ("commit.after", 2),
        ("commit.before", 3),
        pytest.param("commit.after", 1, marks=pytest.mark.soak),
        pytest.param("commit.before", 1, marks=pytest.mark.soak),
    ],
)
async def test_calls_at_most_once_that_a_kill_catches_end_unknown_and_are_not_repeated(
    tmp_path: Path, prepared: Path, moment: str, every: int
) -> None:
    scene = Scene(tmp_path, prepared, AT_MOST_ONCE)
    whole = await scene.run()
    begun = {
        event.sequence: event.tool_call_started.tool_call_id
        for event in whole.log
        if event.HasField("tool_call_started")
        and _note(whole, event.tool_call_started.tool_call_id)[0] == "send"
    }

    runs = await scene.runs(
        sorted(
            {*places(moment, len(whole.log), every=every), *(f"{moment}@{sequence}" for sequence in begun)}
        )
    )

    for failpoint, killed in runs.items():
        check(killed.history)
        assert killed.log[-1].thread_ended.state == Thread.COMPLETED
        for call_id, status in _statuses(killed).items():
            tool, note = _note(whole, call_id)
            calls = [line for line in killed.history.effects if line.note == note]
            if tool != "send" or status == Action.SUCCEEDED:
                assert status == Action.SUCCEEDED, failpoint
                assert tool != "send" or len(calls) == 1, failpoint
            else:
                assert status == Action.UNKNOWN, failpoint
                assert len(calls) <= 1, failpoint
    for sequence, call_id in begun.items():
        # After its intent is durable a call is in doubt; before that it is not made.
        expected = Action.UNKNOWN if moment == "commit.after" else Action.SUCCEEDED
        assert _statuses(runs[f"{moment}@{sequence}"])[call_id] == expected


def _note(run: Run, call_id: str) -> tuple[str, str]:
    """Tool and note of a call."""
    for event in run.log:
        requested = event.tool_call_requested
        if requested.tool_call_id == call_id:
            return requested.tool, json.loads(requested.arguments_json)["note"]
    raise AssertionError(f"{call_id} was never requested")


def _statuses(run: Run) -> dict[str, "Action.Status.ValueType"]:
    completed = [event.tool_call_completed for event in run.log if event.HasField("tool_call_completed")]
    return {each.tool_call_id: each.status for each in completed}
