"""What lists can be filtered on and ordered by: kinds of field, and how their values are written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from treadle_server.core.errors import invalid, not_supported
from treadle_server.ports.catalogue.thread_queries import Operator

Scalar = int | str | bool

ORDERED = frozenset(
    {
        Operator.EQUAL,
        Operator.NOT_EQUAL,
        Operator.LESS,
        Operator.LESS_OR_EQUAL,
        Operator.GREATER,
        Operator.GREATER_OR_EQUAL,
    }
)
EQUALITY = frozenset({Operator.EQUAL, Operator.NOT_EQUAL})

_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}\Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FilterValueError(ValueError):
    """Says what a value must be."""


@dataclass(frozen=True, slots=True)
class FilterField:
    """A field of type text."""

    operators: frozenset[Operator] = EQUALITY

    @property
    def is_map(self) -> bool:
        return False

    def read(self, text: str, *, quoted: bool) -> Scalar:
        """Raises FilterValueError."""
        return text


@dataclass(frozen=True, slots=True)
class Names(FilterField):
    """A resource name."""

    pattern: re.Pattern[str] = re.compile("")
    shape: str = ""

    def read(self, text: str, *, quoted: bool) -> Scalar:
        if self.pattern.match(text) is None:
            raise FilterValueError(f"expected {self.shape}")
        return text


@dataclass(frozen=True, slots=True)
class Choice(FilterField):
    """An enum, by the names of its values."""

    values: Mapping[str, int] = field(default_factory=dict)

    def read(self, text: str, *, quoted: bool) -> Scalar:
        number = self.values.get(text)
        if number is None:
            raise FilterValueError(f"expected one of {', '.join(self.values)}")
        return number


@dataclass(frozen=True, slots=True)
class Truth(FilterField):
    """`true` or `false`."""

    def read(self, text: str, *, quoted: bool) -> Scalar:
        if quoted or text not in ("true", "false"):
            raise FilterValueError("expected true or false")
        return text == "true"


@dataclass(frozen=True, slots=True)
class Integer(FilterField):
    """A whole number."""

    operators: frozenset[Operator] = ORDERED

    def read(self, text: str, *, quoted: bool) -> Scalar:
        if quoted or _INTEGER.match(text) is None:
            raise FilterValueError("expected a whole number")
        return int(text)


@dataclass(frozen=True, slots=True)
class Time(FilterField):
    """A time as RFC 3339 writes it; its value is micros since 1970."""

    operators: frozenset[Operator] = ORDERED

    def read(self, text: str, *, quoted: bool) -> Scalar:
        match = _TIME.match(text)
        try:
            if match is None:
                raise ValueError
            moment = datetime.fromisoformat(match[1].upper() + match[3].upper().replace("Z", "+00:00"))
            since = moment - _EPOCH
        except (ValueError, OverflowError):
            raise FilterValueError("expected a time like 2026-01-02T03:04:05Z") from None
        micros = int((match[2] or "0").ljust(6, "0")[:6])
        return (since.days * 86_400 + since.seconds) * 1_000_000 + micros


@dataclass(frozen=True, slots=True)
class Members(FilterField):
    """A repeated field: `tags:"nightly"`."""

    operators: frozenset[Operator] = frozenset({Operator.HAS})


@dataclass(frozen=True, slots=True)
class Entries(FilterField):
    """A map: `labels.team = "a"`, `labels.team:*` and `labels:team`."""

    operators: frozenset[Operator] = frozenset({Operator.EQUAL, Operator.HAS})

    @property
    def is_map(self) -> bool:
        return True


def parse_order_by(text: str, fields: frozenset[str], default: str) -> tuple[str, bool]:
    """The field to order by and whether it descends; `default desc` when nothing is asked for.

    Raises Refused: FIELD_INVALID for what cannot be ordered by, NOT_SUPPORTED for several fields.
    """
    if not text.strip():
        return default, True
    parts = [part.split() for part in text.split(",")]
    for part in parts:
        known = bool(part) and part[0] in fields and len(part) <= 2
        if not known or part[1:] not in ([], ["desc"], ["asc"]):
            choice = ", ".join(sorted(fields))
            raise invalid(("order_by", f"must be one of {choice}, each with an optional ' desc'"))
    if len(parts) > 1:
        raise not_supported("order_by", "ordering by several fields")
    return parts[0][0], parts[0][1:] == ["desc"]
