"""Another tenant's resource looks like one that nobody has, in every method. Driven by the descriptors."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.api import field_behavior_pb2, resource_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from tests.rpc.failures import Failure, failure_of
from tests.rpc.rig import Metadata, Rig, bearer, make_key, running
from tests.rpc.runs import (
    ADD,
    DONE,
    HANG,
    Thread,
    collected,
    create,
    kinds,
    make_agent,
    pb,
    run,
    taken,
    thread_of,
)
from treadle.v1 import (
    admin_service_pb2,
    agent_service_pb2,
    api_key_pb2,
    approval_service_pb2,
    memory_service_pb2,
    session_service_pb2,
    thread_service_pb2,
    tool_service_pb2,
)
from treadle_server.rpc.names import PARENTS
from treadle_server.rpc.validation import RESOURCES

_agents: Any = agent_service_pb2
_memories: Any = memory_service_pb2
_sessions: Any = session_service_pb2
_approvals: Any = approval_service_pb2
_FILES: tuple[Any, ...] = (
    agent_service_pb2,
    approval_service_pb2,
    thread_service_pb2,
    tool_service_pb2,
    admin_service_pb2,
    memory_service_pb2,
    session_service_pb2,
)
SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()
)
METHODS: dict[str, MethodDescriptor] = {
    method.full_name.removeprefix("treadle.v1."): method for service in SERVICES for method in service.methods
}

MINE = thread_of("mine")
NOTHING: dict[str, Any] = {}
REQUESTS: dict[str, dict[str, Any]] = {
    "AgentService.CreateAgent": {"agent": {"model": "demo:react"}},
    "AgentService.GetAgent": NOTHING,
    "AgentService.ListAgents": NOTHING,
    "AgentService.UpdateAgent": {"agent": {"description": "x"}},
    "AgentService.DeleteAgent": {"force": True},
    "AgentService.UndeleteAgent": NOTHING,
    "AgentService.GetAgentVersion": NOTHING,
    "AgentService.ListAgentVersions": NOTHING,
    "AgentService.RollbackAgent": {"version": 1},
    "ThreadService.ExecuteAgent": {"thread": MINE},
    "ThreadService.ExecuteAgentStream": {"thread": MINE},
    "ThreadService.CreateThread": {"thread": MINE},
    "ThreadService.WatchThread": {"after_sequence": 1, "snapshot": True},
    "ThreadService.WatchThreads": NOTHING,
    "ThreadService.ListThreadEvents": {"after_sequence": 999},
    "ThreadService.ListIterations": NOTHING,
    "ThreadService.GetThread": {"view": 2},
    "ThreadService.ListThreads": NOTHING,
    "ThreadService.UpdateThread": {"thread": {"tags": ["x"], "etag": "7"}},
    "ThreadService.DeleteThread": {"force": True, "etag": "7"},
    "ThreadService.PauseThread": NOTHING,
    "ThreadService.ResumeThread": NOTHING,
    "ThreadService.CancelThread": {"request_id": "r1"},
    "ThreadService.CompleteThread": {"state": Thread.COMPLETED},
    "ThreadService.SendThreadInput": {"input": {"text": "x"}},
    "ThreadService.SubmitToolResult": {"tool_call_id": "c", "result_json": "1"},
    "ThreadService.ForkThread": NOTHING,
    "ThreadService.RetryThread": NOTHING,
    "SessionService.GetSession": NOTHING,
    "SessionService.LookupSession": {"session_key": "room"},
    "SessionService.ListSessions": NOTHING,
    "SessionService.UpdateSession": {"session": {"labels": {"a": "b"}, "etag": "7"}},
    "SessionService.DeleteSession": {"force": True, "etag": "7"},
    "SessionService.ListSessionMessages": {"page_token": "x"},
    "SessionService.WatchSession": {"event_types": ["thread_ended"]},
    "ApprovalService.GetApproval": NOTHING,
    "ApprovalService.ListApprovals": {"page_token": "x"},
    "ApprovalService.WatchApprovals": NOTHING,
    "ApprovalService.DecideApproval": {"decision": 2, "request_id": "r1"},
    "ToolService.ListBuiltinTools": NOTHING,
    "MemoryService.GetMemory": NOTHING,
    "MemoryService.PutMemory": {"memory": {"text": "x", "etag": "7"}},
    "MemoryService.DeleteMemory": NOTHING,
    "MemoryService.ListMemories": {"page_token": "x"},
    "MemoryService.SearchMemories": {"query": "x", "page_token": "x"},
    "AdminService.GetServerInfo": NOTHING,
    "AdminService.CreateApiKey": {"api_key": {}},
    "AdminService.GetApiKey": NOTHING,
    "AdminService.ListApiKeys": NOTHING,
    "AdminService.UpdateApiKey": {"api_key": {"display_name": "x"}},
    "AdminService.DeleteApiKey": NOTHING,
    "AdminService.CreateTenant": NOTHING,
    "AdminService.GetTenant": NOTHING,
    "AdminService.ListTenants": NOTHING,
    "AdminService.UpdateTenant": {"tenant": {"display_name": "x"}},
    "AdminService.CreateBackup": NOTHING,
}
"""A request of every method that lacks nothing but a name. One that is missing fails a test."""

SHARED = frozenset({"treadle.dev/ToolGroup", "treadle.dev/Tool"})
"""The same for all tenants."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A field of a request that names a resource."""

    path: tuple[str, ...]
    kind: str

    def __str__(self) -> str:
        return ".".join(self.path)


