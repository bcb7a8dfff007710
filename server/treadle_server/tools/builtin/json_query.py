"""JMESPath with bounded effort."""

import json
from typing import Annotated, Any

import jmespath
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from jmespath.visitor import TreeInterpreter

from treadle_server.core.json_text import canonical_json

DOCUMENT_BYTES_MAX = 64 * 1024
QUERY_CHARACTERS_MAX = 1000
_EFFORT_MAX = 1_000_000
_STEP_EFFORT = 4
_CHARACTERS_PER_EFFORT = 16
_QUERY_FAULTS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)


def json_query(
    document: Annotated[str, "The JSON text to look into, at most 64 KiB"],
    query: Annotated[
        str,
        "JMESPath expression, such as items[?price > `10`].name or length(people)",
        {"minLength": 1, "maxLength": QUERY_CHARACTERS_MAX},
    ],
) -> str:
    """Picks values out of a JSON document with a JMESPath expression and returns them as JSON; null when
    nothing matches. Use it to filter, count or reshape JSON instead of reading it by eye."""
    if len(document.encode(errors="replace")) > DOCUMENT_BYTES_MAX:
        raise ValueError(f"the document is larger than {DOCUMENT_BYTES_MAX} bytes")
    if len(query) > QUERY_CHARACTERS_MAX:
        raise ValueError(f"the query is longer than {QUERY_CHARACTERS_MAX} characters")
    parsed = _parsed(document)
    try:
        found = _Interpreter().visit(jmespath.compile(query).parsed, parsed)
        return canonical_json(found)
    except _TooMuch:
        raise ValueError("the query takes too many steps; ask for less at once") from None
    except PendingDeprecationWarning:  # Raised only where warnings are errors; elsewhere it is taken as text.
        raise ValueError("the query is not valid: write text as 'text', JSON as `1`") from None
    except JMESPathTypeError as error:
        expected = " or ".join(error.expected_types)
        raise ValueError(f"{error.function_name}() takes {expected}, not {error.actual_type}") from None
    except JMESPathError as error:
        raise ValueError(f"the query is not valid: {error}") from None
    except _QUERY_FAULTS as error:
        raise ValueError(f"the query does not fit the document: {type(error).__name__}") from None


def _parsed(document: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(document, parse_constant=refuse)
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the document is not valid JSON: {error}") from None


class _TooMuch(Exception):  # noqa: N818 - a limit, not a fault
    """The query would go on for too long."""


class _Interpreter(TreeInterpreter):  # type: ignore[misc]
    """Counts steps and the size of every value on the way.

    A short query can double a value at each step: `[@,@]|[@,@]` shares its parts, but comparing or writing
    it takes time by its full size. So the full size is what counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._effort = 0
        self._sizes: dict[int, tuple[int, Any]] = {}

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._spend(_STEP_EFFORT)
        result = super().visit(node, *args, **kwargs)
        self._spend(self._size(result))
        return result

    def _spend(self, effort: int) -> None:
        self._effort += effort
        if self._effort > _EFFORT_MAX:
            raise _TooMuch

    def _size(self, value: Any) -> int:
        if isinstance(value, str):
            return len(value) // _CHARACTERS_PER_EFFORT
        if not isinstance(value, dict | list):
            return 1
        known = self._sizes.get(id(value))
        if known is None:
            parts = value.values() if isinstance(value, dict) else value
            # The value is kept with its size: an id is taken again once its owner is gone.
            known = self._sizes[id(value)] = (1 + sum(map(self._size, parts)), value)
        return known[0]
