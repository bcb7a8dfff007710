"""What a tool's answer says: a number, a moment, a note, a list."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from treadle_server.models.demo.documents.documents import is_number

_NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w])")
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?")
_OFFSET = re.compile(r"(?:UTC|GMT)?\s*([+-])(\d{1,2})(?::?(\d{2}))?")
_NOTHING = re.compile(
    r"^\s*(?:|null|none|\"\"|\[\]|\{\})\s*$|\b(?:no (?:such )?(?:notes?|text|entry|value|"
    r"key|memory)|nothing|not found|unknown key|not stored|does not exist|no .{0,30} "
    r"(?:stored|saved|remembered|found))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Moment:
    """What a clock showed. The offset is in hours, as an expression takes it."""

    shown: datetime
    weekday: str
    offset: str


def number_in(text: str) -> str | None:
    """The number that an observation gives; of several, the one behind `=` or `is`, else the last."""
    value = _decoded(text)
    if is_number(value):
        return text.strip().removesuffix(".0")
    if isinstance(value, list) and len(value) == 1 and is_number(value[0]):
        return json.dumps(value[0])
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return number_in(value[0])
    if isinstance(value, list):
        return None
    if isinstance(value, dict):
        numbers = [item for item in value.values() if is_number(item)]
        return json.dumps(numbers[0]) if len(numbers) == 1 else None
    found = list(_NUMBER.finditer(value if isinstance(value, str) else text))
    if not found:
        return None
    source = value if isinstance(value, str) else text
    marked = [
        match
        for match in found
        if re.search(r"(?:=|\bis|\bresult:?|\banswer:?)\s*$", source[: match.start()])
    ]
    return (marked or found)[-1].group().replace(",", "").replace("−", "-")


def numbers_in_list(text: str) -> list[str] | None:
    """The numbers of a JSON list, also of one whose numbers are texts."""
    value = _decoded(text)
    if not isinstance(value, list) or not value:
        return None
    numbers = [number_in(item if isinstance(item, str) else json.dumps(item)) for item in value]
    return None if None in numbers else [number for number in numbers if number is not None]


def rows_in(text: str) -> list[list[str]] | None:
    """The rows of numbers of a JSON list of lists."""
    value = _decoded(text)
    if not isinstance(value, list) or not value:
        return None
    rows = [numbers_in_list(json.dumps(row)) if isinstance(row, list) else None for row in value]
    return None if None in rows else [row for row in rows if row is not None]


def moment_in(text: str) -> Moment | None:
    """The moment that a clock's answer tells, None when it tells none."""
    match = _ISO.search(text)
    if match is None:
        return None
    try:
        shown = datetime.fromisoformat(match.group().replace("Z", "+00:00").replace(" ", "T"))
    except ValueError:
        return None
    value = _decoded(text)
    fields = value if isinstance(value, dict) else {}
    weekday = str(fields.get("weekday") or shown.strftime("%A"))
    said = str(fields.get("utc_offset") or "")
    own = shown.utcoffset()
    offset = _hours(said) if said else None
    if offset is None and own is not None:
        offset = _trimmed(own.total_seconds() / 3600)
    return Moment(shown, weekday, offset if offset is not None else "0")


def _hours(text: str) -> str | None:
    match = _OFFSET.search(text)
    if match is None:
        return "0" if text.strip().upper() in ("Z", "UTC", "GMT") else None
    hours = int(match.group(2)) + int(match.group(3) or 0) / 60
    return _trimmed(-hours if match.group(1) == "-" else hours)


def _trimmed(hours: float) -> str:
    return str(int(hours)) if hours == int(hours) else str(round(hours, 4))


def says_nothing(text: str) -> bool:
    """Whether a note tool answered that there is no such note."""
    return bool(_NOTHING.search(text)) and len(text) < 200


def keys_in(text: str) -> list[str]:
    """The keys of a listing, however it is laid out."""
    value = _decoded(text)
    if isinstance(value, dict):
        inner = next((item for item in value.values() if isinstance(item, list)), None)
        return [str(key) for key in (inner if inner is not None else value)]
    if isinstance(value, list):
        return [str(item) for item in value]
    body = text.rpartition(":")[2] if re.match(r"^[^\n,]{0,40}:", text) and "\n" not in text.strip() else text
    parts = [re.sub(r"^[-*•\s]+|[\s.]+$", "", part) for part in re.split(r"[\n,;]", body)]
    return [part.split(":")[0].strip(" \"'`") for part in parts if part]


def note_text(text: str) -> str:
    """The note itself, also out of an answer in JSON."""
    value = _decoded(text)
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for name in ("text", "value", "content", "note"):
            if isinstance(value.get(name), str | int | float):
                return str(value[name])
    return text.strip()


def told(text: str) -> str:
    """A JSON answer as words of a sentence."""
    value = _decoded(text)
    if isinstance(value, list) and all(not isinstance(item, dict | list) for item in value):
        return ", ".join(_word(item) for item in value) or "nothing"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return _word(value) if value is not _UNDECODED else text.strip()


def _word(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


_UNDECODED = object()


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _UNDECODED
