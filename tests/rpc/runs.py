"""Agents that play scripts, and what the tests ask of their threads."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.rpc.rig import Metadata, Rig
from treadle.v1 import agent_service_pb2, event_pb2, thread_pb2, thread_service_pb2
from treadle_server.core.kinds import Effect
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.tools import Notes, ToolCall, ToolResult

pb: Any = thread_service_pb2
Thread: Any = thread_pb2.Thread
Event = event_pb2.ThreadEvent
_agents: Any = agent_service_pb2

DEADLINE_SECONDS = 20.0
DONE: dict[str, Any] = {"text": "Done."}
HANG: dict[str, Any] = {"hang": True}
ADD: dict[str, Any] = {
    "thought": "I add.",
    "calls": [{"name": "calculator", "arguments": {"expression": "6*7"}}],
}
HOLD: dict[str, Any] = {"text": "I hold.", "calls": [{"name": "hold"}]}


def scripted(*turns: Any, **more: Any) -> str:
    return "scripted:" + json.dumps({"turns": turns or (DONE,), **more})


async def make_agent(
    rig: Rig, agent_id: str = "helper", *turns: Any, metadata: Metadata = (), **fields: Any
) -> None:
    """An agent that plays these turns, or answers at once."""
    agent = {"model": scripted(*turns), "tool_groups": ["toolGroups/builtin"], **fields}
    request = _agents.CreateAgentRequest(agent=agent, agent_id=agent_id)
    await rig.agents.CreateAgent(request, metadata=tuple(metadata))


def thread_of(agent: str = "helper", **fields: Any) -> dict[str, Any]:
    """A thread to make."""
    return {"agent": f"agents/{agent}", "input": {"text": "Go."}, **fields}


def create_request(agent: str = "helper", *, thread_id: str = "", request_id: str = "", **fields: Any) -> Any:
    return pb.CreateThreadRequest(
        thread=thread_of(agent, **fields), thread_id=thread_id, request_id=request_id
    )


async def create(
    rig: Rig, thread_id: str = "", agent: str = "helper", *, metadata: Metadata = (), **fields: Any
) -> Any:
    request = create_request(agent, thread_id=thread_id, **fields)
    return await rig.threads.CreateThread(request, metadata=tuple(metadata))


async def run(
    rig: Rig, thread_id: str = "", agent: str = "helper", *, metadata: Metadata = (), **fields: Any
) -> Any:
    """A thread that has ended."""
    request = pb.ExecuteAgentRequest(thread=thread_of(agent, **fields), thread_id=thread_id)
    return await rig.threads.ExecuteAgent(request, metadata=tuple(metadata))


async def get(rig: Rig, name: str, *, full: bool = False) -> Any:
    return await rig.threads.GetThread(pb.GetThreadRequest(name=name, view=2 if full else 1))


def watch(rig: Rig, name: str, after: int = 0, **fields: Any) -> Any:
    return rig.threads.WatchThread(pb.WatchThreadRequest(name=name, after_sequence=after, **fields))


async def collected(stream: Any) -> list[Event]:
    """All events of a stream that ends."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return [event async for response in stream for event in response.events]


async def taken(stream: Any, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """The events of a stream until there are enough; then it is left."""
    events: list[Event] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not enough(events):
            response = await stream.read()
            assert response, f"the stream ended after {kinds(events)}"
            events += response.events
    stream.cancel()
    return events


async def until_event(rig: Rig, name: str, kind: str) -> None:
    """Returns once a thread's log has an event of a kind."""
    await taken(watch(rig, name), lambda events: kind in kinds(events))


async def ended(rig: Rig, name: str) -> Any:
    """The thread, once it has ended."""
    await collected(watch(rig, name))
    return await get(rig, name)


def kinds(events: Sequence[Event]) -> list[str]:
    return [str(event.WhichOneof("payload")) for event in events]


def sequences(events: Sequence[Event]) -> list[int]:
    return [event.sequence for event in events]


class HeldTool:
    """Makes a toolbox with one tool, `hold`, that ends when the test lets it go."""

    def __init__(self, *, stubborn: bool = False, observation: str = "held") -> None:
        self.observation = observation
        self.stubborn = stubborn
        """It does not let itself be cancelled."""
        self.calls = 0
        self.opening = asyncio.Event()

    def __call__(self, _notes: Notes, _now: Callable[[], int]) -> "HeldTool":
        return self

    def builtins(self) -> tuple[ToolSpec, ...]:
        schema = '{"type":"object"}'
        return (ToolSpec("hold", "builtin/hold", "Waits.", schema, Effect.AT_MOST_ONCE),)

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        return self.builtins()

    def problem(self, spec: ToolSpec, arguments_json: str) -> str | None:
        return None

    async def call(self, spec: ToolSpec, call: ToolCall) -> ToolResult:
        self.calls += 1
        waiting = asyncio.ensure_future(self.opening.wait())
        while True:
            try:
                await asyncio.shield(waiting)
                return ToolResult(self.observation)
            except asyncio.CancelledError:
                if not self.stubborn:
                    waiting.cancel()
                    raise
