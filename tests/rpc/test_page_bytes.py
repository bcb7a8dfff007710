"""Pages of large resources end early, so that each fits into a message, and together hold everything once."""

from typing import Any

from tests.rpc.rig import Rig, make_key
from tests.rpc.runs import create, make_agent
from treadle.v1 import admin_service_pb2, agent_service_pb2, memory_service_pb2, session_service_pb2
from treadle_server.services.page_bytes import PAGE_BYTES_MAX

_admin: Any = admin_service_pb2
_agents: Any = agent_service_pb2
_memories: Any = memory_service_pb2
_sessions: Any = session_service_pb2
WIDE = "\U0001f9f5"
"""Four bytes for one character."""


async def pages_of(method: Any, request: Any, field: str) -> list[list[str]]:
    """The names on each page of a list that is asked for 1000 at a time."""
    request.page_size = 1000
    pages: list[list[str]] = []
    while True:
        page = await method(request)
        assert page.ByteSize() < PAGE_BYTES_MAX * 5 // 4
        pages.append([each.name for each in getattr(page, field)])
        if not page.next_page_token:
            return pages
        request.page_token = page.next_page_token


def require_all_once(pages: list[list[str]], count: int) -> None:
    names = [name for page in pages for name in page]
    assert len(pages) > 1
    assert (len(names), len(set(names))) == (count, count)


async def test_keys_with_many_patterns(rig: Rig) -> None:
    patterns = [f"{WIDE * 240}/{number}" for number in range(64)]
    for number in range(40):
        await make_key(rig, "acme", display_name=f"k{number}", object_patterns=patterns)

    request = _admin.ListApiKeysRequest(parent="tenants/acme")
    pages = await pages_of(rig.admin.ListApiKeys, request, "api_keys")

    require_all_once(pages, 40)


async def test_sessions_with_many_labels(rig: Rig) -> None:
    await make_agent(rig)
    labels = {f"l{number}": WIDE * 255 for number in range(64)}
    for number in range(40):
        thread = await create(rig, session_key=f"room-{number}")
        session = {"name": thread.session, "labels": labels}
        await rig.sessions.UpdateSession(
            _sessions.UpdateSessionRequest(session=session, update_mask={"paths": ["labels"]})
        )

    for text in ("", "agent = agents/helper"):
        request = _sessions.ListSessionsRequest(filter=text)
        require_all_once(await pages_of(rig.sessions.ListSessions, request, "sessions"), 40)


async def test_agents_with_many_documents_in_any_order(rig: Rig) -> None:
    documents = [{"title": f"T{number}", "text": "x" * 60_000} for number in range(4)]
    for number in range(14):
        await make_agent(rig, f"a{number}", documents=documents, display_name=f"same {number % 3}")

    for order in ("", "display_name", "create_time desc", "create_time"):
        request = _agents.ListAgentsRequest(order_by=order, filter="disabled = false" if order else "")
        pages = await pages_of(rig.agents.ListAgents, request, "agents")
        require_all_once(pages, 14)
        if order == "create_time":
            assert [name for page in pages for name in page] == [f"agents/a{n}" for n in range(14)]


async def test_memories_with_long_texts_listed_and_searched(rig: Rig) -> None:
    for number in range(150):
        memory = {"name": f"memories/n/items/k{number}", "text": "green " + "x" * 16_000}
        await rig.memories.PutMemory(_memories.PutMemoryRequest(memory=memory))

    listed = await pages_of(
        rig.memories.ListMemories, _memories.ListMemoriesRequest(parent="memories/n"), "memories"
    )
    found = await pages_of(
        rig.memories.SearchMemories,
        _memories.SearchMemoriesRequest(parent="memories/n", query="green"),
        "memories",
    )

    require_all_once(listed, 150)
    require_all_once(found, 150)
