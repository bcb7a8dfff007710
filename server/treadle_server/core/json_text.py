"""JSON that travels as text: checked where it comes in, and kept in one form."""

import json
import re
from typing import Any

DEPTH_MAX = 64
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # linear, also where a string is not closed
_BRACKETS = re.compile(r"[\[\]{}]")


class JsonTextError(ValueError):
    """Says what is wrong with a text, without repeating it."""


def canonical(text: str) -> str:
    """The one text of its value: keys sorted, no spaces. Integers keep every digit.

    Raises JsonTextError for what is not JSON, too deep, or not the same to every reader: NaN, infinities,
    lone surrogates, a key given twice.
    """
    if _depth(text) > DEPTH_MAX:
        raise JsonTextError(f"must be at most {DEPTH_MAX} levels deep")
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
        canonical_text = canonical_json(value)
        canonical_text.encode()
    except JsonTextError:
        raise
    except UnicodeEncodeError:
        raise JsonTextError("must not have lone surrogates") from None
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise JsonTextError(f"must be JSON: {what} at character {error.pos}") from None
    except (ValueError, RecursionError):  # a number that no double or int holds
        raise JsonTextError("must have only numbers of a usual size") from None
    return canonical_text


def _depth(text: str) -> int:
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return 0  # it cannot be deeper, and most texts end here
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _no_constant(name: str) -> Any:
    raise JsonTextError(f"must not have {name}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise JsonTextError("must not have a key twice in one object")
    return value


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: sorted keys, no spaces, nothing escaped that need not be.

    Raises ValueError for NaN and infinity.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
