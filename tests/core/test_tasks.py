"""The agent's own list of what is to do."""

import json

import pytest

from tests.core.histories import TOOLS, History, spec, tool
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core.kinds import CallStatus, TaskState
from treadle_server.core.tasks import TASKS_MAX, TITLE_CHARACTERS_MAX, tasks_of
from treadle_server.core.values import ProposedCall, Task

READ = Task("Read the orders", TaskState.DONE)
SUM = Task("Add them up", TaskState.IN_PROGRESS)


def arguments(*tasks: Task) -> str:
    return json.dumps({"tasks": [{"title": task.title, "state": task.state.name} for task in tasks]})


def planned(*lists: str) -> History:
    """A turn that gives these lists, one call each, all of them begun."""
    history = History(spec(tools=(*TOOLS, tool("plan", keeps_tasks=True)))).create()
    calls = tuple(ProposedCall("plan", text) for text in lists)
    return history.begin().reply("", calls=calls).begin()


def returned(history: History, call_id: str = "call-1-1", ok: bool = True) -> list[e.Payload]:
    status = CallStatus.SUCCEEDED if ok else CallStatus.FAILED
    made = history.ask(o.ToolReturned, call_id=call_id, attempt=1, status=status, observation="kept")
    return [event.payload for event in made]


def test_the_list_is_updated_together_with_the_call_that_gives_it() -> None:
    history = planned(arguments(READ, SUM))
    assert not history.state.tasks

    made = returned(history)

    assert made == [
        e.TasksUpdated((READ, SUM)),
        e.ToolCallCompleted("call-1-1", CallStatus.SUCCEEDED, "kept"),
    ]
    assert history.state.tasks == (READ, SUM)


def test_the_list_that_is_kept_last_stands() -> None:
    history = planned(arguments(READ), arguments(SUM), arguments())

    for call_id in ("call-1-2", "call-1-1", "call-1-3"):
        returned(history, call_id)

    updates = [event.payload.tasks for event in history.events if isinstance(event.payload, e.TasksUpdated)]
    assert updates == [(SUM,), (READ,), ()]
    assert history.state.tasks == ()


def test_a_list_that_did_not_change_is_not_told_again() -> None:
    history = planned(arguments(READ), arguments(READ))

    first, second = returned(history), returned(history, "call-1-2")

    assert [type(payload) for payload in (*first, *second)] == [
        e.TasksUpdated,
        e.ToolCallCompleted,
        e.ToolCallCompleted,
    ]


def test_a_call_that_failed_changes_no_list() -> None:
    history = planned(arguments(READ))

    assert [type(payload) for payload in returned(history, ok=False)] == [e.ToolCallCompleted]


def test_another_tool_with_such_arguments_changes_no_list() -> None:
    history = History().create().begin().reply("", calls=(ProposedCall("look", arguments(READ)),)).begin()

    assert [type(payload) for payload in returned(history)] == [e.ToolCallCompleted]


def test_the_list_outlives_the_iteration_and_the_end() -> None:
    history = planned(arguments(READ))
    returned(history)

    history.turn("done")

    assert history.state.ended
    assert history.state.tasks == (READ,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"tasks": 5}',
        '{"tasks": ["read"]}',
        '{"tasks": [{"title": "read"}]}',
        '{"tasks": [{"title": "read", "state": "STARTED"}]}',
        '{"tasks": [{"title": "read", "state": "UNSPECIFIED"}]}',
        '{"tasks": [{"title": "read", "state": ["DONE"]}]}',
        '{"tasks": [{"title": 5, "state": "DONE"}]}',
        '{"tasks": [{"title": "", "state": "DONE"}]}',
        arguments(Task("x" * (TITLE_CHARACTERS_MAX + 1), TaskState.DONE)),
        arguments(*[READ] * (TASKS_MAX + 1)),
        '{"tasks": ' + "[" * 100_000,
    ],
)
def test_what_is_no_list_of_bounded_size_is_none(text: str) -> None:
    assert tasks_of(text) is None


def test_the_largest_list_is_one() -> None:
    longest = Task("x" * TITLE_CHARACTERS_MAX, TaskState.CANCELLED)

    assert tasks_of(arguments(*[longest] * TASKS_MAX)) == (longest,) * TASKS_MAX
