"""A thread begun under one release goes on under every later one."""

import json
from pathlib import Path

import pytest

from tests.golden.record import HISTORIES, record
from tests.golden.stored import FOLDER, Json, commands, kept, shown, stored_events, transcript
from treadle_server.core.evolve import evolve
from treadle_server.core.state import State
from treadle_server.wire.codec import kind_name

LOGS: dict[str, Json] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def test_there_are_golden_logs_of_every_release() -> None:
    assert {golden["release"] for golden in LOGS.values()} >= {"0.1"}
    assert {golden["name"] for golden in LOGS.values()} >= {"simple", "parallel_tools", "failure", "recovery"}


@pytest.mark.parametrize("log", LOGS)
def test_after_each_event_the_same_calls_should_be_in_flight(log: str) -> None:
    spec, events = stored_events(LOGS[log])

    state = State(spec)
    for event, then in zip(events, LOGS[log]["events"], strict=True):
        state = evolve(state, event)
        assert kind_name(then["kind"]) == then["event"]
        assert (state.status.name, kept(commands(state), then["commands"])) == (
            then["state"],
            then["commands"],
        )
    assert not state.unreadable


@pytest.mark.parametrize("log", LOGS)
def test_the_whole_log_folds_to_the_same_state_and_transcript(log: str) -> None:
    golden = LOGS[log]
    spec, events = stored_events(golden)

    state = State(spec)
    for event in events:
        state = evolve(state, event)

    assert kept(shown(state), golden["state"]) == golden["state"]
    assert kept(transcript(events), golden["transcript"]) == golden["transcript"]


def test_a_golden_log_is_never_written_over(tmp_path: Path) -> None:
    first = record("0.1", "simple", tmp_path).read_text()

    with pytest.raises(FileExistsError):
        record("0.1", "simple", tmp_path)

    assert (tmp_path / "0.1-simple.json").read_text() == first


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_to_record_is_the_same_every_time(name: str) -> None:
    assert HISTORIES[name]().events == HISTORIES[name]().events
