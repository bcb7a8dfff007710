"""Who calls: from a bearer key in the call's metadata, or nobody in particular on a server without keys."""

from collections.abc import Iterable
from typing import Protocol

from treadle_server.core.errors import Reason, Refused
from treadle_server.core.ids import is_resource_id
from treadle_server.services.keys import Identity, Keys, bad_credential

AUTHORIZATION = "authorization"
TENANT = "treadle-tenant"
DEFAULT_TENANT = "default"
_VALUE_CHARS_MAX = 256
_SCHEME = "bearer "


class Identify(Protocol):
    """Says who calls, from the call's metadata."""

    async def __call__(self, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        """Raises Refused."""
        ...


class Identities:
    """Implements Identify. A credential that is sent is always checked, wanted or not."""

    def __init__(self, keys: Keys, *, keys_required: bool) -> None:
        self._keys = keys
        self._keys_required = keys_required
        self._local: Identity | None = None

    async def __call__(self, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        authorization, tenant_id = _read(metadata)
        if authorization is not None:
            identity = await self._keys.identify(_secret(authorization))
        elif self._keys_required:
            raise bad_credential()
        else:
            identity = self._local or await self._anybody()
        if tenant_id is None or tenant_id == identity.tenant_id:
            return identity
        return await self._keys.acting_for(identity, tenant_id)

    async def _anybody(self) -> Identity:
        self._local = await self._keys.local(DEFAULT_TENANT)
        return self._local


def require_admin(identity: Identity) -> None:
    """Raises Refused(SCOPE_MISSING)."""
    if not identity.admin:
        raise Refused(
            Reason.SCOPE_MISSING, "only an admin's credential allows this", metadata={"scope": "admin"}
        )


def _read(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str | None, str | None]:
    """Authorization and tenant. Raises Refused(CREDENTIAL_INVALID) for what is no sane value of theirs."""
    found: dict[str, str] = {}
    for key, value in metadata:
        if key in (AUTHORIZATION, TENANT):
            if key in found or not isinstance(value, str) or not _is_sane(value):
                raise bad_credential()
            found[key] = value
    tenant_id = found.get(TENANT)
    if tenant_id is not None and not is_resource_id(tenant_id):
        raise bad_credential()
    return found.get(AUTHORIZATION), tenant_id


def _is_sane(value: str) -> bool:
    return len(value) <= _VALUE_CHARS_MAX and value.isascii() and value.isprintable()


def _secret(authorization: str) -> str:
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise bad_credential()
    return authorization[len(_SCHEME) :].strip()
