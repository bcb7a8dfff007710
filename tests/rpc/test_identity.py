"""Who may call, and for whom."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, bearer, make_key, running
from treadle.v1 import admin_service_pb2, agent_service_pb2, api_key_pb2
from treadle_server.core.errors import Reason, Refused
from treadle_server.rpc.resources import KeyMessages
from treadle_server.services.keys import Keys
from treadle_server.services.requests import Replays

_admin: Any = admin_service_pb2
_agents: Any = agent_service_pb2
_SERVICE = "treadle.v1.AgentService"
LIST = _agents.ListAgentsRequest()
ApiKey = api_key_pb2.ApiKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "treadle.db"


@pytest.fixture
async def keyed(path: Path) -> AsyncIterator[tuple[Rig, ApiKey, ApiKey]]:
    """A server that requires keys, a key of tenant `red` and an admin's of tenant `blue`."""
    async with running(path) as rig:
        red = await make_key(rig, "red")
        admin = await make_key(rig, "blue", admin=True, principal="ann")
    async with running(path, require_keys=True) as rig:
        yield rig, red, admin


async def _make(rig: Rig, agent_id: str, metadata: Any = ()) -> Any:
    request = _agents.CreateAgentRequest(agent={"model": "demo:react"}, agent_id=agent_id)
    return await rig.agents.CreateAgent(request, metadata=tuple(metadata))


async def _ids(rig: Rig, metadata: Any) -> list[str]:
    page = await rig.agents.ListAgents(LIST, metadata=tuple(metadata))
    return [agent.name.removeprefix("agents/") for agent in page.agents]


async def _until_refused(rig: Rig, metadata: Any) -> None:
    async with asyncio.timeout(20):
        while True:
            await rig.agents.ListAgents(LIST, metadata=metadata)
            await asyncio.sleep(0.02)


async def test_without_keys_everybody_is_the_admin_of_the_default_tenant(rig: Rig) -> None:
    assert (await make_key(rig, "default")).name.startswith("tenants/default/apiKeys/")


async def test_a_credential_is_checked_also_where_none_is_needed(rig: Rig) -> None:
    failure = await failure_of(rig.agents.ListAgents(LIST, metadata=(("authorization", "Bearer wrong"),)))

    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


async def test_a_key_reaches_its_tenant_and_no_other(keyed: tuple[Rig, ApiKey, ApiKey]) -> None:
    rig, red, admin = keyed
    await _make(rig, "of-red", bearer(red))
    await _make(rig, "of-blue", bearer(admin))

    assert await _ids(rig, bearer(red)) == ["of-red"]
    assert await _ids(rig, bearer(admin)) == ["of-blue"]


async def test_no_way_of_being_nobody_tells_more_than_another(keyed: tuple[Rig, ApiKey, ApiKey]) -> None:
    rig, red, _ = keyed
    mark, prefix, secret = red.secret.split("_", 2)
    wrong = [
        (),
        (("authorization", ""),),
        (("authorization", red.secret),),
        (("authorization", "Bearer"),),
        (("authorization", "Basic dXNlcjpwdw=="),),
        (("authorization", f"Bearer {red.secret}x"),),
        (("authorization", f"Bearer {red.secret[:-1]}"),),
        (("authorization", f"Bearer {mark}_{'0' * len(prefix)}_{secret}"),),
        (("authorization", f"Bearer {mark}_{prefix}_{'A' * len(secret)}"),),
        (("authorization", f"Bearer {mark}_{prefix}_"),),
        (("authorization", "Bearer " + "x" * 5_000),),
        (("authorization", f"Bearer {red.secret}"), ("authorization", f"Bearer {red.secret}")),
        (("authorization", f"Bearer {red.secret}"), ("treadle-tenant", "No Tenant")),
        (("authorization", f"Bearer {red.secret}"), ("treadle-tenant", "a" * 300)),
    ]

    failures = [await failure_of(rig.agents.ListAgents(LIST, metadata=metadata)) for metadata in wrong]

    assert {failure.code for failure in failures} == {grpc.StatusCode.UNAUTHENTICATED}
    assert {failure.reason for failure in failures} == {"CREDENTIAL_INVALID"}
    assert len({failure.message for failure in failures}) == 1
    assert all(failure.metadata == {} for failure in failures)


