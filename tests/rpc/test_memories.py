"""MemoryService over gRPC: put, read, deleted, listed and searched, by callers and by agents."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Metadata, Rig, bearer, make_key, running
from tests.rpc.runs import DONE, get, make_agent, run
from treadle.v1 import agent_pb2, agent_service_pb2, iteration_pb2, memory_pb2, memory_service_pb2
from treadle_server.core.documents import Document, with_documents
from treadle_server.core.memory import TEXT_BYTES_MAX

_pb: Any = memory_service_pb2
_agents: Any = agent_service_pb2
_Memory: Any = memory_pb2.Memory
_Action: Any = iteration_pb2.Action
_MemoryRule: Any = agent_pb2.MemoryRule
NAME = "memories/user:7/items/colour"


async def put(
    rig: Rig, name: str = NAME, text: str = "green", *, metadata: Metadata = (), **fields: Any
) -> Any:
    request_id = fields.pop("request_id", "")
    request = _pb.PutMemoryRequest(memory={"name": name, "text": text, **fields}, request_id=request_id)
    return await rig.memories.PutMemory(request, metadata=tuple(metadata))


async def read(rig: Rig, name: str = NAME, metadata: Metadata = ()) -> Any:
    return await rig.memories.GetMemory(_pb.GetMemoryRequest(name=name), metadata=tuple(metadata))


async def delete(rig: Rig, name: str = NAME, **fields: Any) -> Any:
    return await rig.memories.DeleteMemory(_pb.DeleteMemoryRequest(name=name, **fields))


async def listed(rig: Rig, parent: str, page_size: int = 0, metadata: Metadata = ()) -> Sequence[Any]:
    """All pages."""
    request, found = _pb.ListMemoriesRequest(parent=parent, page_size=page_size), list[Any]()
    while True:
        page = await rig.memories.ListMemories(request, metadata=tuple(metadata))
        found += page.memories
        if not page.next_page_token:
            assert page.total_size == len(found)
            return found
        assert len(page.memories) == page_size
        request.page_token = page.next_page_token


async def searched(
    rig: Rig, query: str, parent: str = "memories/-", page_size: int = 0, metadata: Metadata = ()
) -> list[str]:
    """Names over all pages."""
    request, found = _pb.SearchMemoriesRequest(parent=parent, query=query, page_size=page_size), list[str]()
    while True:
        page = await rig.memories.SearchMemories(request, metadata=tuple(metadata))
        found += [memory.name for memory in page.memories]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_a_memory_is_put_read_replaced_and_deleted(rig: Rig) -> None:
    made = await put(rig)
    changed = await put(rig, text="blue")

    assert (made.name, made.text, made.thread) == (NAME, "green", "")
    assert made.create_time == made.update_time == changed.create_time
    assert changed.update_time.ToNanoseconds() >= made.update_time.ToNanoseconds()
    assert changed.text == "blue"
    assert changed.etag not in ("", made.etag)
    assert await read(rig) == changed
    await delete(rig)
    failure = await failure_of(read(rig))
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert failure.details["ResourceInfo"].resource_name == NAME


async def test_an_etag_guards_a_put_and_a_deletion(rig: Rig) -> None:
    made = await put(rig, etag="0")
    changed = await put(rig, text="blue", etag=made.etag)

    for late in (
        put(rig, text="x", etag=made.etag),
        put(rig, text="x", etag="0"),
        delete(rig, etag=made.etag),
        put(rig, "memories/user:7/items/other", etag=made.etag),
    ):
        failure = await failure_of(late)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await read(rig) == changed
    await delete(rig, etag=changed.etag)
    again = await put(rig, text="green")
    assert again.etag not in (made.etag, changed.etag)


async def test_a_repeated_request_is_answered_as_the_first_one(rig: Rig) -> None:
    made = await put(rig, request_id="r1")
    await put(rig, text="blue")

    assert await put(rig, request_id="r1") == made
    assert (await read(rig)).text == "blue"
    failure = await failure_of(put(rig, text="red", request_id="r1"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    await delete(rig, request_id="r2")
    await put(rig, text="again")
    await delete(rig, request_id="r2")
    assert (await read(rig)).text == "again"


async def test_a_hundred_puts_at_once_with_one_request_id_are_one(rig: Rig) -> None:
    answers = await asyncio.gather(*(put(rig, request_id="r1") for _ in range(100)))

    assert all(answer == answers[0] for answer in answers)
    assert await put(rig, etag=answers[0].etag)


async def test_puts_at_once_without_a_request_id_all_count(rig: Rig) -> None:
    answers = await asyncio.gather(*(put(rig, text=f"text {number}") for number in range(8)))

    assert len({answer.etag for answer in answers}) == 8
    assert (await read(rig)).etag in {answer.etag for answer in answers}
    assert len(await listed(rig, "memories/-")) == 1


@pytest.mark.parametrize(
    ("name", "text", "fields"),
    [
        ("", "x", {"memory.name"}),
        ("memories/a/items/k", "", {"memory.text"}),
        ("memories/-/items/k", "x", {"memory.name"}),
        ("memories/a b/items/k", "x", {"memory.name"}),
        ("memories/a/items/", "x", {"memory.name"}),
        ("memories/a/items/-k", "x", {"memory.name"}),
        (f"memories/{'a' * 256}/items/k", "x", {"memory.name"}),
        (f"memories/a/items/{'k' * 129}", "x", {"memory.name"}),
        ("memories/ü/items/k", "a\x00b", {"memory.name", "memory.text"}),
    ],
)
async def test_faulty_fields_are_named(rig: Rig, name: str, text: str, fields: set[str]) -> None:
    failure = await failure_of(put(rig, name, text))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert failure.fields.keys() == fields


async def test_a_text_of_the_largest_size_is_kept_and_no_larger_one(rig: Rig) -> None:
    text = "ü" * (TEXT_BYTES_MAX // 2)

    made = await put(rig, "memories/A._~:@%-1/items/K._~:@%-1", text)
    failure = await failure_of(put(rig, text=text + "x"))

    assert made.text == text
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")
    assert failure.metadata == {"field": "memory.text", "max_bytes": str(TEXT_BYTES_MAX)}


async def test_lists_are_of_a_namespace_or_of_all_newest_first(rig: Rig) -> None:
    names = [f"memories/n{number % 2}/items/k{number}" for number in range(7)]
    for name in names:
        await put(rig, name)

    assert [memory.name for memory in await listed(rig, "memories/-", 3)] == names[::-1]
    assert [memory.name for memory in await listed(rig, "memories/n1", 1)] == names[5::-2]
    assert await listed(rig, "memories/nothing") == []


async def test_a_page_token_is_only_good_for_its_request(rig: Rig) -> None:
    for number in range(3):
        await put(rig, f"memories/n/items/k{number}")
    first = await rig.memories.ListMemories(_pb.ListMemoriesRequest(parent="memories/n", page_size=1))
    found = await rig.memories.SearchMemories(
        _pb.SearchMemoriesRequest(parent="memories/n", query="green", page_size=1)
    )

    for request, method in (
        (_pb.ListMemoriesRequest(parent="memories/-"), rig.memories.ListMemories),
        (_pb.SearchMemoriesRequest(parent="memories/n", query="blue"), rig.memories.SearchMemories),
    ):
        for page in (first, found):
            request.page_token = page.next_page_token
            assert (await failure_of(method(request))).fields.keys() == {"page_token"}


async def test_a_search_finds_what_fits_best_first_in_pages(rig: Rig) -> None:
    await put(rig, "memories/a/items/one", "Likes green tea")
    await put(rig, "memories/a/items/two", "Likes black coffee")
    await put(rig, "memories/b/items/three", "Likes green coffee")

    assert await searched(rig, "green coffee") == [
        "memories/b/items/three",
        "memories/a/items/two",
        "memories/a/items/one",
    ]
    assert await searched(rig, "green coffee", page_size=1) == await searched(rig, "green coffee")
    assert await searched(rig, "coffee", "memories/a") == ["memories/a/items/two"]
    assert await searched(rig, "ONE") == ["memories/a/items/one"]
    assert await searched(rig, "milk") == []


@pytest.mark.parametrize(
    "query", ['"', "AND", "a OR (", "NEAR(x y", "*", "col:x", "'; --", "\\", "^x", "🙂", "%"]
)
async def test_no_query_is_faulty(rig: Rig, query: str) -> None:
    await put(rig)

    assert await searched(rig, query) == []
    assert await searched(rig, f"{query} green") in ([], [NAME])


async def test_a_search_without_a_query_is_refused(rig: Rig) -> None:
    assert (await failure_of(searched(rig, ""))).fields.keys() == {"query"}
    assert (await failure_of(searched(rig, "x" * 1025))).fields.keys() == {"query"}
    assert (await failure_of(searched(rig, "x", "memories/a b"))).fields.keys() == {"parent"}


async def test_nobody_finds_what_another_tenant_keeps(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        red, blue = [bearer(await make_key(rig, tenant)) for tenant in ("red", "blue")]
        await put(rig, text="red's secret", metadata=red)
        await put(rig, text="blue's own", metadata=blue)

        assert (await read(rig, metadata=blue)).text == "blue's own"
        assert await searched(rig, "secret", metadata=blue) == []
        assert await searched(rig, "secret", metadata=red) == [NAME]
        for parent in ("memories/-", "memories/user:7"):
            assert [memory.text for memory in await listed(rig, parent, metadata=blue)] == ["blue's own"]


async def test_a_credential_that_reaches_only_some_objects_reaches_no_memories(tmp_path: Path) -> None:
    async with running(tmp_path / "t.db") as rig:
        key = bearer(await make_key(rig, "default", object_patterns=["account/*"]))
        await put(rig)

        for call in (
            put(rig, metadata=key),
            read(rig, metadata=key),
            listed(rig, "memories/-", metadata=key),
            searched(rig, "green", metadata=key),
        ):
            failure = await failure_of(call)
            assert (failure.code, failure.reason) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "PARENT_FORBIDDEN",
            )


# Agents


def save(text: str, **arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": "save_memory", "arguments": {"text": text, **arguments}}]}


def search(query: str, **arguments: Any) -> dict[str, Any]:
    return {"calls": [{"name": "search_memory", "arguments": {"query": query, **arguments}}]}


async def observations(rig: Rig, *turns: Any, **fields: Any) -> list[tuple[str, bool]]:
    """What the calls of an agent's turns gave, and whether they succeeded."""
    rules = fields.pop("memory_rules", [{"namespace": "user:{subject.id}"}])
    await make_agent(rig, "keeper", *turns, DONE, memory_rules=rules, tool_groups=[])
    subject = fields.pop("subject", {"type": "customer", "id": "7"})
    thread = await run(rig, "", "keeper", subject=subject, **fields)
    shown = await get(rig, thread.name, full=True)
    await rig.agents.DeleteAgent(_agents.DeleteAgentRequest(name="agents/keeper"))
    return [
        (action.observation, action.status == _Action.SUCCEEDED)
        for turn in shown.iterations
        for action in turn.actions
    ]


