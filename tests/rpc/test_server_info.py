"""What a server says of itself and of its tools."""

import json

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig
from tests.stores.disk import fill_the_disk, free_the_disk
from tests.waiting import eventually
from treadle.v1 import (
    admin_service_pb2,
    agent_pb2,
    agent_service_pb2,
    server_info_pb2,
    tool_pb2,
    tool_service_pb2,
)
from treadle_server.core.errors import Reason
from treadle_server.services.server_info import store_state

_List = tool_service_pb2.ListBuiltinToolsRequest


async def test_a_server_tells_what_it_is_and_can_do(rig: Rig) -> None:
    info = await rig.admin.GetServerInfo(admin_service_pb2.GetServerInfoRequest())

    assert info.version
    assert info.epoch == 1
    assert info.start_time.seconds > 1_700_000_000
    assert info.durability == server_info_pb2.ServerInfo.FULL
    assert info.limits.page_size_max == 1_000
    assert info.limits.input_bytes_max == 65_536
    assert info.limits.request_id_lifetime.seconds == 86_400
    assert "demo" in {provider.name for provider in info.model_providers}


async def test_a_server_says_while_its_disk_is_full(rig: Rig) -> None:
    asked = admin_service_pb2.GetServerInfoRequest()
    store = rig.server.store
    states = [(await rig.admin.GetServerInfo(asked)).store_state]

    await fill_the_disk(store)
    agent = agent_pb2.Agent(model='scripted:{"turns":[{"text":"Done."}]}', instructions="x" * 60_000)
    failure = await failure_of(rig.agents.CreateAgent(agent_service_pb2.CreateAgentRequest(agent=agent)))
    states.append((await rig.admin.GetServerInfo(asked)).store_state)
    await free_the_disk(store)
    await eventually(lambda: store.log.blocked_by is None)
    states.append((await rig.admin.GetServerInfo(asked)).store_state)

    assert failure.reason == "DISK_FULL"
    info = server_info_pb2.ServerInfo
    assert states == [info.WRITABLE, info.DISK_FULL, info.WRITABLE]


def test_each_cause_of_an_outage_has_its_state() -> None:
    info = server_info_pb2.ServerInfo
    causes = (None, Reason.DISK_FULL, Reason.STORE_UNAVAILABLE)

    assert [store_state(cause) for cause in causes] == [info.WRITABLE, info.DISK_FULL, info.BLOCKED]


async def test_the_built_in_tools_are_listed_in_pages(rig: Rig) -> None:
    whole = await rig.tools.ListBuiltinTools(_List())

    assert whole.total_size == len(whole.tools) > 2
    assert whole.next_page_token == ""
    seen, token = [], ""
    while True:
        page = await rig.tools.ListBuiltinTools(_List(page_size=2, page_token=token))
        seen += page.tools
        token = page.next_page_token
        if not token:
            break
    assert seen == list(whole.tools)


async def test_a_built_in_tool_says_what_it_takes_and_does(rig: Rig) -> None:
    tools = {tool.name: tool for tool in (await rig.tools.ListBuiltinTools(_List())).tools}

    calculator = tools["builtin/calculator"]

    assert json.loads(calculator.parameters_schema_json)["type"] == "object"
    assert calculator.effect == tool_pb2.Tool.READ_ONLY
    assert calculator.state == tool_pb2.Tool.ACTIVE
    assert calculator.definition_digest.startswith("sha256:")
    assert len({tool.definition_digest for tool in tools.values()}) == len(tools)
    assert calculator.timeout.seconds > 0


async def test_a_foreign_token_is_refused(rig: Rig) -> None:
    failure = await failure_of(rig.tools.ListBuiltinTools(_List(page_token="eHh4")))

    assert failure.fields.keys() == {"page_token"}