async def test_the_scheme_is_read_in_any_case(keyed: tuple[Rig, ApiKey, ApiKey]) -> None:
    rig, red, _ = keyed

    assert await _ids(rig, (("authorization", f"bearer {red.secret}"),)) == []


async def test_only_an_admin_acts_for_another_tenant(keyed: tuple[Rig, ApiKey, ApiKey]) -> None:
    rig, red, admin = keyed
    await _make(rig, "of-red", bearer(red))

    assert await _ids(rig, (*bearer(admin), ("treadle-tenant", "red"))) == ["of-red"]
    assert await _ids(rig, (*bearer(red), ("treadle-tenant", "red"))) == ["of-red"]
    for tenant in ("blue", "absent"):
        failure = await failure_of(
            rig.agents.ListAgents(LIST, metadata=(*bearer(red), ("treadle-tenant", tenant)))
        )
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "TENANT_MISMATCH")
        assert failure.metadata == {"tenant": tenant}
    failure = await failure_of(
        rig.agents.ListAgents(LIST, metadata=(*bearer(admin), ("treadle-tenant", "absent")))
    )
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")


async def test_keys_are_for_admins(keyed: tuple[Rig, ApiKey, ApiKey]) -> None:
    rig, red, _ = keyed
    name = red.name
    calls = [
        rig.admin.CreateApiKey(
            _admin.CreateApiKeyRequest(parent="tenants/red", api_key={}), metadata=bearer(red)
        ),
        rig.admin.GetApiKey(_admin.GetApiKeyRequest(name=name), metadata=bearer(red)),
        rig.admin.ListApiKeys(_admin.ListApiKeysRequest(parent="tenants/red"), metadata=bearer(red)),
        rig.admin.UpdateApiKey(_admin.UpdateApiKeyRequest(api_key={"name": name}), metadata=bearer(red)),
        rig.admin.DeleteApiKey(_admin.DeleteApiKeyRequest(name=name), metadata=bearer(red)),
    ]

    for call in calls:
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
        assert failure.metadata == {"scope": "admin"}
    assert await rig.admin.GetServerInfo(_admin.GetServerInfoRequest(), metadata=bearer(red))


async def test_a_key_is_shown_with_its_secret_once(keyed: tuple[Rig, ApiKey, ApiKey]) -> None:
    rig, _, admin = keyed
    metadata = bearer(admin)
    request = _admin.CreateApiKeyRequest(
        parent="tenants/red",
        api_key={"display_name": "CI", "expire_time": {"seconds": 4_000_000_000}},
        api_key_id="ci",
        request_id="r",
    )

    created = await rig.admin.CreateApiKey(request, metadata=metadata)

    assert (created.name, created.principal, created.admin) == ("tenants/red/apiKeys/ci", "ci", False)
    assert created.secret.startswith("trdl_")
    repeated = await rig.admin.CreateApiKey(request, metadata=metadata)
    shown = ApiKey()
    shown.CopyFrom(created)
    shown.ClearField("secret")
    assert repeated == shown
    assert await rig.admin.GetApiKey(_admin.GetApiKeyRequest(name=created.name), metadata=metadata) == shown
    page = await rig.admin.ListApiKeys(_admin.ListApiKeysRequest(parent="tenants/red"), metadata=metadata)
    assert page.api_keys[0] == shown
    assert page.total_size == 2


async def test_no_secret_is_in_the_file(keyed: tuple[Rig, ApiKey, ApiKey], path: Path) -> None:
    _, red, admin = keyed

    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())

    for key in (red, admin):
        prefix, secret = key.secret.split("_", 2)[1:]
        assert prefix.encode() in stored
        assert secret.encode() not in stored


async def test_a_deleted_key_stops_working_at_once_and_its_id_stays_taken(
    keyed: tuple[Rig, ApiKey, ApiKey],
) -> None:
    rig, red, admin = keyed
    assert await _ids(rig, bearer(red)) == []
    delete = _admin.DeleteApiKeyRequest(name=red.name, request_id="d")

    await rig.admin.DeleteApiKey(delete, metadata=bearer(admin))

    assert (
        await failure_of(rig.agents.ListAgents(LIST, metadata=bearer(red)))
    ).reason == "CREDENTIAL_INVALID"
    await rig.admin.DeleteApiKey(delete, metadata=bearer(admin))
    again = _admin.DeleteApiKeyRequest(name=red.name)
    assert (await failure_of(rig.admin.DeleteApiKey(again, metadata=bearer(admin)))).reason == (
        "RESOURCE_NOT_FOUND"
    )
    create = _admin.CreateApiKeyRequest(
        parent="tenants/red", api_key={}, api_key_id=red.name.rpartition("/")[2]
    )
    failure = await failure_of(rig.admin.CreateApiKey(create, metadata=bearer(admin)))
    assert (failure.reason, failure.metadata) == ("RESOURCE_EXISTS", {"resource": red.name})


