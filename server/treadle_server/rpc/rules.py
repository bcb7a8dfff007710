"""What can be asked of one field of a request. A rule looks only at fields that are set."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from treadle_server.core.json_text import JsonTextError, canonical
from treadle_server.rpc.faults import Faults
from treadle_server.rpc.struct_json import struct_json

_DURATION_SECONDS_MAX = 36_525 * 86_400
"""A hundred years."""
_TIMESTAMP_SECONDS = range(-62_135_596_800, 253_402_300_800)


class Rule(Protocol):
    """Checks the value of one field, and may bring it into its one form."""

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None: ...


@dataclass(frozen=True, slots=True)
class Text:
    """A string. Too many bytes are REQUEST_TOO_LARGE, all else FIELD_INVALID."""

    chars: int = 1_024
    bytes: int | None = None
    """Instead of `chars`."""
    pattern: re.Pattern[str] | None = None
    shape: str = ""
    """What the pattern asks for, as it follows on "must be"."""

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        self.check_text(getattr(message, field), path, faults)

    def check_text(self, text: str, path: str, faults: Faults) -> None:
        if "\x00" in text:
            faults.invalid(path, "must not have NUL characters")
        elif self.bytes is not None:
            if len(text) > self.bytes or (not text.isascii() and len(text.encode()) > self.bytes):
                faults.too_large(path, self.bytes)
        elif len(text) > self.chars:
            faults.invalid(path, f"must have at most {self.chars} characters")
        if self.pattern is not None and self.pattern.match(text) is None:
            faults.invalid(path, f"must be {self.shape}")


@dataclass(frozen=True, slots=True)
class Items:
    """A repeated field of strings or messages."""

    count: int
    each: Text | None = None
    """For strings; messages have rules of their own. Every item has at least one character."""
    unique: bool = False
    """Later repeats are dropped."""

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        items = getattr(message, field)
        if len(items) > self.count:
            faults.invalid(path, f"must have at most {self.count} items")
            return
        for index, item in enumerate(items if self.each else ()):
            assert self.each is not None
            if item:
                self.each.check_text(item, f"{path}[{index}]", faults)
            else:
                faults.invalid(f"{path}[{index}]", "must not be empty")
        if self.unique:
            kept = list(dict.fromkeys(items))
            del items[:]
            items.extend(kept)


@dataclass(frozen=True, slots=True)
class Labels:
    """A map of strings."""

    count: int = 64
    key: Text = Text(chars=63)
    value: Text = Text(chars=255)

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        labels = getattr(message, field)
        if len(labels) > self.count:
            faults.invalid(path, f"must have at most {self.count} entries")
            return
        for key, value in labels.items():
            if not key:
                faults.invalid(path, "a key must have 1 to 63 characters")
            self.key.check_text(key, f"{path} (a key)", faults)
            self.value.check_text(value, f"{path} (a value)", faults)


@dataclass(frozen=True, slots=True)
class Number:
    """An integer or a finite double."""

    least: float = 0
    most: float = math.inf
    more_than_least: bool = False

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        value = getattr(message, field)
        if not math.isfinite(value):
            faults.invalid(path, "must be a finite number")
        elif value < self.least or (self.more_than_least and value == self.least):
            faults.invalid(
                path, f"must be {'more than' if self.more_than_least else 'at least'} {self.least:g}"
            )
        elif value > self.most:
            faults.invalid(path, f"must be at most {self.most:g}")


@dataclass(frozen=True, slots=True)
class Span:
    """A Duration that is not negative."""

    seconds: int = _DURATION_SECONDS_MAX
    zero: bool = True
    """It may be 0."""
    least_seconds: int = 0

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        span: Duration = getattr(message, field)
        if not 0 <= span.nanos < 1_000_000_000 or span.seconds < 0:
            faults.invalid(path, "must be a duration that is not negative")
        elif span.seconds > self.seconds or (span.seconds == self.seconds and span.nanos):
            faults.invalid(path, f"must be at most {self.seconds} s")
        elif not self.zero and span.seconds == 0 and span.nanos < 1_000:
            faults.invalid(path, "must be more than 0")
        elif span.seconds < self.least_seconds:
            faults.invalid(path, f"must be at least {self.least_seconds} s")


class Moment:
    """A Timestamp of the years 1 to 9999."""

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        stamp: Timestamp = getattr(message, field)
        if stamp.seconds not in _TIMESTAMP_SECONDS or not 0 <= stamp.nanos < 1_000_000_000:
            faults.invalid(path, "must be a time of the years 1 to 9999")


@dataclass(frozen=True, slots=True)
class JsonText:
    """JSON as text, at most 64 levels deep; replaced by its canonical form."""

    bytes: int

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        text = getattr(message, field)
        if len(text) > self.bytes or len(text.encode()) > self.bytes:
            faults.too_large(path, self.bytes)
            return
        try:
            setattr(message, field, canonical(text))
        except JsonTextError as problem:
            faults.invalid(path, str(problem))


@dataclass(frozen=True, slots=True)
class Object:
    """A Struct. `instead` names the field that holds what a Struct cannot."""

    bytes: int
    instead: str = ""

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        value: Struct = getattr(message, field)
        try:
            text = struct_json(value)
        except JsonTextError as problem:
            faults.invalid(path, f"{problem}; use {self.instead}" if self.instead else str(problem))
            return
        if len(text.encode()) > self.bytes:
            faults.too_large(path, self.bytes)


@dataclass(frozen=True, slots=True)
class OneOf:
    """An enum of which only some values may be given. `what` is the feature that the others ask for."""

    values: Mapping[int, str]
    what: str = ""
    """Empty: another value is faulty whatever the server can do."""

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        if getattr(message, field) in self.values:
            return
        if self.what:
            faults.not_supported(path, self.what)
        else:
            faults.invalid(path, f"must be one of {', '.join(self.values.values())}")


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A field whose feature this server does not have."""

    what: str

    def check(self, message: Message, field: str, path: str, faults: Faults) -> None:
        faults.not_supported(path, self.what)


Whole = Callable[[Any, str, Faults], None]
"""Checks fields of one message against each other. Gets the message, its path with a dot, the faults."""
