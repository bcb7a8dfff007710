"""Memories, which outlive threads and sessions, and which of them a thread may use."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from treadle_server.core.kinds import MemoryAccess

NAMESPACE_CHARACTERS_MAX: Final = 255
KEY_CHARACTERS_MAX: Final = 128
TEXT_BYTES_MAX: Final = 16 * 1024
DEFAULT_ALIAS: Final = "memory"
PLACEHOLDERS: Final = ("agent", "session", "subject.type", "subject.id", "parent_object", "principal")
CHARACTERS: Final = "A-Za-z0-9._~:@%-"
"""Of namespaces and keys, as a class of a regular expression."""

_LITERAL = re.compile(r"[A-Za-z0-9._~:@-]*\Z")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_ESCAPED = re.compile(r"[^A-Za-z0-9._~-]")


def memory_name(namespace: str, key: str) -> str:
    return f"memories/{namespace}/items/{key}"


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory, as it is shown."""

    name: str
    text: str
    thread: str
    create_time_micros: int
    update_time_micros: int
    etag: str


@dataclass(frozen=True, slots=True)
class MemoryRule:
    """A namespace that threads of an agent may use."""

    namespace: str
    """With placeholders for what the thread has."""
    alias: str = DEFAULT_ALIAS
    """What the model calls it."""
    description: str = ""
    access: MemoryAccess = MemoryAccess.READ_WRITE

    @property
    def writable(self) -> bool:
        return self.access is not MemoryAccess.READ


@dataclass(frozen=True, slots=True)
class MemoryPlace:
    """A namespace that one thread may use."""

    alias: str
    namespace: str


def template_problem(template: str) -> str | None:
    """What is wrong with a namespace of a rule."""
    for name in _PLACEHOLDER.findall(template):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
            return f"has {{{name}}}, which nothing is put in for; there are {known}"
    if not _LITERAL.match(_PLACEHOLDER.sub("", template)) or template.startswith("-"):
        return (
            "must be letters and digits of ASCII, `.`, `_`, `~`, `:`, `@`, `-` (not first) and placeholders"
        )
    return None


def places(rules: Sequence[MemoryRule], facts: Mapping[str, str]) -> tuple[MemoryPlace, ...]:
    """The namespaces of a thread, by what it has for each placeholder.

    One for which it has nothing is left out: no value must ever stand for none.
    """
    found = ((rule.alias, _namespace(rule.namespace, facts)) for rule in rules)
    return tuple(MemoryPlace(alias, namespace) for alias, namespace in found if namespace)


def _namespace(template: str, facts: Mapping[str, str]) -> str:
    """Empty when the thread has nothing for a placeholder, or it were too long."""
    if not all(facts.get(name) for name in _PLACEHOLDER.findall(template)):
        return ""
    namespace = _PLACEHOLDER.sub(lambda found: _escaped(facts[found[1]]), template)
    if namespace.startswith("-"):  # `-` alone stands for all namespaces
        namespace = "%2D" + namespace[1:]
    return namespace if len(namespace) <= NAMESPACE_CHARACTERS_MAX else ""


def _escaped(value: str) -> str:
    """Percent-encoded, so that no two values are one, and none reaches beyond its place."""
    return _ESCAPED.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass")), value
    )
