"""The tool by which an agent keeps its list of what is to do."""

import json

import pytest

from tests.tools.test_groups import GROUP, MemoryNotes
from treadle_server.core.tasks import STATES, TASKS_MAX, TITLE_CHARACTERS_MAX, tasks_of
from treadle_server.ports.tools import ToolCall
from treadle_server.tools.groups import ToolGroups

TOOLS = ToolGroups(MemoryNotes(), lambda: 0)
(SPEC,) = TOOLS.resolve([GROUP], ["update_tasks"])


def given(*items: object) -> str:
    return json.dumps({"tasks": list(items)})


def item(title: str = "Read", state: str = "DONE", **more: object) -> dict[str, object]:
    return {"title": title, "state": state, **more}


def test_it_is_known_as_the_tool_that_keeps_the_list_and_no_other_is() -> None:
    assert [spec.name for spec in TOOLS.builtins() if spec.keeps_tasks] == ["update_tasks"]


@pytest.mark.parametrize(
    "arguments",
    [
        "{}",
        given("Read"),
        given(item(title="")),
        given(item(title="x" * (TITLE_CHARACTERS_MAX + 1))),
        given(item(state="done")),
        given(item(state="UNSPECIFIED")),
        given(item(owner="me")),
        given(*[item()] * (TASKS_MAX + 1)),
    ],
)
def test_arguments_that_are_no_list_are_refused_by_the_schema(arguments: str) -> None:
    assert TOOLS.problem(SPEC, arguments) is not None


@pytest.mark.parametrize(
    "arguments", [given(), given(*[item("x" * TITLE_CHARACTERS_MAX, state) for state in STATES])]
)
def test_what_the_schema_takes_is_a_list(arguments: str) -> None:
    assert TOOLS.problem(SPEC, arguments) is None
    assert tasks_of(arguments) is not None


async def test_the_model_reads_how_much_of_the_list_is_done() -> None:
    async def answer(arguments: str) -> str:
        call = ToolCall(1, 1, 0, "call-1-1", 1, "key", arguments)
        return (await TOOLS.call(SPEC, call)).observation

    full = await answer(given(item(), item("Add"), item("Tell", "PENDING")))

    assert full == "the list is kept: 1 PENDING, 2 DONE"
    assert await answer(given()) == "the list is empty now"
