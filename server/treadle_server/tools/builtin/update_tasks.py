"""The agent's own list of what is to do, shown to those who watch."""

from collections import Counter
from typing import Annotated

from treadle_server.core.tasks import STATES, TASKS_MAX, TITLE_CHARACTERS_MAX

_ITEM = {
    "required": ["title", "state"],
    "additionalProperties": False,
    "properties": {
        "title": {
            "type": "string",
            "description": "What is to do, in a few words",
            "minLength": 1,
            "maxLength": TITLE_CHARACTERS_MAX,
        },
        "state": {"description": "How far it is", "enum": list(STATES)},
    },
}


def update_tasks(
    tasks: Annotated[
        list[Annotated[dict[str, str], "One thing to do and how far it is", _ITEM]],
        "The whole list, in order: it replaces the one before",
        {"maxItems": TASKS_MAX},
    ],
) -> str:
    """Keeps your list of what is to do, so that people can see how far you are. Use it for work of several
    steps: give the whole list first, and again whenever a task begins or is done."""
    if not tasks:
        return "the list is empty now"
    counts = Counter(task["state"] for task in tasks)
    return "the list is kept: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
