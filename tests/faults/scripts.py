"""Scripts of the scripted model, with a note of its own for every call."""

from collections.abc import Sequence
from typing import Any

Script = dict[str, Any]


def script(thread: str, turns: Sequence[Sequence[str]], *, delay_ms: int = 0, **arguments: Any) -> Script:
    """Turns that call tools, each tool by its name, and an answer. Notes are `thread/turn/place`.

    `arguments` go to every call, but for a dict under a tool's name, which goes to that tool's calls alone.
    """
    played: list[Script] = []
    for number, tools in enumerate(turns, start=1):
        calls = [
            {"name": tool, "arguments": _arguments(f"{thread}/{number}/{place}", tool, arguments)}
            for place, tool in enumerate(tools, start=1)
        ]
        played.append({"thought": f"turn {number}", "calls": calls, "delay_ms": delay_ms})
    played.append({"text": "done after {observation}", "delay_ms": delay_ms})
    return {"turns": played}


def _arguments(note: str, tool: str, given: dict[str, Any]) -> dict[str, Any]:
    shared = {name: value for name, value in given.items() if not isinstance(value, dict)}
    return {"note": note, **shared, **given.get(tool, {})}


def note_of(arguments: dict[str, Any]) -> str:
    """The note of a call of one of these scripts."""
    return str(arguments["note"])
