"""The tools of memories: how an agent with rules sees them, and how a call ends."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import Effect, MemoryAccess
from treadle_server.core.memory import TEXT_BYTES_MAX, MemoryPlace, MemoryRule
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.catalogue.memories import MemoryRow
from treadle_server.ports.log import ThreadKey
from treadle_server.ports.tools import ToolCall, ToolError, ToolResult
from treadle_server.tools.memory_tools import MemoryTools

NOW = 1_785_000_000_123_456
USER = MemoryRule("user:{subject.id}", "user", "What the customer wants.")
TEAM = MemoryRule("team", "team", "How we work.", MemoryAccess.READ)
LOG = MemoryRule("log", "log")
PLACES = (MemoryPlace("user", "user:7"), MemoryPlace("team", "team"), MemoryPlace("log", "log"))


class KeptMemories:
    """Memories in a dict. A search finds those whose text has the query in it."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str], str] = {}
        self.fault: Exception | None = None

    async def save(self, thread: ThreadKey, namespace: str, key: str, text: str) -> None:
        assert thread == ThreadKey(1, 7)
        if self.fault is not None:
            raise self.fault
        self.texts[namespace, key] = text

    async def search(
        self, tenant: int, namespaces: Sequence[str], query: str, limit: int
    ) -> Sequence[MemoryRow]:
        assert tenant == 1
        if self.fault is not None:
            raise self.fault
        found = [
            MemoryRow(number, tenant, namespace, key, text, "", 1, NOW, NOW)
            for number, ((namespace, key), text) in enumerate(self.texts.items(), 1)
            if namespace in namespaces and query in text
        ]
        return found[:limit]


class Others:
    """Another toolbox with one tool."""

    spec = ToolSpec("other", "builtin/other", "Another tool.", '{"type":"object"}')

    def builtins(self) -> tuple[ToolSpec, ...]:
        return (self.spec,)

    def resolve(self, tool_groups: Sequence[str], enabled_tools: Sequence[str]) -> tuple[ToolSpec, ...]:
        return (self.spec,) if tool_groups else ()

    def problem(self, spec: ToolSpec, arguments_json: str) -> str | None:
        return "asked the other"

    async def call(self, spec: ToolSpec, call: ToolCall) -> ToolResult:
        return ToolResult("the other answered")


@pytest.fixture
def kept() -> KeptMemories:
    return KeptMemories()


@pytest.fixture
def tools(kept: KeptMemories) -> MemoryTools:
    return MemoryTools(Others(), kept)


def spec_of(tools: MemoryTools, name: str, *rules: MemoryRule) -> ToolSpec:
    (found,) = [spec for spec in tools.of_memory(rules) if spec.name == name]
    return found


async def called(
    tools: MemoryTools, spec: ToolSpec, *, places: Sequence[MemoryPlace] = PLACES, **arguments: Any
) -> ToolResult:
    text = json.dumps(arguments)
    assert tools.problem(spec, text) is None
    aliases = {rule.alias for rule in spec.memory}
    allowed = tuple(place for place in places if place.alias in aliases)
    return await tools.call(spec, ToolCall(1, 7, 0, "call-1", 1, "the key of the call", text, allowed))


def test_an_agent_has_the_tools_that_its_rules_give(tools: MemoryTools) -> None:
    def names(*rules: MemoryRule) -> list[str]:
        return [spec.name for spec in tools.of_memory(rules)]

    assert names() == []
    assert names(TEAM) == ["search_memory"]
    assert names(USER) == names(USER, TEAM) == ["search_memory", "save_memory"]
    assert spec_of(tools, "save_memory", USER, TEAM).memory == (USER,)
    assert spec_of(tools, "search_memory", USER, TEAM).memory == (USER, TEAM)


@pytest.mark.parametrize("rules", [(USER,), (TEAM,), (USER, TEAM), (USER, TEAM, LOG)])
def test_every_tool_has_a_description_and_a_sound_schema(
    tools: MemoryTools, rules: tuple[MemoryRule, ...]
) -> None:
    for spec in tools.of_memory(rules):
        schema = json.loads(spec.parameters_schema_json)
        jsonschema_rs.meta.validate(schema)
        assert spec.tool == f"builtin/{spec.name}"
        assert all(len(field["description"]) > 10 for field in schema["properties"].values())
        assert ("memory" in schema["properties"]) is (len(rules) > 1)
        whole = spec.description + json.dumps(schema)
        assert all(rule.description in whole for rule in spec.memory)


def test_saving_may_be_repeated_and_searching_changes_nothing(tools: MemoryTools) -> None:
    assert spec_of(tools, "save_memory", USER).effect is Effect.IDEMPOTENT
    assert spec_of(tools, "search_memory", USER).effect is Effect.READ_ONLY


def test_a_memory_is_named_only_where_there_are_several(tools: MemoryTools) -> None:
    one = spec_of(tools, "save_memory", USER, TEAM)
    several = spec_of(tools, "save_memory", USER, LOG)

    assert tools.problem(one, '{"text":"x"}') is None
    assert tools.problem(one, '{"text":"x","memory":"user"}') is None
    assert "memory" in (tools.problem(one, '{"text":"x","memory":"team"}') or "")
    assert "memory" in (tools.problem(several, '{"text":"x"}') or "")
    assert tools.problem(several, '{"text":"x","memory":"log"}') is None


