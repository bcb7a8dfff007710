"""JSON and text in the form in which they are stored."""

import json
from typing import Any


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: sorted keys, no spaces, nothing escaped that need not be.

    Raises ValueError for NaN and infinity.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def clean(text: str) -> str:
    """The text with every lone surrogate replaced: UTF-8 has none."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