async def test_what_an_agent_saves_is_found_by_another_thread_and_by_callers(rig: Rig) -> None:
    await make_agent(
        rig,
        "saver",
        save("Likes green.", key="colour"),
        DONE,
        memory_rules=[{"namespace": "user:{subject.id}"}],
    )
    await make_agent(
        rig,
        "finder",
        search("what colour"),
        DONE,
        memory_rules=[{"namespace": "user:{subject.id}", "access": 1}],
    )
    subject = {"type": "customer", "id": "7"}

    saved = await run(rig, "t1", "saver", subject=subject)
    finder = await run(rig, "t2", "finder", subject=subject)
    other = await run(rig, "t3", "finder", subject={"type": "customer", "id": "8"})

    memory = await read(rig)
    assert (memory.text, memory.thread) == ("Likes green.", "threads/t1")
    assert saved.tools_used == ["save_memory"]
    (found,) = [a.observation for i in (await get(rig, finder.name, full=True)).iterations for a in i.actions]
    (entry,) = json.loads(found)
    assert (entry["key"], entry["text"]) == ("colour", "Likes green.")
    (nothing,) = [
        a.observation for i in (await get(rig, other.name, full=True)).iterations for a in i.actions
    ]
    assert nothing.startswith("nothing was found")


async def test_a_memory_without_a_key_gets_one_of_its_own(rig: Rig) -> None:
    given = await observations(rig, save("One."), save("Two."))

    memories = await listed(rig, "memories/user:7")
    assert [memory.text for memory in memories] == ["Two.", "One."]
    assert given == [(f"saved under {m.name.rpartition('/')[2]}", True) for m in reversed(memories)]


