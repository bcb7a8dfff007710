"""Scripts of the scripted model, with a note of its own for every call."""

from collections.abc import Mapping, Sequence
from typing import Any

Script = dict[str, Any]
Arguments = Mapping[str, Any]


def script(
    thread: str,
    turns: Sequence[Sequence[str]],
    *,
    delay_ms: int = 0,
    more: Mapping[str, Arguments] | None = None,
) -> Script:
    """Turns that call tools, given by name, and an answer. A call's note is `thread/turn/place`.

    `more` has further arguments for all calls of a tool.
    """
    played: list[Script] = []
    for number, tools in enumerate(turns, start=1):
        calls = [
            {"name": tool, "arguments": {"note": f"{thread}/{number}/{place}", **(more or {}).get(tool, {})}}
            for place, tool in enumerate(tools, start=1)
        ]
        played.append({"thought": f"turn {number}", "calls": calls, "delay_ms": delay_ms})
    played.append({"text": "done after {observation}", "delay_ms": delay_ms})
    return {"turns": played}
