"""API keys: made, listed, changed, deleted, and told from forgeries."""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from treadle_server.core.agent import ApiKey
from treadle_server.core.errors import Reason, Refused, invalid, not_found
from treadle_server.ports.catalogue.keys import ApiKeyRow, ApiKeys, NewApiKey
from treadle_server.ports.catalogue.pages import Page, Position
from treadle_server.ports.catalogue.tenants import TenantRow, Tenants
from treadle_server.ports.clock import Clock
from treadle_server.services.etags import change, check_etag
from treadle_server.services.ids import new_id
from treadle_server.services.page_bytes import read_page
from treadle_server.services.requests import Asked, Replays

MARK = "trdl"
"""Begins every secret, so that scanners for leaked ones find it."""
CACHE_MICROS = 5_000_000
CACHE_MAX = 10_000
_PREFIX_BYTES = 8
_SECRET_BYTES = 32
_NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, and for which tenant."""

    tenant: int
    """The store's key."""
    tenant_id: str
    principal: str
    admin: bool
    object_patterns: tuple[str, ...] = ()
    """The objects that it reaches; none = all."""


class KeyCodec(Protocol):
    """Keys as the bytes that are answered."""

    def answer(self, api_key: ApiKey) -> bytes:
        """The response that a repeated call gets again."""
        ...


Change = Callable[[ApiKey], ApiKey]
"""Makes the wanted key from the present one."""