async def test_an_agent_with_several_memories_names_the_one_it_means(rig: Rig) -> None:
    rules = [
        {"namespace": "user:{subject.id}", "alias": "user", "description": "What one customer wants."},
        {"namespace": "team", "alias": "team", "access": _MemoryRule.READ},
    ]
    await put(rig, "memories/team/items/motto", "Customers first")

    given = await observations(
        rig,
        save("x"),
        save("x", memory="team"),
        save("Likes green, and customers.", key="k", memory="user"),
        search("customers"),
        search("customers", memory="team"),
        memory_rules=rules,
    )

    assert [ok for _, ok in given] == [True, False, True, True, True]
    assert [entry["memory"] for entry in json.loads(given[3][0])] == ["user", "team"]
    assert [entry["key"] for entry in json.loads(given[4][0])] == ["motto"]
    assert [memory.name for memory in await listed(rig, "memories/team")] == ["memories/team/items/motto"]


async def test_a_thread_without_what_a_memory_is_named_by_has_none(rig: Rig) -> None:
    given = await observations(
        rig, save("x"), search("x"), memory_rules=[{"namespace": "s:{session}"}], subject=None
    )

    assert [ok for _, ok in given] == [False, False]
    assert all("there is no memory in this thread" in text for text, _ in given)
    assert await listed(rig, "memories/-") == []


