"""A transcript as questions, each with the calls made for it and what they gave."""

import json
import re
from dataclasses import dataclass, field

from treadle_server.core.kinds import CallStatus
from treadle_server.core.transcript import (
    CallEntry,
    ModelEntry,
    ProblemEntry,
    ToolEntry,
    Transcript,
    UserEntry,
)
from treadle_server.core.values import Content
from treadle_server.models.demo.steps import Call, Seen

_DROPS = re.compile(
    r"^\s*(?:stop|never ?mind|forget (?:that|it|about it)|cancel (?:that|it)|ignore "
    r"(?:that|it|the previous question|my last message)|scrap (?:that|"
    r"it))\b[\s,.!;:-]*(?:and\s+)?(?:instead\b[\s,:]*)?",
    re.IGNORECASE,
)
_REPLACES = re.compile(
    r"^\s*(?:no,?\s+)?(?:actually|instead|rather|wait|sorry|no)\b[\s,.!:-]*|\s*,?\s*\binstead\s*[.!?]?\s*$",
    re.IGNORECASE,
)
_SWAPS = re.compile(
    r"(?P<new>[$€£]?[\w.:%']+)\s*,?\s+(?:instead of|rather than|(?:and "
    r")?not)\s+(?P<old>[$€£]?[\w.:%']+?)[.!]?\s*$",
    re.IGNORECASE,
)
_STEER_MAX = 2_000
_ADDS = re.compile(r"^\s*(?:also|and|then|plus|additionally|in addition|after that|next)\b", re.IGNORECASE)


@dataclass(slots=True)
class _Executed:
    tool: str
    arguments: str
    seen: Seen
    turn: int
    claimed: bool = False


@dataclass(slots=True)
class Question:
    """What the user said up to a final answer, and what was done for it."""

    said: list[Content] = field(default_factory=list)
    executed: list[_Executed] = field(default_factory=list)
    answered: bool = False
    problems: list[str] = field(default_factory=list)
    steered_at: int = 0
    """Turn of the last thing said."""

    def claim(self, call: Call) -> Seen | None:
        """The outcome of exactly this call, each outcome once."""
        wanted = _canonical(call.arguments_json)
        for done in self.executed:
            if not done.claimed and done.tool == call.tool and done.arguments == wanted:
                done.claimed = True
                return done.seen
        return None

    def claim_edited(self, call: Call) -> Seen | None:
        """The outcome of a call whose arguments somebody changed before it ran."""
        for done in self.executed:
            if not done.claimed and done.tool == call.tool and done.turn > self.steered_at:
                done.claimed = True
                return done.seen
        return None

    def release(self) -> None:
        for done in self.executed:
            done.claimed = False


def questions_of(transcript: Transcript) -> list[Question]:
    """The questions in order; the last one is open. Entries that fit nowhere are passed over."""
    found: list[Question] = []
    calls: dict[str, CallEntry] = {}
    turn = 0
    for entry in transcript.entries:
        match entry:
            case UserEntry(content):
                if not found or found[-1].answered:
                    found.append(Question())
                found[-1].said.append(content)
                found[-1].steered_at = turn
            case ModelEntry() if found:
                turn += 1
                _give_up(found[-1], calls, turn)
                calls = {call.tool_call_id: call for call in entry.calls}
                found[-1].answered = not entry.calls
            case ToolEntry() if found and entry.tool_call_id in calls:
                call = calls.pop(entry.tool_call_id)
                seen = Seen(entry.status, entry.observation)
                found[-1].executed.append(_Executed(call.name, _canonical(call.arguments_json), seen, turn))
            case ProblemEntry(problem) if found:
                found[-1].answered = False
                found[-1].problems.append(problem)
            case _:
                pass
    if found:
        _give_up(found[-1], calls, turn)
    return found


def _give_up(question: Question, calls: dict[str, CallEntry], turn: int) -> None:
    """Calls of a turn that were never answered count as abandoned."""
    for call in calls.values():
        seen = Seen(CallStatus.ABANDONED, "the call has no result")
        question.executed.append(_Executed(call.name, _canonical(call.arguments_json), seen, turn))
    calls.clear()


def _canonical(arguments_json: str) -> str:
    try:
        return json.dumps(json.loads(arguments_json or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments_json


def texts_of(question: Question) -> list[str]:
    """What the user wants in the end: later words correct, replace or add to earlier ones."""
    texts: list[str] = []
    for text in filter(None, (_text(content) for content in question.said)):
        steers = bool(texts) and len(text) <= _STEER_MAX
        swap = _SWAPS.search(text) if steers else None
        if swap and re.search(_whole(swap["old"]), texts[-1]):
            texts[-1] = re.sub(_whole(swap["old"]), lambda _, new=swap["new"]: new, texts[-1])  # type: ignore[misc]
        elif steers and (drop := _DROPS.match(text)):
            texts = [text[drop.end() :]]
        elif steers and _REPLACES.search(text) and not _ADDS.match(text):
            texts = [_REPLACES.sub("", text)]
        else:
            texts.append(text)
    return [text for text in texts if text.strip()]


def _whole(word: str) -> str:
    return rf"(?<![\w.]){re.escape(word)}(?![\w]|\.\d)"


def _text(content: Content) -> str:
    """The words, with a document behind them if one came along; or the question within the data."""
    if not content.data_json:
        return content.text
    if content.text.strip():
        return f"{content.text}\n{content.data_json}"
    try:
        data = json.loads(content.data_json)
    except (ValueError, RecursionError):
        return ""
    if isinstance(data, str):
        return data
    if not isinstance(data, dict):
        return content.data_json
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    asked = next(
        (
            name
            for name in ("question", "prompt", "query", "text", "input", "message", "task", "request")
            if name in texts
        ),
        "",
    )
    if not asked:
        return next(iter(texts.values())) if len(texts) == 1 else content.data_json
    rest = {name: value for name, value in data.items() if name != asked}
    return f"{texts[asked]}\n{json.dumps(rest, ensure_ascii=False)}" if rest else texts[asked]
