"""Numbers and texts as people read them."""

from __future__ import annotations

import re
from datetime import timedelta

from google.protobuf.message import Message

from treadle.v1.usage_pb2 import Cost, Usage

# What a model or a tool wrote must not move the cursor, change colours or turn the writing direction.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with control characters, other than tab and new line, made visible."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\r\n", "\n"))


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and how much is left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit:,} more characters)"


def one_line(text: str, limit: int) -> str:
    """The text on one line, cut to a number of characters."""
    flat = " ".join(printable(text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def duration(span: timedelta) -> str:
    seconds = span.total_seconds()
    if seconds < 0.001:
        return "<1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def tokens(usage: Usage) -> str:
    """How many tokens went in and out, and how many of them count less or more."""
    cached = f" ({usage.cached_input_tokens:,} cached)" if usage.cached_input_tokens else ""
    reasoning = f" + {usage.reasoning_tokens:,} thinking" if usage.reasoning_tokens else ""
    return f"{usage.input_tokens:,} tokens in{cached}, {usage.output_tokens:,}{reasoning} out"


def money(cost: Cost) -> str:
    """An amount with its currency; what is not known is not shown as nothing."""
    if not cost.known and not cost.cost_micros:
        return "cost unknown"
    units, micros = divmod(cost.cost_micros, 1_000_000)
    fraction = f"{micros:06d}".rstrip("0")
    amount = f"{units:,}.{fraction}" if fraction else f"{units:,}"
    return f"{'' if cost.known else 'at least '}{amount} {cost.currency_code}".rstrip()


def value_name(message: Message, field: str) -> str:
    """Name of the value that an enum field has; the number of one that only newer servers know."""
    kind = message.DESCRIPTOR.fields_by_name[field].enum_type
    value: int = getattr(message, field)
    known = kind.values_by_number.get(value) if kind else None
    return known.name if known else str(value)