async def test_a_value_cannot_reach_beyond_its_place_in_a_namespace(rig: Rig) -> None:
    subject = {"type": "a/b", "id": "x:y-%2Fü"}

    await observations(
        rig, save("x", key="k"), memory_rules=[{"namespace": "{subject.type}:{subject.id}"}], subject=subject
    )

    (memory,) = await listed(rig, "memories/-")
    assert memory.name == "memories/a%2Fb:x%3Ay-%252F%C3%BC/items/k"
    assert await read(rig, memory.name) == memory


async def test_a_session_has_a_memory_of_its_own(rig: Rig) -> None:
    await observations(
        rig, save("x", key="k"), memory_rules=[{"namespace": "{agent}:{session}"}], session_key="room"
    )

    (memory,) = await listed(rig, "memories/-")
    thread = await get(rig, memory.thread)
    assert memory.name == f"memories/keeper:{thread.session.removeprefix('sessions/')}/items/k"


async def test_only_agents_with_memory_rules_have_the_tools(rig: Rig) -> None:
    await make_agent(rig, "plain", save("x"), DONE)

    thread = await get(rig, (await run(rig, "", "plain")).name, full=True)

    (action,) = [action for turn in thread.iterations for action in turn.actions]
    assert "there is no tool 'save_memory'" in action.observation
    assert await listed(rig, "memories/-") == []


@pytest.mark.parametrize(
    ("rules", "fields"),
    [
        ([{}], {"agent.memory_rules[0].namespace"}),
        ([{"namespace": "a b"}], {"agent.memory_rules[0].namespace"}),
        ([{"namespace": "a{nothing}"}], {"agent.memory_rules[0].namespace"}),
        ([{"namespace": "a%2F"}], {"agent.memory_rules[0].namespace"}),
        ([{"namespace": "-"}], {"agent.memory_rules[0].namespace"}),
        ([{"namespace": "a"}, {"namespace": "b"}], {"agent.memory_rules[1].alias"}),
        ([{"namespace": "a", "alias": "A"}], {"agent.memory_rules[0].alias"}),
        ([{"namespace": "a", "alias": f"a{n}"} for n in range(9)], {"agent.memory_rules"}),
    ],
)
async def test_faulty_rules_are_refused_when_the_agent_is_written(
    rig: Rig, rules: list[dict[str, Any]], fields: set[str]
) -> None:
    failure = await failure_of(make_agent(rig, memory_rules=rules))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert failure.fields.keys() == fields


