"""Port: the keys that callers identify themselves with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.log import RequestRow


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key to store. Of the secret only the hash."""

    tenant: int
    id: str
    principal: str
    admin: bool
    prefix: str
    """The part of the key that is no secret, and finds it."""
    secret_hash: bytes
    display_name: str
    create_time: int
    expire_time: int | None = None
    object_patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiKeyRow:
    """A stored key."""

    key: int
    tenant: int
    id: str
    principal: str
    admin: bool
    prefix: str
    secret_hash: bytes
    display_name: str
    revision: int
    """Counts every change, from 1."""
    create_time: int
    update_time: int
    expire_time: int | None
    delete_time: int | None
    object_patterns: tuple[str, ...] = ()
    """The objects that it reaches, `type/id` or `type/*`; none = all."""


class ApiKeys(Protocol):
    """Keys that callers identify themselves with."""

    async def create(self, new: NewApiKey, *, request: RequestRow | None = None) -> ApiKeyRow:
        """Raises Refused(RESOURCE_EXISTS) for an id that is or was taken."""
        ...

    async def prefixes(self) -> Sequence[str]:
        """Of all keys, in no order; those of deleted ones may be among them."""
        ...

    async def find_by_prefix(self, prefix: str) -> ApiKeyRow | None:
        """The key to compare the secret with; None for a deleted one. Expiry is the caller's to check."""
        ...

    async def get(self, tenant: int, api_key_id: str) -> ApiKeyRow | None:
        """None for a deleted one."""
        ...

    async def list(self, tenant: int, *, limit: int, after: Position | None = None) -> Page[ApiKeyRow]:
        """Newest first, without the deleted."""
        ...

    async def count(self, tenant: int) -> int:
        """How many `list` gives in all."""
        ...

    async def update(
        self,
        row: ApiKeyRow,
        *,
        display_name: str,
        expire_time: int | None,
        update_time: int,
        request: RequestRow | None = None,
    ) -> ApiKeyRow: ...

    async def delete(self, row: ApiKeyRow, *, delete_time: int, request: RequestRow | None = None) -> None:
        """Nothing happens to one that is deleted already."""
        ...
