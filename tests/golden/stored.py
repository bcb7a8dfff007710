"""Logs of earlier releases as they were stored, and what that release made of them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from treadle_server.core.commands import Command
from treadle_server.core.decide import decide, wake_at
from treadle_server.core.events import Event
from treadle_server.core.evolve import fold
from treadle_server.core.spec import Spec
from treadle_server.core.state import State
from treadle_server.core.transcript import TranscriptFold
from treadle_server.ports.log import Record, StoredRecord
from treadle_server.wire.codec import ProtoCodec, kind_name

FOLDER = Path(__file__).parent / "logs"
CODEC = ProtoCodec()
Json = dict[str, Any]


def as_json(spec: Spec, events: list[Event]) -> Json:
    """A log as a file of this folder holds it: bytes, and after each event what should be in flight."""
    state, rows = State(spec), []
    for event in events:
        state = fold(state, [event])
        row = _stored(CODEC.encode(event))
        rows.append({**row, "state": state.status.name, "commands": commands(state)})
    return {
        "spec": CODEC.encode_spec(spec).hex(),
        "events": rows,
        "state": shown(state),
        "transcript": transcript(events),
    }


def _stored(record: Record) -> Json:
    private = None if record.private is None else record.private.hex()
    name = kind_name(record.kind)
    return {"event": name, "kind": record.kind, "body": record.body.hex(), "private": private}


def stored_events(golden: Json) -> tuple[Spec, list[Event]]:
    """The spec and the events that the stored bytes give today."""
    events = []
    for sequence, row in enumerate(golden["events"], start=1):
        private = None if row["private"] is None else bytes.fromhex(row["private"])
        record = Record(row["kind"], bytes.fromhex(row["body"]), private)
        events.append(CODEC.decode(StoredRecord(sequence, record)))
    return CODEC.decode_spec(bytes.fromhex(golden["spec"])), events


def commands(state: State) -> list[Json]:
    """What should be in flight, in order of the calls."""
    return [_command(command) for command in sorted(decide(state), key=lambda command: command.call_id)]


def _command(command: Command) -> Json:
    return {"command": type(command).__name__, **_plain(asdict(command))}


def shown(state: State) -> Json:
    """The fields of a state that later releases must fold to the same values."""
    return {
        "status": state.status.name,
        "stop_reason": state.stop_reason.name,
        "sequence": state.sequence,
        "pending": None if state.pending is None else state.pending.command.name,
        "iteration": state.iteration,
        "model_call": None if state.model_call is None else asdict(state.model_call),
        "calls": [_plain(asdict(call)) for call in state.calls.values()],
        "inputs": list(state.inputs),
        "tool_call_count": state.tool_call_count,
        "tools_used": list(state.tools_used),
        "model_used": state.model_used,
        "rejections": state.rejections,
        "usage": asdict(state.usage),
        "cost": asdict(state.cost),
        "output": None if state.output is None else asdict(state.output),
        "error": None if state.error is None else asdict(state.error),
        "create_time": state.create_time,
        "start_time": state.start_time,
        "end_time": state.end_time,
        "running_since": state.running_since,
        "running_micros": state.running_micros,
        "wake_at": wake_at(state),
    }


def transcript(events: list[Event]) -> list[Json]:
    """What a model is shown when the thread goes on."""
    view = TranscriptFold()
    for event in events:
        view.apply(event)
    return [{"entry": type(entry).__name__, **_plain(asdict(entry))} for entry in view.transcript.entries]


def _plain(value: Any) -> Any:
    """The value as JSON has it, with enums by name."""
    return json.loads(json.dumps(_named(value)))


def _named(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_named(item) for item in value]
    return getattr(value, "name", value)


def kept(now: Any, then: Any) -> Any:
    """What is now, as far as it was known then: later releases may add fields, not change or drop them."""
    if isinstance(then, dict) and isinstance(now, dict):
        return {key: kept(value, then[key]) for key, value in now.items() if key in then}
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [kept(item, before) for item, before in zip(now, then, strict=True)]
    return now
