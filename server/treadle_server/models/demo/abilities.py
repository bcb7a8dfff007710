"""Which offered tool does what, judged by its description and its parameters and never by its name."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from treadle_server.core.spec import ToolSpec


class Ability(Enum):
    """What a step can need. The value says it in an answer."""

    CALCULATE = "evaluates arithmetic"
    CLOCK = "tells the current time in a time zone"
    QUERY = "queries JSON documents"
    STORE = "stores notes"
    FETCH = "fetches stored notes"


@dataclass(frozen=True, slots=True)
class Skill:
    """A tool for an ability, with the parameter that takes each of its inputs."""

    tool: str
    parameters: tuple[tuple[str, str], ...]

    def arguments(self, inputs: Mapping[str, str]) -> dict[str, str]:
        return {name: inputs[slot] for slot, name in self.parameters if slot in inputs}


_SLOTS: dict[Ability, dict[str, str]] = {
    Ability.CALCULATE: {
        "expression": r"expr\w*|formula|calculation|arithmetic|math\w*|equation|sum|input|term"
    },
    Ability.CLOCK: {"zone": r"zone|time ?zone|tz|iana|location|region|city|place|where"},
    Ability.QUERY: {
        "query": r"query|jmespath|path|expr\w*|selector|filter|search",
        "document": r"documents?|json|data|text|input|source|content|body|payload|object",
    },
    Ability.STORE: {
        "key": r"key|name|label|title|id|slot|topic|under|handle",
        "text": r"text|value|content|note|body|data|what|fact|message",
    },
    Ability.FETCH: {"key": r"key|name|label|title|id|slot|topic|note|which|handle"},
}
_WORDS: dict[Ability, tuple[tuple[str, int], ...]] = {
    Ability.CALCULATE: (
        (r"arithmetic|calculat\w*|mathematic\w*|maths?", 4),
        (r"expressions?|formulas?|equations?", 2),
        (r"evaluat\w*|comput\w*|works? out", 2),
        (r"numbers?|numeric\w*|sums?", 1),
    ),
    Ability.CLOCK: (
        (r"time ?zones?|iana|clock", 4),
        (r"current|now|present", 1),
        (r"time|date|hour|day", 2),
    ),
    Ability.QUERY: (
        (r"jmespath|json ?path", 4),
        (r"json", 3),
        (r"quer\w+|extract\w*|select\w*|search\w*|filter\w*|path expression", 2),
        (r"documents?|data|path", 1),
    ),
    Ability.STORE: (
        (
            r"stor(?:es?|ing)|sav(?:es?|ing)|remembers?|keeps?|writes?|records?|puts?|persists?|"
            r"memori[sz]es?|replaces?",
            4,
        ),
        (r"key|notes?|memory|later", 2),
        (r"texts?|values?", 1),
    ),
    Ability.FETCH: (
        (
            r"fetch\w*|recalls?|retriev\w*|reads?|looks? up|gets?|loads?|returns?|gives? back|"
            r"answers?|lists?|finds?|brings?",
            3,
        ),
        (r"remembered|stored|saved|notes?|memory|kept|earlier|recorded|remember", 2),
        (r"key", 1),
        (r"texts?|values?", 1),
    ),
}
_REQUIRED_WORD = {
    Ability.CALCULATE: r"arithmetic|calculat\w*|mathematic\w*|maths?|expressions?|formulas?|equations?|"
    r"numeric\w*",
    Ability.CLOCK: r"time|clock|date|hour|timezone|iana|zone|tz",
    Ability.QUERY: r"json|jmespath|documents?|data|structured",
    Ability.STORE: r"stor\w*|sav\w*|remember\w*|keep\w*|writ\w*|record\w*|put\w*|persist\w*|memor\w*|"
    r"notes?|key",
    Ability.FETCH: r"remember\w*|stor\w*|saved?|notes?|memor\w*|kept|key|record\w*|recall\w*",
}
_ENOUGH = 5


@lru_cache(maxsize=64)
def skills_of(tools: tuple[ToolSpec, ...]) -> Mapping[Ability, tuple[Skill, ...]]:
    """The tools for each ability, the most fitting first. A tool serves one ability."""
    ranked: dict[Ability, list[tuple[int, Skill]]] = {}
    for tool in tools:
        fits = [
            (score, ability, skill)
            for ability in Ability
            for score, skill in [_fit(tool, ability)]
            if skill is not None
        ]
        if fits:
            score, ability, skill = max(fits, key=lambda fit: fit[0])
            ranked.setdefault(ability, []).append((score, skill))
    return {
        ability: tuple(skill for _, skill in sorted(found, key=lambda pair: -pair[0]))
        for ability, found in ranked.items()
    }


def schema_of(tool: ToolSpec) -> dict[str, Any]:
    return schema_of_text(tool.parameters_schema_json)


def schema_of_text(text: str) -> dict[str, Any]:
    """A schema that is no JSON object counts as empty."""
    try:
        schema = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return schema if isinstance(schema, dict) else {}


def properties_of(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {str(name): value if isinstance(value, dict) else {} for name, value in properties.items()}


def required_of(schema: Mapping[str, Any]) -> list[str]:
    required = schema.get("required")
    return [str(name) for name in required] if isinstance(required, list) else []


def _fit(tool: ToolSpec, ability: Ability) -> tuple[int, Skill | None]:
    if tool.finishes or tool.asks:
        return 0, None
    schema = schema_of(tool)
    texts = {name: value for name, value in properties_of(schema).items() if _takes_text(value)}
    chosen = _assigned(texts, required_of(schema), _SLOTS[ability])
    if chosen is None:
        return 0, None
    said = _words(tool.description)
    evidence = (
        said
        + " "
        + " ".join(_words(f"{name} {value.get('description', '')}") for name, value in texts.items())
    )
    if not re.search(rf"\b(?:{_REQUIRED_WORD[ability]})\b", evidence):
        return 0, None
    score = sum(weight for pattern, weight in _WORDS[ability] if re.search(rf"\b(?:{pattern})\b", said))
    score += sum(3 for slot, name in chosen if re.search(rf"\b(?:{_SLOTS[ability][slot]})\b", _words(name)))
    score += 2 * len(chosen) if len(chosen) > 1 else 0
    score -= 2 * (len(texts) - len(chosen))
    return (score, Skill(tool.name, chosen)) if score >= _ENOUGH else (score, None)


def _takes_text(value: Mapping[str, Any]) -> bool:
    kinds = value.get("type", "string")
    options = value.get("anyOf") or value.get("oneOf")
    if "type" not in value and isinstance(options, list):
        return any(isinstance(option, dict) and option.get("type") == "string" for option in options)
    return kinds == "string" or (isinstance(kinds, list) and "string" in kinds)


def _assigned(
    texts: Mapping[str, Mapping[str, Any]], required: Sequence[str], slots: Mapping[str, str]
) -> tuple[tuple[str, str], ...] | None:
    """One parameter for each slot; None when the tool needs more or takes less."""
    if len(texts) < len(slots) or len(required) > len(slots):
        return None
    free = list(texts)
    chosen: dict[str, str] = {}
    scored = sorted(
        (
            (_likeness(name, texts[name], pattern, name in required), slot, name)
            for slot, pattern in slots.items()
            for name in free
        ),
        key=lambda item: -item[0],
    )
    for _, slot, name in scored:
        if slot not in chosen and name not in chosen.values():
            chosen[slot] = name
    if not set(required) <= set(chosen.values()):
        return None
    return tuple(sorted(chosen.items()))


def _likeness(name: str, value: Mapping[str, Any], pattern: str, required: bool) -> int:
    score = 8 if re.search(rf"\b(?:{pattern})\b", _words(name)) else 0
    score += 3 * len(re.findall(rf"\b(?:{pattern})\b", _words(str(value.get("description", ""))))) and 3
    return score + required


def _words(text: str) -> str:
    return re.sub(r"[_\W]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", text)).lower()