def references(request: Descriptor) -> Iterator[Reference]:
    """Every field that names a resource, but what only the server sets or nobody reads."""
    made = RESOURCES.get(request.full_name)
    unread = {made.field} if made is not None and not made.changes else set()
    yield from _references(request, (), unread)


def _references(message: Descriptor, path: tuple[str, ...], unread: set[str]) -> Iterator[Reference]:
    for field in message.fields:
        behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        here = (*path, field.name)
        if field_behavior_pb2.OUTPUT_ONLY in behaviors:
            continue
        if field_behavior_pb2.IDENTIFIER in behaviors:
            if not unread.intersection(path):
                yield Reference(here, message.GetOptions().Extensions[resource_pb2.resource].type)
        elif kind := _kind(field):
            yield Reference(here, kind)
        elif field.message_type is not None and field.message_type.file.package == "treadle.v1":
            yield from _references(field.message_type, here, unread)


def _kind(field: FieldDescriptor) -> str:
    reference = field.GetOptions().Extensions[resource_pb2.resource_reference]
    if reference.child_type:
        return PARENTS[reference.child_type]
    return str(reference.type)


@dataclass(frozen=True, slots=True)
class House:
    """A file with red's resources, and the keys of red and blue."""

    db: Path
    red: api_key_pb2.ApiKey
    blue: api_key_pb2.ApiKey
    names: dict[str, tuple[str, str]]
    """By type of resource: a name that red has, and one of the same length that nobody has."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return asyncio.run(_furnish(tmp_path_factory.mktemp("house") / "t.db"))


async def _furnish(db: Path) -> House:
    async with running(db) as rig:
        keys = [await make_key(rig, tenant) for tenant in ("red", "blue")]
        red: Metadata = (("treadle-tenant", "red"),)
        await make_agent(rig, "secret", metadata=red)
        await make_agent(rig, "hanging", HANG, metadata=red)
        await make_agent(rig, "mine", metadata=(("treadle-tenant", "blue"),))
        ran = await run(rig, "done", "secret", session_key="room", tags=["a"], metadata=red)
        await create(rig, "busy", "hanging", metadata=red)
        await ask_people(rig, "asks", red)
        memory = {"name": "memories/reds/items/k", "text": "a secret of red"}
        await rig.memories.PutMemory(_memories.PutMemoryRequest(memory=memory), metadata=red)
    session = ran.session
    names = {
        "treadle.dev/Agent": ("agents/secret", "agents/nobody"),
        "treadle.dev/AgentVersion": ("agents/secret/versions/1", "agents/nobody/versions/1"),
        "treadle.dev/Session": (session, session[:-8] + "00000000"),
        "treadle.dev/Thread": ("threads/done", "threads/none"),
        "treadle.dev/Approval": (
            "threads/asks/approvals/approval-call-1-1",
            "threads/none/approvals/approval-call-1-1",
        ),
        "treadle.dev/ApprovalParent": ("threads/asks", "threads/none"),
        "treadle.dev/Tenant": ("tenants/red", "tenants/nil"),
        "treadle.dev/ApiKey": (keys[0].name, keys[0].name[:-8] + "00000000"),
        "treadle.dev/Webhook": ("webhooks/a", "webhooks/b"),
        "treadle.dev/EventSource": ("eventSources/a", "eventSources/b"),
        "treadle.dev/MemoryNamespace": ("memories/reds", "memories/nils"),
        "treadle.dev/Memory": ("memories/reds/items/k", "memories/nils/items/k"),
    }
    return House(db, keys[0], keys[1], names)


async def ask_people(rig: Rig, thread: str, owner: Metadata) -> None:
    """A thread that waits for an approval."""
    policy = {"rules": [{"approvers_needed": 1}]}
    await make_agent(rig, "gated", ADD, DONE, approval_policy=policy, metadata=owner)
    await create(rig, thread, "gated", metadata=owner)
    stream = rig.threads.WatchThread(pb.WatchThreadRequest(name=f"threads/{thread}"), metadata=tuple(owner))
    await taken(stream, lambda events: "approval_requested" in kinds(events))


@pytest.fixture
async def rig(house: House, tmp_path: Path) -> AsyncIterator[Rig]:
    """Asks for keys."""
    db = tmp_path / "t.db"
    shutil.copyfile(house.db, db)
    async with running(db, require_keys=True) as found:
        yield found


def request_with(method: MethodDescriptor, reference: Reference, name: str) -> Any:
    """The method's request with this name in it."""
    request: Any = GetMessageClass(method.input_type)()
    _fill(request, REQUESTS[method.full_name.removeprefix("treadle.v1.")])
    holder = request
    for step in reference.path[:-1]:
        holder = getattr(holder, step)
    field = holder.DESCRIPTOR.fields_by_name[reference.path[-1]]
    if field.is_repeated:
        getattr(holder, field.name).append(name)
    else:
        setattr(holder, field.name, name)
    return request


