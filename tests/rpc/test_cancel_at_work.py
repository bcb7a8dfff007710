"""Cancel, whatever a thread is at: it ends in time, nothing begins after it, and what was used is booked."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.rpc.rig import running
from tests.rpc.runs import (
    ADD,
    DONE,
    HOLD,
    Event,
    HeldTool,
    Thread,
    collected,
    create,
    get,
    kinds,
    make_agent,
    pb,
    taken,
    watch,
)
from tests.waiting import eventually

ENDED_SECONDS_MAX = 10.0
BEGINNINGS = {"iteration_started", "model_call_started", "tool_call_started", "child_thread_started"}
STREAMS: dict[str, Any] = {"text": "once upon a time there was", "delay_ms": 60_000, "pieces": 26}
USED = {"usage": {"input_tokens": 100, "output_tokens": 20}, "cost_micros": 7}
CALLS: dict[str, Any] = {"text": "I ask.", "calls": [{"name": "expert", "arguments": {"input": "Go."}}]}
WAITS: dict[str, Any] = {
    "approval_policy": {"rules": [{"tool_pattern": "calculator", "approvers_needed": 1}]}
}


@dataclass(frozen=True, slots=True)
class Work:
    """What threads do when the cancel comes."""

    turns: Sequence[dict[str, Any]]
    at_work: str
    """The event of the last thread that says so."""
    tool: HeldTool | None = None
    fields: dict[str, Any] | None = None
    expert: bool = False
    """The thread calls an agent, which plays the turns."""


WORKS: dict[str, Callable[[], Work]] = {
    "a model streams": lambda: Work((ADD | USED, STREAMS), "message_delta"),
    "a tool sleeps": lambda: Work((HOLD | USED, DONE), "tool_call_started", HeldTool()),
    "a tool ignores it": lambda: Work((HOLD | USED, DONE), "tool_call_started", HeldTool(stubborn=True)),
    "approvals wait": lambda: Work((ADD | USED, DONE), "approval_requested", fields=WAITS),
    "children run": lambda: Work((ADD | USED, STREAMS), "message_delta", expert=True),
}


@pytest.mark.parametrize("at", WORKS)
async def test_a_cancel_ends_in_time_what_is_at_work_and_books_what_it_used(tmp_path: Path, at: str) -> None:
    work = WORKS[at]()
    options = {"make_toolbox": work.tool} if work.tool else {}
    async with running(tmp_path / "t.db", **options) as rig:
        agent = "expert" if work.expert else "helper"
        await make_agent(rig, agent, *work.turns, **(work.fields or {}))
        if work.expert:
            await make_agent(rig, "helper", CALLS | USED, DONE, subagents=["agents/expert"])
        names = [(await create(rig, "t1")).name]
        if work.expert:
            begun = await taken(watch(rig, names[0]), lambda seen: "child_thread_started" in kinds(seen))
            names += [
                event.child_thread_started.child_thread
                for event in begun
                if event.HasField("child_thread_started")
            ]
        deltas = work.at_work == "message_delta"
        await taken(watch(rig, names[-1], include_deltas=deltas), lambda seen: work.at_work in kinds(seen))
        if tool := work.tool:
            await eventually(lambda: tool.calls == 1)

        began = monotonic()
        async with asyncio.timeout(20):
            answered = await rig.threads.CancelThread(pb.CancelThreadRequest(name=names[0]))
        seconds = monotonic() - began
        logs = {name: await collected(watch(rig, name)) for name in names}
        if tool:
            tool.opening.set()
        threads = [await get(rig, name) for name in names]
        for name in names:
            assert await collected(watch(rig, name)) == logs[name]

    assert seconds < ENDED_SECONDS_MAX
    assert {answered.state, *(thread.state for thread in threads)} == {Thread.CANCELLED}
    assert tool is None or tool.calls == 1
    for thread in threads:
        log = logs[thread.name]
        found = kinds(log)
        assert not BEGINNINGS & set(found[found.index("control_requested") :])
        assert found[-1] == "thread_ended"
        _assert_booked(thread, log)
    assert answered.tree_cost.cost_micros == 7 * len(names)


def _assert_booked(thread: Any, log: Sequence[Event]) -> None:
    """Each call of a model has its usage, and the thread their sum."""
    begun = [event.model_call_started.call_id for event in log if event.HasField("model_call_started")]
    used = [event.usage_recorded for event in log if event.HasField("usage_recorded")]
    assert [each.call_id for each in used] == begun
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        assert getattr(thread.usage, name) == sum(getattr(each.usage, name) for each in used)
    assert thread.usage.input_tokens >= 100
    assert (thread.usage.output_tokens, thread.cost.cost_micros) == (20, 7)
