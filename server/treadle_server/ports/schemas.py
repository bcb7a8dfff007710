"""Port: JSON Schema."""

from typing import Protocol


class Schemas(Protocol):
    """Checks of JSON text against schemas, which are compiled once."""

    def problem(self, schema_json: str, document_json: str) -> str | None:
        """Why the text is not JSON or does not fit the schema, for a model to read; None when it fits."""
        ...

    def schema_problem(self, schema_json: str) -> str | None:
        """Why this is not a usable schema; None when it is."""
        ...