@pytest.mark.parametrize("key", ["a b", "-k", "ü", "a/b", "k" * 129])
def test_a_key_is_what_the_api_takes(tools: MemoryTools, key: str) -> None:
    assert tools.problem(spec_of(tools, "save_memory", USER), json.dumps({"text": "x", "key": key}))


async def test_what_is_saved_is_found(tools: MemoryTools, kept: KeptMemories) -> None:
    save, search = spec_of(tools, "save_memory", USER), spec_of(tools, "search_memory", USER)

    saved = await called(tools, save, text="Likes green.", key="colour")
    found = await called(tools, search, query="green")
    nothing = await called(tools, search, query="blue")

    assert saved == ToolResult("saved under colour")
    assert kept.texts == {("user:7", "colour"): "Likes green."}
    assert json.loads(found.observation) == [
        {"key": "colour", "text": "Likes green.", "saved": "2026-07-25T17:20:00+00:00"}
    ]
    assert nothing.ok
    assert "nothing was found" in nothing.observation


async def test_a_further_attempt_saves_under_the_same_key(tools: MemoryTools, kept: KeptMemories) -> None:
    save = spec_of(tools, "save_memory", USER)

    first = await called(tools, save, text="x")
    again = await called(tools, save, text="x")

    assert first == again
    assert list(kept.texts) == [("user:7", first.observation.removeprefix("saved under "))]


async def test_a_search_says_which_memory_it_found_something_in(
    tools: MemoryTools, kept: KeptMemories
) -> None:
    kept.texts = {("user:7", "a"): "x", ("team", "b"): "x", ("user:8", "c"): "x", ("log", "d"): "x"}
    search = spec_of(tools, "search_memory", USER, TEAM)

    both = await called(tools, search, query="x")
    one = await called(tools, search, query="x", memory="team")

    assert [(entry["memory"], entry["key"]) for entry in json.loads(both.observation)] == [
        ("user", "a"),
        ("team", "b"),
    ]
    assert [entry["key"] for entry in json.loads(one.observation)] == ["b"]


async def test_many_long_memories_are_shortened_and_still_json(
    tools: MemoryTools, kept: KeptMemories
) -> None:
    kept.texts = {("user:7", f"k{number}"): "ü" * 8000 for number in range(20)}

    found = await called(tools, spec_of(tools, "search_memory", USER), query="ü", limit=20)

    entries = json.loads(found.observation)
    assert len(entries) == 20
    assert all("truncated" in entry["text"] for entry in entries)


@pytest.mark.parametrize("name", ["save_memory", "search_memory"])
async def test_a_thread_that_has_no_such_memory_is_told(
    tools: MemoryTools, kept: KeptMemories, name: str
) -> None:
    arguments = {"text": "x"} if name == "save_memory" else {"query": "x"}

    result = await called(tools, spec_of(tools, name, USER), places=(), **arguments)

    assert not result.ok
    assert "in this thread" in result.observation
    assert kept.texts == {}


async def test_what_cannot_be_kept_is_told(tools: MemoryTools, kept: KeptMemories) -> None:
    save = spec_of(tools, "save_memory", USER)
    kept.fault = Refused(Reason.QUOTA_EXCEEDED, "there is no room")

    full = await called(tools, save, text="x")
    large = await called(tools, save, text="日" * 8000)
    bad = await called(tools, save, text="a\x00b")

    assert full == ToolResult("there is no room", ok=False)
    assert not large.ok
    assert str(TEXT_BYTES_MAX) in large.observation
    assert not bad.ok


async def test_a_damaged_memory_is_told(tools: MemoryTools, kept: KeptMemories) -> None:
    kept.fault = Refused(Reason.RECORD_CORRUPT, "memories/n/items/k is damaged in the store")

    result = await called(tools, spec_of(tools, "search_memory", USER), query="x")

    assert result == ToolResult("memories/n/items/k is damaged in the store", ok=False)


async def test_a_store_that_fails_is_tried_again_and_not_quoted(
    tools: MemoryTools, kept: KeptMemories
) -> None:
    kept.fault = OSError("/var/lib/secret")

    with pytest.raises(ToolError) as caught:
        await called(tools, spec_of(tools, "save_memory", USER), text="x")

    assert caught.value.retryable
    assert "secret" not in caught.value.message


async def test_everything_else_is_the_other_toolbox(tools: MemoryTools) -> None:
    other = Others.spec

    assert tools.builtins() == tools.resolve(["g"], []) == (other,)
    assert tools.resolve([], []) == ()
    assert tools.problem(other, "{}") == "asked the other"
    call = ToolCall(1, 7, 0, "c", 1, "k", "{}")
    assert (await tools.call(other, call)).observation == "the other answered"
    assert (
        await tools.call(replace(other, tool="builtin/save_memory"), call)
    ).observation == "the other answered"