class Keys:
    """The use cases of API keys. Tenants are named by their ids."""

    def __init__(
        self,
        store: ApiKeys,
        tenants: Tenants,
        codec: KeyCodec,
        replays: Replays,
        clock: Clock,
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._codec = codec
        self._replays = replays
        self._clock = clock
        self._known: dict[str, tuple[ApiKeyRow, int]] = {}
        """Rows by prefix, and when to read them again, micros since 1970."""
        self._prefixes: set[str] | None = None
        """Of all keys, so that none is looked for in the store that is not there. About 120 bytes each."""
        self._loading = asyncio.Lock()
        self._changes = 0
        self._tenant_ids: dict[int, str] = {}

    async def create(
        self,
        tenant_id: str,
        asked: Asked,
        *,
        api_key_id: str = "",
        display_name: str = "",
        principal: str = "",
        admin: bool = False,
        expire_time_micros: int | None = None,
        object_patterns: tuple[str, ...] = (),
    ) -> ApiKey:
        """Makes a key, and its tenant if that has none yet; the secret is in this answer and nowhere else."""
        now = self._clock.now()
        tenant = await self._tenants.find(tenant_id)
        if tenant is None:
            _check_expiry(expire_time_micros, now)
            tenant = await self._tenants.get_or_create(tenant_id, create_time=now)

        async def act() -> ApiKey:
            _check_expiry(expire_time_micros, now)
            chosen = api_key_id or new_id()
            api_key = ApiKey(
                name=_name(tenant_id, chosen),
                display_name=display_name,
                principal=principal or chosen,
                admin=admin,
                create_time_micros=now,
                update_time_micros=now,
                etag="1",
                expire_time_micros=expire_time_micros,
                object_patterns=object_patterns,
            )
            prefixes = await self._all_prefixes()
            prefix, secret = _new_secret()
            new = NewApiKey(
                *(tenant.key, chosen, api_key.principal, admin, prefix, _hash(secret)),
                *(display_name, now, expire_time_micros, object_patterns),
            )
            request = asked.row(resource=api_key.name, response=self._codec.answer(api_key), now=now)
            try:
                await self._store.create(new, request=request)
            except Refused as refused:
                raise _named(refused, api_key.name) from None
            prefixes.add(prefix)
            return replace(api_key, secret=secret)

        return await self._replays.once(tenant.key, asked, act)

    async def get(self, tenant_id: str, api_key_id: str) -> ApiKey:
        tenant = await self._tenant(tenant_id)
        return _shown(tenant_id, await self._row(tenant, api_key_id))

    async def list(self, tenant_id: str, *, limit: int, after: Position | None) -> tuple[Page[ApiKey], int]:
        """A page, newest first, and how many there are."""
        tenant = await self._tenant(tenant_id)
        page = await read_page(
            lambda limit, after: self._store.list(tenant.key, limit=limit, after=after),
            limit=limit,
            after=after,
            size=lambda row: sum(4 * len(pattern) for pattern in row.object_patterns),
            position=lambda row: (row.key, row.key),
        )
        total = await self._store.count(tenant.key)
        return Page(tuple(_shown(tenant_id, row) for row in page.items), page.next), total

    async def update(
        self, tenant_id: str, asked: Asked, api_key_id: str, wanted: Change, *, etag: str = ""
    ) -> ApiKey:
        tenant = await self._tenant(tenant_id)

        async def act() -> ApiKey:
            row = await self._row(tenant, api_key_id)
            api_key = _shown(tenant_id, row)
            check_etag(etag, api_key.etag, api_key.name)
            now = max(self._clock.now(), row.update_time)
            changed = replace(wanted(api_key), update_time_micros=now, etag=str(row.revision + 1))
            if changed.expire_time_micros != api_key.expire_time_micros:
                _check_expiry(changed.expire_time_micros, now)
            request = asked.row(resource=api_key.name, response=self._codec.answer(changed), now=now)
            try:
                await self._store.update(
                    row,
                    display_name=changed.display_name,
                    expire_time=changed.expire_time_micros,
                    update_time=now,
                    request=request,
                )
            finally:
                self._forget(row)
            return changed

        return await self._replays.once(tenant.key, asked, lambda: change(act))

    async def delete(self, tenant_id: str, asked: Asked, api_key_id: str, *, etag: str = "") -> None:
        """It has stopped working when this returns."""
        tenant = await self._tenant(tenant_id)

        async def act() -> None:
            row = await self._row(tenant, api_key_id)
            name = _name(tenant_id, api_key_id)
            check_etag(etag, _shown(tenant_id, row).etag, name)
            now = self._clock.now()
            request = asked.row(resource=name, response=b"", now=now)
            try:
                await self._store.delete(row, delete_time=now, request=request)
            finally:
                self._forget(row)

        await self._replays.once(tenant.key, asked, act)

    async def identify(self, secret: str) -> Identity:
        """Whose secret this is. Raises Refused(CREDENTIAL_INVALID), and does not say why."""
        mark, _, rest = secret.partition("_")
        prefix, _, random = rest.partition("_")
        if mark != MARK or not random or len(prefix) != 2 * _PREFIX_BYTES:
            raise bad_credential()
        digest = _hash(secret)
        row = await self._by_prefix(prefix)
        same = hmac.compare_digest(digest, row.secret_hash if row is not None else _NO_HASH)
        if row is None or not same or _expired(row, self._clock.now()):
            raise bad_credential()
        tenant_id = await self._tenant_id(row.tenant)
        return Identity(row.tenant, tenant_id, row.principal, row.admin, row.object_patterns)

    async def local(self, tenant_id: str) -> Identity:
        """The caller of a server that asks for no keys: an admin. Makes the tenant if there is none."""
        tenant = await self._tenants.get_or_create(tenant_id, create_time=self._clock.now())
        return Identity(tenant.key, tenant.id, "local", admin=True)

    async def acting_for(self, identity: Identity, tenant_id: str) -> Identity:
        """The same caller for another tenant. Raises Refused: TENANT_MISMATCH, or RESOURCE_NOT_FOUND."""
        if tenant_id == identity.tenant_id:
            return identity
        if not identity.admin:
            raise Refused(
                Reason.TENANT_MISMATCH,
                "treadle-tenant names another tenant than the credential's",
                metadata={"tenant": tenant_id},
            )
        tenant = await self._tenant(tenant_id)
        return replace(identity, tenant=tenant.key, tenant_id=tenant.id)

    async def _by_prefix(self, prefix: str) -> ApiKeyRow | None:
        """From memory for a few seconds; what is changed here is read again at once."""
        now = self._clock.now()
        known = self._known.get(prefix)
        if known is not None and known[1] > now:
            return known[0]
        prefixes = await self._all_prefixes()
        if prefix not in prefixes:
            return None
        changes = self._changes
        row = await self._store.find_by_prefix(prefix)
        if row is None:  # deleted, which is for ever
            prefixes.discard(prefix)
        elif changes == self._changes:
            self._remember(row, now)
        return row

    async def _all_prefixes(self) -> set[str]:
        """Read once, at the first need: no other process writes to the file. Keys made since are in it."""
        if self._prefixes is None:
            async with self._loading:
                if self._prefixes is None:
                    self._prefixes = set(await self._store.prefixes())
        return self._prefixes

    def _remember(self, row: ApiKeyRow, now: int) -> None:
        """The oldest gives way."""
        self._known.pop(row.prefix, None)
        if len(self._known) >= CACHE_MAX:
            del self._known[next(iter(self._known))]
        self._known[row.prefix] = (row, now + CACHE_MICROS)

    def _forget(self, row: ApiKeyRow) -> None:
        self._changes += 1
        self._known.pop(row.prefix, None)

    async def _tenant(self, tenant_id: str) -> TenantRow:
        tenant = await self._tenants.find(tenant_id)
        if tenant is None:
            raise not_found("Tenant", f"tenants/{tenant_id}")
        return tenant

    async def _tenant_id(self, key: int) -> str:
        """A tenant keeps its id, so it is read once."""
        found = self._tenant_ids.get(key)
        if found is None:
            tenant = await self._tenants.get_by_key(key)
            if tenant is None:
                raise bad_credential()
            found = self._tenant_ids[key] = tenant.id
        return found

    async def _row(self, tenant: TenantRow, api_key_id: str) -> ApiKeyRow:
        row = await self._store.get(tenant.key, api_key_id)
        if row is None:
            raise not_found("ApiKey", _name(tenant.id, api_key_id))
        return row


def bad_credential() -> Refused:
    return Refused(Reason.CREDENTIAL_INVALID, "the credential is missing or not valid")


def _new_secret() -> tuple[str, str]:
    """The part that finds the key, and the whole."""
    prefix = secrets.token_hex(_PREFIX_BYTES)
    return prefix, f"{MARK}_{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def _hash(secret: str) -> bytes:
    """A plain hash is enough: the secret is 32 random bytes, which nobody can try through."""
    return hashlib.sha256(secret.encode()).digest()


def _expired(row: ApiKeyRow, now: int) -> bool:
    return row.expire_time is not None and row.expire_time <= now


def _check_expiry(expire_time_micros: int | None, now: int) -> None:
    if expire_time_micros is not None and expire_time_micros <= now:
        raise invalid(("api_key.expire_time", "must be in the future"))


def _named(refused: Refused, name: str) -> Refused:
    """A taken id by its whole name, which the store does not know."""
    if refused.reason is not Reason.RESOURCE_EXISTS:
        return refused
    text = f"{name} exists already, or did"
    return Refused(refused.reason, text, metadata={"resource": name}, resource=("treadle.dev/ApiKey", name))


def _name(tenant_id: str, api_key_id: str) -> str:
    return f"tenants/{tenant_id}/apiKeys/{api_key_id}"


def _shown(tenant_id: str, row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        name=_name(tenant_id, row.id),
        display_name=row.display_name,
        principal=row.principal,
        admin=row.admin,
        create_time_micros=row.create_time,
        update_time_micros=row.update_time,
        etag=str(row.revision),
        expire_time_micros=row.expire_time,
        object_patterns=row.object_patterns,
    )