def _fill(request: Any, fields: dict[str, Any]) -> None:
    request.MergeFrom(type(request)(**fields))


def stub_of(rig: Rig, method: MethodDescriptor) -> Any:
    stubs = {
        "AgentService": rig.agents,
        "ApprovalService": rig.approvals,
        "ThreadService": rig.threads,
        "ToolService": rig.tools,
        "AdminService": rig.admin,
        "MemoryService": rig.memories,
        "SessionService": rig.sessions,
    }
    return getattr(stubs[method.containing_service.name], method.name)


async def refusal(rig: Rig, method: MethodDescriptor, request: Any, metadata: Metadata) -> Failure:
    call = stub_of(rig, method)(request, metadata=tuple(metadata))
    return await failure_of(collected(call) if method.server_streaming else call)


def shape(failure: Failure, name: str) -> tuple[Any, ...]:
    """All that a caller learns, with the name that was asked for left out."""
    owner = "/".join(name.split("/")[:2])
    parts = (failure.message, *(f"{kind}: {detail}" for kind, detail in sorted(failure.details.items())))
    return failure.code, *(part.replace(name, "NAME").replace(owner, "NAME") for part in parts)


def test_every_method_of_every_service_is_looked_at() -> None:
    assert METHODS.keys() == REQUESTS.keys()
    packaged = {file.name for file in Path(thread_service_pb2.__file__).parent.glob("*_service_pb2.py")}
    assert packaged == {Path(file.__file__).name for file in _FILES}


def test_every_list_and_stream_of_a_whole_tenant_is_looked_at() -> None:
    whole = {
        name
        for name, method in METHODS.items()
        if method.name.startswith(("List", "Watch", "Search")) and not any(references(method.input_type))
    }

    assert whole == {
        "AgentService.ListAgents",
        "ApprovalService.WatchApprovals",
        "ThreadService.ListThreads",
        "ThreadService.WatchThreads",
        "SessionService.ListSessions",
        "ToolService.ListBuiltinTools",  # the same for all tenants
        "AdminService.ListTenants",  # admins alone
    }, "test below that it shows what is one's own"


@pytest.mark.parametrize("name", [name for name, m in METHODS.items() if any(references(m.input_type))])
async def test_anothers_name_is_like_one_that_nobody_has(rig: Rig, house: House, name: str) -> None:
    method = METHODS[name]

    for reference in references(method.input_type):
        if reference.kind in SHARED:
            continue
        theirs, nobodys = house.names[reference.kind]
        shapes = [
            shape(
                await refusal(rig, method, request_with(method, reference, asked), bearer(house.blue)), asked
            )
            for asked in (theirs, nobodys)
        ]
        assert shapes[0] == shapes[1], str(reference)


@pytest.mark.parametrize("request_id", ["", "r1"])
async def test_a_thread_at_work_is_like_one_that_nobody_has(rig: Rig, house: House, request_id: str) -> None:
    for name in (
        *("PauseThread", "ResumeThread", "CancelThread", "CompleteThread"),
        *("SendThreadInput", "SubmitToolResult"),
        *("DeleteThread", "WatchThread", "GetThread", "UpdateThread", "ForkThread", "RetryThread"),
    ):
        method = METHODS[f"ThreadService.{name}"]
        reference = next(references(method.input_type))
        shapes = []
        for asked in ("threads/busy", "threads/none"):
            request = request_with(method, reference, asked)
            if "request_id" in request.DESCRIPTOR.fields_by_name:
                request.request_id = request_id
            shapes.append(shape(await refusal(rig, method, request, bearer(house.blue)), asked))
        assert shapes[0] == shapes[1]
    shown = await rig.threads.GetThread(pb.GetThreadRequest(name="threads/busy"), metadata=bearer(house.red))
    assert shown.state in (Thread.PENDING, Thread.RUNNING)


