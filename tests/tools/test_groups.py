"""The toolbox: what an agent may call, and how a call ends."""

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import replace

import jsonschema_rs
import pytest

from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import Effect
from treadle_server.ports.tools import ToolCall, ToolError, ToolResult
from treadle_server.tools.groups import ToolGroups

NOW_MICROS = 1_785_000_000_123_456
GROUP = "toolGroups/builtin"
NAMES = [
    "calculator",
    "current_time",
    "json_query",
    "remember",
    "recall",
    "update_tasks",
    "ask_user",
    "finish",
]


class MemoryNotes:
    """Notes in a dict, with room for a few in each scope."""

    ROOM = 3

    def __init__(self) -> None:
        self.texts: dict[tuple[int, str], dict[str, str]] = {}
        self.broken = False
        self.threads: set[int] = set()

    async def put(self, tenant: int, scope: str, key: str, text: str) -> None:
        self.threads.add(threading.get_ident())
        if self.broken:
            raise OSError("/var/lib/secret: no space")
        texts = self.texts.setdefault((tenant, scope), {})
        if key not in texts and len(texts) == self.ROOM:
            raise Refused(Reason.FIELD_INVALID, "there is room for 3 notes")
        texts[key] = text

    async def get(self, tenant: int, scope: str, key: str) -> str | None:
        return self.texts.get((tenant, scope), {}).get(key)

    async def keys(self, tenant: int, scope: str) -> list[str]:
        return sorted(self.texts.get((tenant, scope), {}))


@pytest.fixture
def notes() -> MemoryNotes:
    return MemoryNotes()


@pytest.fixture
def tools(notes: MemoryNotes) -> ToolGroups:
    return ToolGroups(notes, lambda: NOW_MICROS)


async def called(
    tools: ToolGroups, name: str, arguments: dict[str, object], *, thread: int = 7, session: int = 0
) -> ToolResult:
    (spec,) = tools.resolve([GROUP], [name])
    text = json.dumps(arguments)
    assert tools.problem(spec, text) is None
    return await tools.call(spec, ToolCall(1, thread, session, "call-1", 1, "key", text))


def test_every_builtin_has_a_description_and_a_sound_schema(tools: ToolGroups) -> None:
    for spec in tools.builtins():
        schema = json.loads(spec.parameters_schema_json)
        jsonschema_rs.meta.validate(schema)
        assert spec.tool == f"builtin/{spec.name}"
        assert len(spec.description) > 40
        assert all(len(field["description"]) > 10 for field in schema["properties"].values())


def test_effects_are_those_of_what_the_tools_do(tools: ToolGroups) -> None:
    effects = {spec.name: spec.effect for spec in tools.builtins()}

    assert list(effects) == NAMES
    assert effects.pop("remember") is Effect.IDEMPOTENT
    assert set(effects.values()) == {Effect.READ_ONLY}
    assert [spec.name for spec in tools.builtins() if spec.finishes] == ["finish"]


@pytest.mark.parametrize(
    ("groups", "enabled", "names"),
    [
        ([], [], []),
        ([GROUP], [], NAMES),
        ([GROUP, GROUP], [], NAMES),
        ([GROUP], ["finish", "calculator"], ["calculator", "finish"]),
        ([GROUP], ["builtin/recall", "recall", "builtin/finish"], ["recall", "finish"]),
    ],
)
def test_an_agent_gets_the_tools_of_its_groups_that_it_enables_in_one_order(
    tools: ToolGroups, groups: Sequence[str], enabled: Sequence[str], names: list[str]
) -> None:
    assert [spec.name for spec in tools.resolve(groups, enabled)] == names


@pytest.mark.parametrize(
    ("groups", "enabled", "fields"),
    [
        (["toolGroups/mine"], [], ["agent.tool_groups[0]"]),
        ([GROUP, "builtin", ""], [], ["agent.tool_groups[1]", "agent.tool_groups[2]"]),
        (
            [GROUP],
            ["calculator", "calc", "toolServers/s/tools/finish"],
            ["agent.enabled_tools[1]", "agent.enabled_tools[2]"],
        ),
        ([], ["calculator"], ["agent.enabled_tools[0]"]),
        (["x"], ["y"], ["agent.tool_groups[0]", "agent.enabled_tools[0]"]),
    ],
)
def test_every_name_that_is_not_there_is_refused_by_its_place(
    tools: ToolGroups, groups: Sequence[str], enabled: Sequence[str], fields: list[str]
) -> None:
    with pytest.raises(Refused) as caught:
        tools.resolve(groups, enabled)

    assert caught.value.reason is Reason.FIELD_INVALID
    assert [violation.field for violation in caught.value.violations] == fields


async def test_arithmetic_is_computed(tools: ToolGroups) -> None:
    assert await called(tools, "calculator", {"expression": "6*7"}) == ToolResult("42")


async def test_a_hostile_query_does_not_hold_up_the_event_loop(tools: ToolGroups) -> None:
    document = "[" + "1," * 32_000 + "1]"
    query = "|".join(["[?@ > `0`]"] * 80)
    task = asyncio.create_task(called(tools, "json_query", {"document": document, "query": query}))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1

    assert "too many steps" in (await task).observation
    assert turns > 3