async def test_a_key_that_is_made_to_expire_stops_working(keyed: tuple[Rig, ApiKey, ApiKey]) -> None:
    rig, red, admin = keyed
    assert await _ids(rig, bearer(red)) == []
    info = await rig.admin.GetServerInfo(_admin.GetServerInfoRequest(), metadata=bearer(admin))
    soon = ApiKey(name=red.name, display_name="short")
    soon.expire_time.GetCurrentTime()
    soon.expire_time.FromMicroseconds(soon.expire_time.ToMicroseconds() + 400_000)
    assert soon.expire_time.ToMicroseconds() > info.start_time.ToMicroseconds()

    updated = await rig.admin.UpdateApiKey(_admin.UpdateApiKeyRequest(api_key=soon), metadata=bearer(admin))

    assert (updated.display_name, updated.etag) == ("short", "2")
    assert updated.expire_time == soon.expire_time
    async with asyncio.timeout(10):
        assert (await failure_of(_until_refused(rig, bearer(red)))).reason == "CREDENTIAL_INVALID"


async def test_what_can_be_changed_of_a_key_is_changed_and_nothing_else(rig: Rig) -> None:
    created = await make_key(rig, "default", display_name="old", expire_time={"seconds": 4_000_000_000})

    def update(*paths: str, **fields: Any) -> Any:
        request = _admin.UpdateApiKeyRequest(
            api_key={"name": created.name, **fields}, update_mask={"paths": paths}
        )
        return rig.admin.UpdateApiKey(request)

    assert (await update("expire_time")).HasField("expire_time") is False
    starred = await update("*", display_name="new", principal="other", admin=True)
    assert (starred.display_name, starred.principal, starred.admin) == ("new", created.principal, False)
    for faulty in (update("principal"), update("secret"), update("nonsense")):
        assert (await failure_of(faulty)).fields.keys() == {"update_mask"}
    past = await failure_of(update("expire_time", expire_time={"seconds": 1_000}))
    assert past.fields.keys() == {"api_key.expire_time"}
    stale = await failure_of(update("display_name", display_name="x", etag="1"))
    assert (stale.reason, stale.metadata) == ("ETAG_MISMATCH", {"etag": "3"})


async def test_keys_are_listed_in_pages_newest_first(rig: Rig) -> None:
    made = [(await make_key(rig, "default")).name for _ in range(5)]

    seen, token = [], ""
    while True:
        request = _admin.ListApiKeysRequest(parent="tenants/default", page_size=2, page_token=token)
        page = await rig.admin.ListApiKeys(request)
        seen += [key.name for key in page.api_keys]
        assert page.total_size == 5
        assert not any(key.secret for key in page.api_keys)
        token = page.next_page_token
        if not token:
            break

    assert seen == list(reversed(made))


async def test_keys_that_are_not_there_are_not_found(rig: Rig) -> None:
    calls = [
        rig.admin.ListApiKeys(_admin.ListApiKeysRequest(parent="tenants/none")),
        rig.admin.GetApiKey(_admin.GetApiKeyRequest(name="tenants/none/apiKeys/k")),
        rig.admin.GetApiKey(_admin.GetApiKeyRequest(name="tenants/default/apiKeys/k")),
        rig.admin.UpdateApiKey(_admin.UpdateApiKeyRequest(api_key={"name": "tenants/default/apiKeys/k"})),
    ]

    for call in calls:
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")


async def test_a_key_that_is_refused_makes_no_tenant(rig: Rig) -> None:
    past = _admin.CreateApiKeyRequest(parent="tenants/new", api_key={"expire_time": {"seconds": 1}})

    assert (await failure_of(rig.admin.CreateApiKey(past))).fields.keys() == {"api_key.expire_time"}

    failure = await failure_of(rig.admin.ListApiKeys(_admin.ListApiKeysRequest(parent="tenants/new")))
    assert failure.metadata == {"resource": "tenants/new"}


