"""Requests for tools outside the built-in abilities, by the words of their descriptions."""

import json
import re
from collections.abc import Mapping
from typing import Any

from treadle_server.core.spec import ToolSpec
from treadle_server.models.demo.abilities import properties_of, required_of, schema_of, skills_of
from treadle_server.models.demo.arithmetic.words import stem, word_set
from treadle_server.models.demo.clocks.places import places_in
from treadle_server.models.demo.tasks import Agenda, Errand

_COMMON = word_set(
    """
    the a an of for to in on at by with and or is are be this that it its as from into given any
    some all one what which who how when where please can you me my i your our get give tell show
    use call tool return returns answer answers name text string value current result do does make
    let new about if not no has have will would need want help
    """
)


def read_errand(text: str, agenda: Agenda) -> bool:
    """Adds a call of the tool whose description fits the request and whose parameters it fills."""
    built_in = {skill.tool for skills in skills_of(agenda.tools).values() for skill in skills}
    wanted = _content(text)
    best: tuple[int, ToolSpec | None] = (0, None)
    for tool in agenda.tools:
        if tool.name in built_in or tool.finishes or tool.asks:
            continue
        named = re.search(rf"\b{re.escape(tool.name.lower())}\b", text.lower()) is not None
        shared = len(wanted & _content(tool.description)) + 5 * named
        if shared > best[0]:
            best = (shared, tool)
    if best[1] is None:
        return False
    arguments = _arguments(best[1], text)
    if arguments is None or best[0] < (1 if arguments and len(wanted) <= 4 else 2):
        return False
    agenda.add(Errand(best[1].name, json.dumps(arguments, ensure_ascii=False)))
    return True


def _content(text: str) -> set[str]:
    return {
        _root(word)
        for word in re.findall(r"[a-z]+", text.lower().replace("e-mail", "email"))
        if word not in _COMMON and len(word) > 2
    }


def _root(word: str) -> str:
    word = stem(word)
    return word[:-3] if len(word) > 6 and word.endswith("ing") else word


def _arguments(tool: ToolSpec, text: str) -> dict[str, Any] | None:
    """Values for the parameters from the request, None when a required one is missing."""
    schema = schema_of(tool)
    properties, required = properties_of(schema), required_of(schema)
    numbers = [match.group() for match in re.finditer(r"-?\d+(?:\.\d+)?", text)]
    found: dict[str, Any] = {}
    for name, value in properties.items():
        argument = _argument(name, value, text, numbers)
        if argument is None and name in required and len(required) == 1:
            argument = _object_of(text) if value.get("type", "string") == "string" else None
        if argument is not None:
            found[name] = argument
    return found if set(required) <= set(found) else None


def _argument(name: str, value: Mapping[str, Any], text: str, numbers: list[str]) -> Any:
    options = value.get("enum")
    if isinstance(options, list):
        return next(
            (
                option
                for option in options
                if re.search(rf"\b{re.escape(str(option))}\b", text, re.IGNORECASE)
            ),
            None,
        )
    kind = value.get("type", "string")
    if kind == "integer":
        whole = next((item for item in numbers if "." not in item), None)
        return int(numbers.pop(numbers.index(whole))) if whole else None
    if kind == "number":
        return float(numbers.pop(0)) if numbers else None
    return _text_argument(name.lower(), text) if kind == "string" else None


def _text_argument(name: str, text: str) -> str | None:
    patterns = (
        (r"mail|recipient|^to$", r"([\w.+-]+@[\w.-]+\w)"),
        (r"url|uri|link", r"(https?://\S+)"),
        (r"date|day", r"(\d{4}-\d{2}-\d{2})"),
        (r"path|file", r"(?:^|\s)([\w./-]*[/.][\w./-]*\w)"),
        (r"subject|title|body|message|text|content|query|note|reason|phrase", r"[\"“']([^\"”']+)[\"”']"),
        (
            r"body|message|text|content",
            r"\b(?:saying|that says|with the (?:text|message))\s*:?\s*(.+?)[.!?]?$",
        ),
        (r"query|question|search|topic|term|^q$", r"\b(?:for|about|on)\s+(.+?)[.!?]?$"),
        (r"recipient|^to$|user|person|name|customer", r"\b(?:to|for|named|called)\s+([A-Z][\w-]+)"),
        (r"_?id$|number|order|code|sku", r"\b((?=[\w-]*\d)[\w-]+)\b"),
    )
    if re.search(r"city|place|location|town|country|destination|region", name):
        places = places_in(text)
        match = re.search(r"\b(?:in|for|at|to|of)\s+([A-Z][\w'-]*(?:\s[A-Z][\w'-]*)*)", text)
        return match.group(1) if match else (places[0].name if places else None)
    for concerns, pattern in patterns:
        match = re.search(pattern, text) if re.search(concerns, name) else None
        if match:
            return match.group(1)
    return None


def _object_of(text: str) -> str | None:
    """What stands in quotes or behind the last preposition."""
    match = re.search(r"[\"“']([^\"”']+)[\"”']", text) or re.search(
        r"\b(?:for|of|in|about|with|to|on|named|called)\s+(?:the\s+|a\s+)?(.+?)[.!?]*$", text
    )
    return match.group(1) if match else None
