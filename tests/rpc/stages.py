"""A thread in each state of the control table, with a question and a client's call open if there can be."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.rpc.rig import Rig, running
from tests.rpc.runs import (
    DONE,
    HANG,
    HeldTool,
    Thread,
    collected,
    create,
    get,
    make_agent,
    pb,
    run,
    taken,
    watch,
)
from tests.waiting import eventually
from treadle_server.core.kinds import ThreadState
from treadle_server.core.spec import ToolSpec
from treadle_server.tools.builtin.ask_user import ASK_USER

T1 = "threads/t1"
QUESTION, CLIENT_CALL = "call-1-2", "call-1-3"
OPEN_FILE = {"name": "open_file", "description": "Opens a file of the caller's."}
ASKS: dict[str, Any] = {
    "text": "On it.",
    "calls": [
        {"name": "hold"},
        {"name": "ask_user", "arguments": {"question": "Which?"}},
        {"name": "open_file"},
    ],
}


GATED = {**ASKS, "calls": [*ASKS["calls"], {"name": "pay"}]}
APPROVAL = f"{T1}/approvals/approval-call-1-4"


class Tools(HeldTool):
    """`hold`, `pay`, and the question."""

    def builtins(self) -> tuple[ToolSpec, ...]:
        (hold,) = super().builtins()
        return hold, replace(hold, name="pay", tool="builtin/pay"), ASK_USER


@dataclass(frozen=True, slots=True)
class Stage:
    """A server with thread t1 on it."""

    rig: Rig
    tool: Tools
    gated: bool
    """A call that needs approval is open too, or was when the thread ended."""

    async def thread(self) -> Any:
        return await get(self.rig, T1, full=True)

    async def log(self) -> list[Any]:
        request = pb.ListThreadEventsRequest(parent=T1, page_size=1_000)
        return list((await self.rig.threads.ListThreadEvents(request)).events)

    async def until(self, state: int) -> None:
        """Returns once the thread has gone to a state."""
        name = f"state_changed to {Thread.State.Name(state)}"
        await taken(watch(self.rig, T1), lambda events: any(_to(event) == state for event in events))
        assert (await self.thread()).state == state, name

    async def ended(self) -> Any:
        """The thread, once it has ended; what it waits for of the tool is let go."""
        self.tool.opening.set()
        await collected(watch(self.rig, T1))
        return await self.thread()


def _to(event: Any) -> int:
    return int(event.thread_ended.state or event.state_changed.to)


@asynccontextmanager
async def staged(path: Path, state: ThreadState, *, gated: bool = False) -> AsyncIterator[Stage]:
    """A server with thread t1 in this state."""
    tool = Tools()
    gated = gated or state is ThreadState.WAITING_APPROVAL
    async with running(path, make_toolbox=tool) as rig:
        stage = Stage(rig, tool, gated)
        await (_GATED_ENDS if gated else {}).get(state, _SCENES[state])(stage)
        assert (await stage.thread()).state == int(state)
        yield stage
        tool.opening.set()


async def _agent(stage: Stage, *turns: Any, **fields: Any) -> None:
    turns = turns or (GATED if stage.gated else ASKS, DONE)
    policy = {"rules": [{"tool_pattern": "pay", "approvers_needed": 1}]} if stage.gated else None
    await make_agent(stage.rig, "helper", *turns, approval_policy=policy, **fields)


async def _create(stage: Stage, thread_id: str = "t1") -> None:
    await create(stage.rig, thread_id, client_tools=[OPEN_FILE])


async def _pending(stage: Stage) -> None:
    await _agent(stage, limits={"max_concurrent_threads": 1})
    await _create(stage, "t0")
    await eventually(lambda: stage.tool.calls == 1)
    await _create(stage)


async def _running(stage: Stage) -> None:
    await _agent(stage)
    await _create(stage)
    await eventually(lambda: stage.tool.calls == 1)


async def _waiting(stage: Stage) -> None:
    await _running(stage)
    stage.tool.opening.set()
    await stage.until(Thread.WAITING_APPROVAL if stage.gated else Thread.WAITING_INPUT)


async def _paused(stage: Stage) -> None:
    await _waiting(stage)
    await stage.rig.threads.PauseThread(pb.PauseThreadRequest(name=T1))


async def _completed(stage: Stage) -> None:
    await _agent(stage, {"text": "mine"})
    await run(stage.rig, "t1")


async def _failed(stage: Stage) -> None:
    await _agent(stage, {"error": {"code": "INTERNAL", "message": "no"}})
    await run(stage.rig, "t1")


async def _cancelled(stage: Stage) -> None:
    await _waiting(stage)
    await stage.rig.threads.CancelThread(pb.CancelThreadRequest(name=T1))


async def _timed_out(stage: Stage) -> None:
    await _agent(stage, HANG, limits={"timeout": {"nanos": 1_000_000}})
    await run(stage.rig, "t1")


async def _ended_while_gated(stage: Stage, state: int) -> None:
    await _waiting(stage)
    await stage.rig.threads.CompleteThread(pb.CompleteThreadRequest(name=T1, state=state))


async def _timed_out_while_gated(stage: Stage) -> None:
    await _agent(stage, limits={"max_lifetime": {"seconds": 2}})
    await _create(stage)
    await collected(watch(stage.rig, T1))


_GATED_ENDS: dict[ThreadState, Callable[[Stage], Awaitable[None]]] = {
    ThreadState.COMPLETED: lambda stage: _ended_while_gated(stage, Thread.COMPLETED),
    ThreadState.FAILED: lambda stage: _ended_while_gated(stage, Thread.FAILED),
    ThreadState.TIMED_OUT: _timed_out_while_gated,
}
_SCENES: dict[ThreadState, Callable[[Stage], Awaitable[None]]] = {
    ThreadState.PENDING: _pending,
    ThreadState.RUNNING: _running,
    ThreadState.WAITING_APPROVAL: _waiting,
    ThreadState.WAITING_INPUT: _waiting,
    ThreadState.PAUSED: _paused,
    ThreadState.COMPLETED: _completed,
    ThreadState.FAILED: _failed,
    ThreadState.CANCELLED: _cancelled,
    ThreadState.TIMED_OUT: _timed_out,
}
STATES = tuple(_SCENES)