async def test_a_tool_that_cannot_says_why_and_is_not_an_error(tools: ToolGroups) -> None:
    assert await called(tools, "calculator", {"expression": "1/0"}) == ToolResult(
        "division by zero", ok=False
    )


async def test_the_time_is_that_of_the_servers_clock_in_the_zone_asked_for(tools: ToolGroups) -> None:
    result = await called(tools, "current_time", {"time_zone": "Asia/Kolkata"})
    utc = await called(tools, "current_time", {})

    assert result.observation == (
        '{"iso":"2026-07-25T22:50:00+05:30","time_zone":"Asia/Kolkata",'
        '"utc_offset":"+05:30","weekday":"Saturday"}'
    )
    assert json.loads(utc.observation)["iso"] == "2026-07-25T17:20:00+00:00"


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Belrin", "Europe/Berlin"),
        ("new york", "America/New_York"),
        ("berlin", "Europe/Berlin"),
        ("../../etc/passwd", "time zone"),
        ("Europe", "Europe/"),
        ("", "IANA name"),
        ("/etc/localtime", "time zone"),
    ],
)
async def test_an_unknown_time_zone_brings_close_ones(tools: ToolGroups, zone: str, hint: str) -> None:
    result = await called(tools, "current_time", {"time_zone": zone})

    assert not result.ok
    assert hint in result.observation


async def test_json_is_queried(tools: ToolGroups) -> None:
    result = await called(tools, "json_query", {"document": '{"a":[1,2]}', "query": "a[1]"})

    assert result == ToolResult("2")


async def test_notes_are_shared_within_a_session_and_otherwise_stay_with_their_thread(
    tools: ToolGroups, notes: MemoryNotes
) -> None:
    await called(tools, "remember", {"key": "name", "text": "Ada"}, thread=7, session=3)
    await called(tools, "remember", {"key": "name", "text": "Bob"}, thread=7)

    same_session = await called(tools, "recall", {"key": "name"}, thread=8, session=3)
    same_thread = await called(tools, "recall", {"key": "name"}, thread=7)
    another_thread = await called(tools, "recall", {"key": "name"}, thread=3)

    assert same_session == ToolResult("Ada")
    assert same_thread == ToolResult("Bob")
    assert not another_thread.ok
    assert list(notes.texts) == [(1, "sessions/3"), (1, "threads/7")]
    assert notes.threads == {threading.get_ident()}


async def test_recall_without_a_key_lists_them(tools: ToolGroups) -> None:
    empty = await called(tools, "recall", {})
    for key in ("b", "a"):
        await called(tools, "remember", {"key": key, "text": ""})

    assert empty == ToolResult("there are no notes yet")
    assert await called(tools, "recall", {}) == ToolResult("a\nb")


async def test_no_room_for_a_note_is_told_to_the_agent(tools: ToolGroups) -> None:
    results = [await called(tools, "remember", {"key": key, "text": "x"}) for key in "abcd"]

    assert [result.ok for result in results] == [True, True, True, False]
    assert results[3].observation == "there is room for 3 notes"


async def test_a_tool_that_breaks_off_may_be_tried_again_and_tells_nothing_of_the_inside(
    tools: ToolGroups, notes: MemoryNotes
) -> None:
    notes.broken = True

    with pytest.raises(ToolError) as caught:
        await called(tools, "remember", {"key": "a", "text": "x"})

    assert caught.value.retryable
    assert caught.value.message == "remember broke off: OSError"


async def test_what_may_take_effect_once_only_is_not_to_be_tried_again(
    tools: ToolGroups, notes: MemoryNotes
) -> None:
    notes.broken = True
    (spec,) = tools.resolve([GROUP], ["remember"])
    call = ToolCall(1, 7, 0, "call-1", 1, "key", '{"key":"a","text":"x"}')

    with pytest.raises(ToolError) as caught:
        await tools.call(replace(spec, effect=Effect.AT_MOST_ONCE), call)

    assert not caught.value.retryable


async def test_finish_gives_the_answer_as_it_is(tools: ToolGroups) -> None:
    assert await called(tools, "finish", {"answer": "It is 42.\n"}) == ToolResult("It is 42.\n")


async def test_a_long_result_is_cut_with_a_mark(tools: ToolGroups) -> None:
    (spec,) = tools.resolve([GROUP], ["finish"])
    call = ToolCall(1, 7, 0, "call-1", 1, "key", json.dumps({"answer": "ü" * 1000}))

    result = await tools.call(replace(spec, output_bytes_max=200), call)

    assert len(result.observation.encode()) <= 200
    assert "[truncated: it has 2000 bytes" in result.observation


async def test_a_tool_that_is_not_here_cannot_be_called(tools: ToolGroups) -> None:
    spec = replace(tools.builtins()[0], tool="toolServers/s/tools/t")

    with pytest.raises(ToolError) as caught:
        await tools.call(spec, ToolCall(1, 7, 0, "call-1", 1, "key", "{}"))

    assert not caught.value.retryable