async def test_a_rule_is_shown_with_its_defaults(rig: Rig) -> None:
    await make_agent(rig, memory_rules=[{"namespace": "team"}])

    agent = await rig.agents.GetAgent(_agents.GetAgentRequest(name="agents/helper"))

    assert list(agent.memory_rules) == [
        _MemoryRule(namespace="team", alias="memory", access=_MemoryRule.READ_WRITE)
    ]


# Documents


async def test_a_model_is_told_the_documents_of_its_agent(rig: Rig) -> None:
    documents = [{"title": "Prices", "text": "A costs 1."}, {"title": "Hours", "text": "9 to 5."}]
    await make_agent(rig, instructions="Be brief.", documents=documents)

    agent = await rig.agents.GetAgent(_agents.GetAgentRequest(name="agents/helper"))
    thread = await run(rig, "t1")

    assert [(document.title, document.text) for document in agent.documents] == [
        ("Prices", "A costs 1."),
        ("Hours", "9 to 5."),
    ]
    assert agent.instructions == "Be brief."
    assert thread.success
    store = rig.server.store
    tenant = await store.tenants.find("default")
    assert tenant is not None
    row = await store.threads.get(tenant.key, "t1")
    assert row is not None
    spec, _ = await rig.server._specs.of_thread(row.key)
    assert spec.instructions == with_documents(
        "Be brief.", [Document("Prices", "A costs 1."), Document("Hours", "9 to 5.")]
    )


async def test_documents_have_a_size(rig: Rig) -> None:
    whole = [{"title": f"d{number}", "text": "x" * 65_000} for number in range(4)]
    await make_agent(rig, "full", documents=whole)

    for documents, field in (
        ([{"title": "", "text": "x"}], "agent.documents[0].title"),
        ([{"title": "t", "text": ""}], "agent.documents[0].text"),
        ([{"title": "t", "text": "x" * 65_537}], "agent.documents[0].text"),
        ([*whole, {"title": "t", "text": "x" * 3_000}], "agent.documents"),
        ([{"title": "t", "text": "x"}] * 33, "agent.documents"),
    ):
        failure = await failure_of(make_agent(rig, documents=documents))
        assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(failure.fields) == [field]


async def test_a_new_document_makes_a_new_version(rig: Rig) -> None:
    await make_agent(rig, documents=[{"title": "t", "text": "old"}])
    update = {"name": "agents/helper", "documents": [{"title": "t", "text": "new"}]}

    agent = await rig.agents.UpdateAgent(_agents.UpdateAgentRequest(agent=update))

    assert (agent.version, [document.text for document in agent.documents]) == (2, ["new"])


async def test_lists_of_agents_with_large_documents_come_in_smaller_pages(rig: Rig) -> None:
    documents = [{"title": f"d{number}", "text": "x" * 65_000} for number in range(4)]
    names = [f"agents/a{number}" for number in range(12)]
    for name in names:
        await make_agent(rig, name.removeprefix("agents/"), documents=documents)
    for number in range(9):
        update = {"name": names[0], "instructions": str(number)}
        await rig.agents.UpdateAgent(_agents.UpdateAgentRequest(agent=update))

    for order in ("", "display_name"):
        sizes, found = await pages(
            rig.agents.ListAgents, _agents.ListAgentsRequest(order_by=order), lambda page: page.agents
        )
        assert sorted(agent.name for agent in found) == sorted(names)
        assert max(sizes) < 12
    sizes, versions = await pages(
        rig.agents.ListAgentVersions,
        _agents.ListAgentVersionsRequest(parent=names[0]),
        lambda page: page.agent_versions,
    )
    assert [version.version for version in versions] == list(range(10, 0, -1))
    assert max(sizes) < 10


async def pages(method: Any, request: Any, items: Callable[[Any], Any]) -> tuple[list[int], list[Any]]:
    """How many each page has, and all of them."""
    sizes, found = list[int](), list[Any]()
    while True:
        page = await method(request)
        sizes.append(len(items(page)))
        found += items(page)
        if not page.next_page_token:
            assert getattr(page, "total_size") == len(found)  # noqa: B009 - each of these lists has it
            return sizes, found
        request.page_token = page.next_page_token
