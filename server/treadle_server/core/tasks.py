"""The agent's own list of what is to do, as it stands in the arguments of the tool that keeps it."""

import json

from treadle_server.core.kinds import TaskState
from treadle_server.core.values import Task

TASKS_MAX = 50
TITLE_CHARACTERS_MAX = 200
STATES = tuple(state.name for state in TaskState if state)


def tasks_of(arguments_json: str) -> tuple[Task, ...] | None:
    """The list, or None when the arguments are none: they were checked, but perhaps by another release."""
    try:
        items = json.loads(arguments_json)["tasks"]
        tasks = tuple(Task(item["title"], TaskState[item["state"]]) for item in items)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return tasks if len(tasks) <= TASKS_MAX and all(map(_fits, tasks)) else None


def _fits(task: Task) -> bool:
    named = isinstance(task.title, str) and 0 < len(task.title) <= TITLE_CHARACTERS_MAX
    return named and task.state is not TaskState.UNSPECIFIED
