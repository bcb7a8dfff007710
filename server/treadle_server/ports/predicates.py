"""Port: expressions over the arguments of a tool call."""

from typing import Protocol


class Predicates(Protocol):
    """Looks at arguments with bounded effort."""

    def problem(self, expression: str) -> str | None:
        """Why this is no usable expression; None when it is."""
        ...

    def holds(self, expression: str, arguments_json: str) -> bool | None:
        """Whether the expression gives something that is neither false, null, 0 nor empty.

        None when it cannot be computed for these arguments.
        """
        ...