async def test_a_credential_that_is_nobodys_is_looked_for_once(keyed: tuple[Rig, ApiKey, ApiKey]) -> None:
    rig, red, _ = keyed
    wrong = bearer(ApiKey(secret="trdl_0123456789abcdef_wrong"))
    assert await _ids(rig, bearer(red)) == []
    await failure_of(rig.agents.ListAgents(LIST, metadata=wrong))
    before = rig.server.store.readers.reads

    failures = [await failure_of(rig.agents.ListAgents(LIST, metadata=wrong)) for _ in range(50)]

    assert {failure.code for failure in failures} == {grpc.StatusCode.UNAUTHENTICATED}
    assert rig.server.store.readers.reads == before


async def test_a_stranger_is_sent_away_before_its_request_comes(keyed: tuple[Rig, ApiKey, ApiKey]) -> None:
    rig, red, _ = keyed
    wrong = bearer(ApiKey(secret=f"{red.secret}x"))
    call: Any = rig.channel.stream_stream(f"/{_SERVICE}/ListAgents")(_nothing_sent(), metadata=wrong)

    async with asyncio.timeout(10):
        assert (await failure_of(call.read())).reason == "CREDENTIAL_INVALID"


async def _nothing_sent() -> AsyncIterator[bytes]:
    await asyncio.get_running_loop().create_future()
    yield b""


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.micros = 1_785_000_000_000_000

    def now(self) -> int:
        return self.micros


async def test_a_flood_of_unknown_keys_costs_no_read_and_locks_no_key_out(path: Path) -> None:
    clock = Clock()
    async with running(path) as rig:
        used, unused = await make_key(rig, "red"), await make_key(rig, "red")
        await rig.admin.DeleteApiKey(_admin.DeleteApiKeyRequest(name=(await make_key(rig, "red")).name))
    async with running(path) as rig:
        store = rig.server.store
        keys = Keys(store.api_keys, store.tenants, KeyMessages(), Replays(store.requests, clock), clock)
        assert (await keys.identify(used.secret)).tenant_id == "red"
        before = store.readers.reads

        for number in range(5_000):
            with pytest.raises(Refused) as refused:
                await keys.identify(f"trdl_{number:016x}_wrong")
            assert refused.value.reason is Reason.CREDENTIAL_INVALID

        assert store.readers.reads == before
        clock.micros += 3_600_000_000
        for api_key in (used, unused):
            assert (await keys.identify(api_key.secret)).principal == api_key.principal


class Counted:
    """The keys of a store, and how often they were asked for."""

    def __init__(self, below: Any) -> None:
        self._below = below
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        self.reads += 1
        return getattr(self._below, name)


async def test_a_deleted_key_is_looked_for_once_after_a_restart(path: Path) -> None:
    async with running(path) as rig:
        deleted = await make_key(rig, "red")
        await rig.admin.DeleteApiKey(_admin.DeleteApiKeyRequest(name=deleted.name))
    async with running(path) as rig:
        assert (await failure_of(rig.agents.ListAgents(LIST, metadata=bearer(deleted)))).reason
        store, clock = rig.server.store, Clock()
        stored: Any = Counted(store.api_keys)
        keys = Keys(stored, store.tenants, KeyMessages(), Replays(store.requests, clock), clock)
        costs = []
        for _ in range(3):
            before = stored.reads
            with pytest.raises(Refused) as refused:
                await keys.identify(deleted.secret)
            assert refused.value.reason is Reason.CREDENTIAL_INVALID
            costs.append(stored.reads - before)

        assert costs[0] > 0
        assert costs[1:] == [0, 0]


async def test_a_key_works_as_soon_as_it_is_made(keyed: tuple[Rig, ApiKey, ApiKey]) -> None:
    rig, _, admin = keyed
    request = _admin.CreateApiKeyRequest(parent="tenants/red", api_key={})

    made = await asyncio.gather(*(rig.admin.CreateApiKey(request, metadata=bearer(admin)) for _ in range(20)))

    assert [await _ids(rig, bearer(api_key)) for api_key in made] == [[]] * 20
