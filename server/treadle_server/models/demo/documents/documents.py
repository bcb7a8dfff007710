"""JSON that a user pasted: where it stands in the text, and what it holds."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from treadle_server.models.demo.arithmetic.words import stem

_FENCE = re.compile(r"```[a-zA-Z]*\n?|```")
_OPENING = re.compile(r"[\[{]")
_ROWS_MAX = 2_000
_ATTEMPTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Field:
    """A place in a document: values of one name in a list of objects, or one value on its own."""

    name: str
    parents: tuple[str, ...]
    """Steps from the top; a list step ends with `[]`."""
    samples: tuple[Any, ...]

    @property
    def path(self) -> str:
        return joined((*self.parents, quoted(self.name))) if self.name else joined(self.parents)

    @property
    def many(self) -> bool:
        return any(step.endswith("[]") for step in self.parents)

    @property
    def numeric(self) -> bool:
        return bool(self.samples) and all(is_number(sample) for sample in self.samples)

    @property
    def boolean(self) -> bool:
        return bool(self.samples) and all(isinstance(sample, bool) for sample in self.samples)

    @property
    def textual(self) -> bool:
        """Numbers written as texts."""
        return bool(self.samples) and all(
            isinstance(sample, str) and re.fullmatch(r"-?\d+(\.\d+)?", sample) for sample in self.samples
        )


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def quoted(name: str) -> str:
    """The name as a step of a path expression."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else json.dumps(name)


def joined(steps: tuple[str, ...]) -> str:
    text = ""
    for step in steps:
        text += step if step.startswith("[") or not text else "." + step
    return text or "@"


def name_stems(name: str) -> tuple[str, ...]:
    """`unitPrice` and `unit_price` as unit, price."""
    parts = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).replace("_", " ").replace("-", " ").split()
    return tuple(stem(part) for part in parts)


def without_documents(text: str, documents: list[str]) -> str:
    """The text with every JSON object or list replaced by its number in `documents`, which grows."""
    decoder = json.JSONDecoder()
    pieces, at, attempts = [], 0, 0
    while attempts < _ATTEMPTS_MAX and (match := _OPENING.search(text, at)):
        attempts += 1
        start = match.start()
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            value, end = None, start + 1
        if isinstance(value, dict | list) and (value or end - start > 2) and not _is_index(text, start):
            pieces.append(text[at:start] + f" ⟦{len(documents)}⟧ ")
            documents.append(text[start:end])
        else:
            end = start + 1
            pieces.append(text[at:end])
        at = end
    return _FENCE.sub(" ", "".join(pieces) + text[at:])


def _is_index(text: str, start: int) -> bool:
    return text[start] == "[" and start > 0 and (text[start - 1].isalnum() or text[start - 1] == "_")


@lru_cache(maxsize=64)
def fields_of(document: str) -> tuple[Field, ...]:
    """Every field of the document, outer ones first; the fields of a list's objects are one field each."""
    try:
        value = json.loads(document)
    except (ValueError, RecursionError):
        return ()
    found: dict[tuple[tuple[str, ...], str], list[Any]] = {}
    _visit(value, (), found, 0)
    return tuple(
        Field(name, parents, tuple(samples))
        for (parents, name), samples in sorted(found.items(), key=lambda item: len(item[0][0]))
    )


def _visit(
    value: Any, parents: tuple[str, ...], found: dict[tuple[tuple[str, ...], str], list[Any]], depth: int
) -> None:
    if depth > 32:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            found.setdefault((parents, name), []).append(
                inner if not isinstance(inner, dict | list) else _Inner(inner)
            )
            step = quoted(name) + ("[]" if isinstance(inner, list) else "")
            _visit(inner, (*parents, step), found, depth + 1)
    elif isinstance(value, list):
        below = parents if parents and parents[-1].endswith("[]") and depth else (*parents, "[]")
        for inner in value[:_ROWS_MAX]:
            if isinstance(inner, dict):
                _visit(inner, below, found, depth + 1)
            elif not isinstance(inner, list):
                found.setdefault((below, ""), []).append(inner)


@dataclass(frozen=True, slots=True)
class _Inner:
    """Stands for an object or a list among samples."""

    value: Any

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, list)


def is_list(field: Field) -> bool:
    return bool(field.samples) and all(
        isinstance(sample, _Inner) and sample.is_list for sample in field.samples
    )


def is_object(field: Field) -> bool:
    return bool(field.samples) and all(
        isinstance(sample, _Inner) and not sample.is_list for sample in field.samples
    )


def first_level(document: str) -> Any:
    """The decoded document, None if it is none."""
    try:
        return json.loads(document)
    except (ValueError, RecursionError):
        return None
