"""A database with something of everything in it, and every question that its rows answer."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.rpc.rig import Metadata, Rig, bearer, make_key, running
from tests.rpc.runs import DONE, HANG, create, create_request, get, make_agent, pb, run, scripted, until_event
from treadle.v1 import admin_service_pb2, agent_service_pb2, api_key_pb2, memory_service_pb2, thread_pb2

_agents: Any = agent_service_pb2
_admin: Any = admin_service_pb2
_memories: Any = memory_service_pb2
_Thread: Any = thread_pb2.Thread
ANSWER_SECONDS = 10.0
NOTE = {"text": "I note.", "calls": [{"name": "remember", "arguments": {"key": "k", "text": "a note"}}]}
ADD = {"text": "I add.", "calls": [{"name": "calculator", "arguments": {"expression": "6*7"}}]}
FILTERS = (
    "",
    "tags:blue",
    'labels.team = "a"',
    "state = COMPLETED",
    "state = RUNNING",
    'agent = "agents/adder"',
    'subject.type = "order"',
    "usage.total_tokens >= 0",
    "cost.cost_micros >= 0",
    "stop_reason = FINISHED",
    'trigger.triggered_by = "someone"',
)
MEMORIES = {"tea": "green tea with honey", "coffee": "black coffee with milk", "town": "Rome or Paris"}
ORDERS = ("create_time", "end_time desc", "cost.cost_micros", "usage.total_tokens desc")


@dataclass(slots=True)
class World:
    """What was made, so that it can be asked for."""

    threads: list[str] = field(default_factory=list)
    unfinished: dict[str, int] = field(default_factory=dict)
    """By name, with how many events there were."""
    gone: list[str] = field(default_factory=list)
    requests: dict[str, Any] = field(default_factory=dict)
    key: Any = None
    deleted_key: Any = None
    cursor: str = ""
    session: str = ""
    event_count: int = 0
    """Of the threads that have ended."""


async def make(path: Path, copy: Path | None = None) -> World:
    """Fills a new file. With `copy`, what a kill would have left then: the file and its log."""
    world = World()
    async with running(path) as rig:
        stream = rig.threads.WatchThreads(pb.WatchThreadsRequest())
        world.cursor = (await stream.read()).cursor
        stream.cancel()
        await _make_agents(rig)
        await _make_keys(rig, world)
        await _make_threads(rig, world)
        await _make_memories(rig)
        for name in world.threads:
            world.event_count += (await get(rig, name)).last_sequence
        if copy is not None:
            shutil.copyfile(path, copy)
            for ending in ("-wal", "-lock"):
                shutil.copyfile(f"{path}{ending}", f"{copy}{ending}")
    return world


async def _make_agents(rig: Rig) -> None:
    await make_agent(rig, "adder", ADD, DONE, labels={"team": "math"})
    await make_agent(rig, "noter", NOTE, DONE)
    await make_agent(rig, "stuck", HANG)
    await make_agent(rig, "gone", DONE)
    await make_agent(rig, "failing", {"error": {"message": "no"}})
    update = {"name": "agents/adder", "instructions": "Add well.", "model": scripted(ADD, DONE)}
    await rig.agents.UpdateAgent(
        _agents.UpdateAgentRequest(agent=update, update_mask={"paths": ["instructions"]})
    )
    await rig.agents.DeleteAgent(_agents.DeleteAgentRequest(name="agents/gone"))


async def _make_keys(rig: Rig, world: World) -> None:
    world.key = await make_key(rig, "other", principal="reader", display_name="of the other")
    world.deleted_key = await make_key(rig, "other", principal="former")
    await rig.admin.DeleteApiKey(_admin.DeleteApiKeyRequest(name=world.deleted_key.name))


async def _make_threads(rig: Rig, world: World) -> None:
    fields: dict[str, Any] = {
        "tags": ["blue", "late"],
        "labels": {"team": "a"},
        "client_metadata": {"n": 1},
        "subject": {"type": "order", "id": "o1"},
        "trigger": {"type": "MANUAL", "triggered_by": "someone"},
    }
    for agent in ("adder", "noter", "failing", "adder"):
        await _ended(rig, world, agent, session_key=f"customer of {agent}", **fields)
    await _ended(rig, world, "adder")
    await make_agent(rig, "theirs", DONE, metadata=bearer(world.key))
    await run(rig, "theirs-1", "theirs", metadata=bearer(world.key))
    deleted = await run(rig, "", "adder", tags=["blue"])
    await rig.threads.DeleteThread(pb.DeleteThreadRequest(name=deleted.name))
    world.gone.append(deleted.name)
    stopped = await create(rig, "", "stuck")
    await rig.threads.CancelThread(pb.CancelThreadRequest(name=stopped.name))
    world.threads.append(stopped.name)
    for session in ("", "customer-1", "customer-1"):
        thread = await create(rig, "", "stuck", session_key=session, tags=["blue"])
        if not session or len(world.unfinished) == 1:
            await until_event(rig, thread.name, "model_call_started")
        world.session = thread.session or world.session
        world.unfinished[thread.name] = (await get(rig, thread.name)).last_sequence


async def _make_memories(rig: Rig) -> None:
    for key, text in MEMORIES.items():
        for namespace in ("one", "two"):
            await _put(rig, f"memories/{namespace}/items/{key}", text)
    await _put(rig, "memories/one/items/coffee", "without milk")
    await rig.memories.DeleteMemory(_memories.DeleteMemoryRequest(name="memories/two/items/tea"))


async def _put(rig: Rig, name: str, text: str) -> None:
    await rig.memories.PutMemory(_memories.PutMemoryRequest(memory={"name": name, "text": text}))


async def _ended(rig: Rig, world: World, agent: str, **fields: Any) -> None:
    request = create_request(agent, request_id=f"request-{len(world.threads)}", **fields)
    thread = await rig.threads.CreateThread(request)
    await until_event(rig, thread.name, "thread_ended")
    world.threads.append(thread.name)
    world.requests[thread.name] = request


Answers = dict[str, Any]
Ask = Callable[[], Awaitable[Any]]


async def ask_everything(path: Path, world: World) -> Answers:
    """Every answer, or the status that refused it, by the question."""
    async with running(path) as rig:
        answers: Answers = {}
        for question, ask in _questions(rig, world).items():
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    answers[question] = await ask()
            except grpc.aio.AioRpcError as refused:
                answers[question] = refused.code()
        return answers


def _questions(rig: Rig, world: World) -> dict[str, Ask]:
    asks: dict[str, Ask] = {}
    for name in world.threads:
        asks[f"thread {name}"] = lambda name=name: _message(get(rig, name, full=True))
        asks[f"events {name}"] = lambda name=name: _events(rig, name)
        asks[f"iterations {name}"] = lambda name=name: _message(
            rig.threads.ListIterations(pb.ListIterationsRequest(parent=name))
        )
    for name, sequence in world.unfinished.items():
        asks[f"living {name}"] = lambda name=name: _living(rig, name)
        asks[f"events {name}"] = lambda name=name, sequence=sequence: _events(rig, name, sequence)
    for name in world.gone:
        asks[f"gone {name}"] = lambda name=name: _message(get(rig, name))
    for text in (*FILTERS, f'session = "{world.session}"'):
        asks[f"list {text}"] = lambda text=text: _list(rig, world, filter=text)
    for order in ORDERS:
        asks[f"ordered {order}"] = lambda order=order: _list(rig, world, order_by=order)
    for name, request in world.requests.items():
        asks[f"replay {name}"] = lambda request=request: _replay(rig, request)
    asks["others"] = lambda: _stream(rig, world)
    return {**asks, **_catalogue(rig, world)}


def _catalogue(rig: Rig, world: World) -> dict[str, Ask]:
    asks: dict[str, Ask] = {}
    for agent in ("adder", "noter", "stuck", "gone", "failing"):
        name = f"agents/{agent}"
        asks[name] = lambda name=name: _message(rig.agents.GetAgent(_agents.GetAgentRequest(name=name)))
        asks[f"versions {name}"] = lambda name=name: _message(
            rig.agents.ListAgentVersions(_agents.ListAgentVersionsRequest(parent=name))
        )
    asks["version 1"] = lambda: _message(
        rig.agents.GetAgentVersion(_agents.GetAgentVersionRequest(name="agents/adder/versions/1"))
    )
    for deleted in (False, True):
        request = _agents.ListAgentsRequest(show_deleted=deleted)
        asks[f"agents {deleted}"] = lambda request=request: _message(rig.agents.ListAgents(request))
    asks["keys"] = lambda: _message(rig.admin.ListApiKeys(_admin.ListApiKeysRequest(parent="tenants/other")))
    for key in (world.key, world.deleted_key):
        asks[f"{key.name}"] = lambda key=key: _message(
            rig.admin.GetApiKey(_admin.GetApiKeyRequest(name=key.name))
        )
        asks[f"as {key.name}"] = lambda key=key: _message(_as(rig, "threads/theirs-1", bearer(key)))
    for key in (*MEMORIES, "none"):
        name = f"memories/one/items/{key}"
        asks[name] = lambda name=name: _message(rig.memories.GetMemory(_memories.GetMemoryRequest(name=name)))
    for parent in ("memories/one", "memories/-"):
        asks[f"all {parent}"] = lambda parent=parent: _message(
            rig.memories.ListMemories(_memories.ListMemoriesRequest(parent=parent))
        )
        for query in ("tea green", "milk", "with", '"black coffee"', "coff*"):
            request = _memories.SearchMemoriesRequest(parent=parent, query=query)
            asks[f"found {query} in {parent}"] = lambda request=request: _message(
                rig.memories.SearchMemories(request)
            )
    asks["theirs, as ours"] = lambda: _message(get(rig, "threads/theirs-1"))
    return asks


async def _as(rig: Rig, name: str, metadata: Metadata) -> Any:
    return await rig.threads.GetThread(pb.GetThreadRequest(name=name, view=2), metadata=tuple(metadata))


async def _message(call: Awaitable[Any]) -> bytes:
    return bytes((await call).SerializeToString(deterministic=True))


async def _living(rig: Rig, name: str) -> Any:
    """A thread that goes on, and may get further than before: what it was made with."""
    thread = await get(rig, name)
    if thread.stop_reason == _Thread.DATA_LOSS:
        return grpc.StatusCode.DATA_LOSS
    return (thread.name, thread.agent, thread.session, list(thread.tags), thread.input.text)


async def _events(rig: Rig, name: str, until: int | None = None) -> Any:
    request = pb.ListThreadEventsRequest(parent=name, page_size=1000)
    events = (await rig.threads.ListThreadEvents(request)).events
    return [event.SerializeToString(deterministic=True) for event in events][:until]


async def _list(rig: Rig, world: World, **fields: Any) -> list[tuple[str, bytes | None]]:
    """In pages of 4. A damaged one, or one that goes on, is there by its name alone."""
    found: list[tuple[str, bytes | None]] = []
    token = ""
    while True:
        page = await rig.threads.ListThreads(pb.ListThreadsRequest(page_size=4, page_token=token, **fields))
        for thread in page.threads:
            if thread.stop_reason == _Thread.DATA_LOSS:
                found.append((thread.name, None))
            elif thread.name in world.unfinished:
                if "state =" in fields.get("filter", ""):
                    continue  # another may have ended and let it run
                found.append((thread.name, b""))
            else:
                found.append((thread.name, thread.SerializeToString(deterministic=True)))
        token = page.next_page_token
        if not token:
            return found


async def _replay(rig: Rig, request: Any) -> Any:
    thread = await rig.threads.CreateThread(request)
    return grpc.StatusCode.DATA_LOSS if thread.stop_reason == _Thread.DATA_LOSS else thread.name


async def _stream(rig: Rig, world: World) -> list[bytes]:
    """The first events that the stream over all threads gave after its beginning."""
    found: list[bytes] = []
    call = rig.threads.WatchThreads(pb.WatchThreadsRequest(after_cursor=world.cursor))
    living = set(world.unfinished)
    while True:
        response = await call.read()
        for event in response.events:
            if event.sequence and event.thread not in living:
                found.append(event.SerializeToString(deterministic=True))
        if len(found) >= world.event_count:
            call.cancel()
            return found


__all__ = ["World", "api_key_pb2", "ask_everything", "make"]
