"""Faults of a request, collected so that a caller learns of all of them at once."""

from treadle_server.core.errors import FieldViolation, Reason, Refused

VIOLATIONS_MAX = 100
"""More are counted out: a repeated field can be faulty a million times."""


class Faults:
    """Becomes one refusal: FIELD_INVALID before REQUEST_TOO_LARGE before NOT_SUPPORTED."""

    __slots__ = ("_first_invalid", "_first_large", "_first_unsupported", "_violations")

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []
        self._first_invalid: str | None = None
        self._first_large: tuple[str, int] | None = None
        self._first_unsupported: str | None = None

    @property
    def full(self) -> bool:
        return len(self._violations) >= VIOLATIONS_MAX

    def invalid(self, field: str, description: str) -> None:
        self._first_invalid = self._first_invalid or field
        self._add(field, description)

    def too_large(self, field: str, bytes_max: int) -> None:
        self._first_large = self._first_large or (field, bytes_max)
        self._add(field, f"must have at most {bytes_max} bytes")

    def not_supported(self, field: str, what: str) -> None:
        self._first_unsupported = self._first_unsupported or field
        self._add(field, f"{what} is not supported by this server")

    def raise_if_any(self) -> None:
        """Raises the Refused that they are."""
        if not self._violations:
            return
        text = "; ".join(f"{fault.field}: {fault.description}" for fault in self._violations[:8])
        reason, metadata = self._kind()
        raise Refused(reason, text, metadata=metadata, violations=tuple(self._violations))

    def _kind(self) -> tuple[Reason, dict[str, str]]:
        if self._first_invalid is not None:
            return Reason.FIELD_INVALID, {}
        if self._first_large is not None:
            field, bytes_max = self._first_large
            return Reason.REQUEST_TOO_LARGE, {"field": field, "max_bytes": str(bytes_max)}
        return Reason.NOT_SUPPORTED, {"field": self._first_unsupported or ""}

    def _add(self, field: str, description: str) -> None:
        if not self.full:
            self._violations.append(FieldViolation(field, description))
