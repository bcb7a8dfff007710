"""Scripts of the scripted model, with a note of its own for every call."""

import random
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


TOOLS = ("look", "save", "send")


def random_script(thread: str, chance: random.Random) -> Script:
    """One to three turns of one or two calls, with models and tools that take some time."""
    turns = [chance.choices(TOOLS, k=chance.randint(1, 2)) for _ in range(chance.randint(1, 3))]
    made = script(thread, turns)
    for turn in made["turns"]:
        turn["delay_ms"] = chance.choice((0, 20, 100, 300))
        for call in turn.get("calls", ()):
            call["arguments"]["delay_ms"] = chance.choice((0, 0, 10, 100))
            if chance.random() < 0.05 and call["name"] != "send":
                call["arguments"]["failing_attempts"] = 1
    return made