async def test_its_owner_finds_what_others_do_not(rig: Rig, house: House) -> None:
    """So that the sweep does not compare two names that nobody has."""
    for name in (
        "AgentService.GetAgent",
        "AgentService.GetAgentVersion",
        "ThreadService.GetThread",
        "ApprovalService.GetApproval",
        "MemoryService.GetMemory",
        "SessionService.GetSession",
    ):
        method = METHODS[name]
        (reference,) = references(method.input_type)
        theirs = house.names[reference.kind][0]
        found = await stub_of(rig, method)(
            request_with(method, reference, theirs), metadata=bearer(house.red)
        )
        assert found.name == theirs
    session = house.names["treadle.dev/Session"][0]
    made = await run(rig, "t1", "secret", session=session, metadata=bearer(house.red))
    assert made.session == session


async def test_lists_show_what_is_ones_own(rig: Rig, house: House) -> None:
    await run(rig, "t1", "mine", tags=["a"], session_key="room", metadata=bearer(house.blue))
    session = house.names["treadle.dev/Session"][0]
    texts = ("", "tags:a", "state = COMPLETED", "agent = agents/secret", f"session = {session}")

    found = {}
    for text in texts:
        request = pb.ListThreadsRequest(filter=text)
        page = await rig.threads.ListThreads(request, metadata=bearer(house.blue))
        found[text] = [thread.name for thread in page.threads]
    agents = await rig.agents.ListAgents(_agents.ListAgentsRequest(), metadata=bearer(house.blue))
    sessions = await rig.sessions.ListSessions(_sessions.ListSessionsRequest(), metadata=bearer(house.blue))
    looked_up = await rig.sessions.LookupSession(
        _sessions.LookupSessionRequest(session_key="room"), metadata=bearer(house.blue)
    )

    mine = ["threads/t1"]
    assert list(found.values()) == [mine, mine, mine, [], []]
    assert [agent.name for agent in agents.agents] == ["agents/mine"]
    assert [each.name for each in sessions.sessions] == [looked_up.name] != [session]
    assert agents.total_size == 1


async def test_streams_show_what_is_ones_own(rig: Rig, house: House) -> None:
    stream = rig.threads.WatchThreads(pb.WatchThreadsRequest(), metadata=bearer(house.blue))
    await stream.read()

    await run(rig, "t1", "secret", metadata=bearer(house.red))
    await run(rig, "t1", "mine", metadata=bearer(house.blue))
    await run(rig, "t2", "secret", metadata=bearer(house.red))
    await run(rig, "t3", "mine", metadata=bearer(house.blue))
    events = await taken(stream, lambda events: kinds(events).count("thread_ended") == 2)

    assert {event.thread for event in events if event.sequence} == {"threads/t1", "threads/t3"}
    created = [event.thread_created for event in events if event.HasField("thread_created")]
    assert {each.spec.agent_version for each in created} == {"agents/mine/versions/1"}


async def test_an_inbox_has_what_is_ones_own(rig: Rig, house: House) -> None:
    mine = "threads/mine/approvals/approval-call-1-1"
    await ask_people(rig, "mine", bearer(house.blue))

    page = await rig.approvals.ListApprovals(
        _approvals.ListApprovalsRequest(parent="threads/-"), metadata=bearer(house.blue)
    )
    stream = rig.approvals.WatchApprovals(_approvals.WatchApprovalsRequest(), metadata=bearer(house.blue))
    first = await stream.read()
    stream.cancel()

    assert [each.name for each in page.approvals] == [each.name for each in first.approvals] == [mine]


async def test_ids_session_keys_and_request_ids_are_each_tenants_own(rig: Rig, house: House) -> None:
    both = [
        await rig.threads.CreateThread(
            pb.CreateThreadRequest(
                thread=thread_of(agent, session_key="room"), thread_id="same", request_id="r1"
            ),
            metadata=bearer(key),
        )
        for agent, key in (("secret", house.red), ("mine", house.blue))
    ]

    assert [thread.name for thread in both] == ["threads/same"] * 2
    assert both[0].session == house.names["treadle.dev/Session"][0] != both[1].session
    assert [thread.agent for thread in both] == ["agents/secret", "agents/mine"]
