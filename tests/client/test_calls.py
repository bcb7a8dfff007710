"""Calls with one answer, by both clients: each takes effect once, however often it has to be made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.client.conftest import Handle
from tests.client.server import Act, Server, answers, hangs, refuses, retry_after
from treadle import (
    Agent,
    Client,
    Content,
    DeadlineExceeded,
    Internal,
    Iteration,
    NotFound,
    Retry,
    Thread,
    ThreadEvent,
    Unavailable,
)
from treadle.v1.admin_service_pb2 import ListApiKeysResponse
from treadle.v1.agent_service_pb2 import ListAgentsResponse
from treadle.v1.thread_service_pb2 import ListIterationsResponse, ListThreadEventsResponse

AGENT = Agent(name="agents/a", version=1)
THREAD = Thread(name="threads/t1", state=Thread.COMPLETED, output=Content(text="4"))
RATE_LIMITED = refuses(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", details=[retry_after(0.1)])
DRAINING = refuses(grpc.StatusCode.UNAVAILABLE, "DRAINING", details=[retry_after(0.02)])


async def test_an_answer_comes_back_typed(server: Server, handle: Handle) -> None:
    server.play(answers(AGENT))

    assert await handle.answer("get_agent", "a") == AGENT
    assert server.asked[0].method == "GetAgent"
    assert server.asked[0].request.name == "agents/a"


async def test_key_and_tenant_go_with_every_call(server: Server, handle: Handle) -> None:
    server.play(answers(AGENT))
    await handle.answer("get_agent", "a")

    metadata = server.asked[0].metadata

    assert (metadata["authorization"], metadata["treadle-tenant"]) == ("Bearer key", "acme")
    assert metadata["user-agent"].startswith("treadle-python/")


@pytest.mark.parametrize(
    "failure",
    [
        refuses(grpc.StatusCode.UNAVAILABLE),
        refuses(grpc.StatusCode.CANCELLED),
        DRAINING,
        RATE_LIMITED,
    ],
    ids=["unavailable", "cancelled by the server", "draining", "rate limited"],
)
async def test_a_change_is_repeated_with_the_same_request_id(
    server: Server, handle: Handle, failure: Act
) -> None:
    server.play(failure, failure, answers(AGENT))

    assert await handle.answer("create_agent", "a", model="demo:react") == AGENT

    first, *others = [asked.request for asked in server.asked]
    assert first.request_id
    assert others == [first, first]


async def test_two_changes_have_request_ids_of_their_own(server: Server, handle: Handle) -> None:
    server.play(answers(AGENT), answers(AGENT), answers(AGENT))

    await handle.answer("create_agent", "a", model="demo:react")
    await handle.answer("create_agent", "a", model="demo:react")
    await handle.answer("create_agent", "a", model="demo:react", request_id="mine")

    ids = [asked.request.request_id for asked in server.asked]
    assert len(set(ids)) == 3
    assert ids[2] == "mine"


async def test_the_server_is_left_alone_for_as_long_as_it_wants(server: Server, handle: Handle) -> None:
    server.play(RATE_LIMITED, answers(AGENT))

    await handle.answer("get_agent", "a")

    assert server.asked[1].time - server.asked[0].time >= 0.1


async def test_what_is_no_passing_failure_is_not_repeated(server: Server, handle: Handle) -> None:
    server.play(refuses(grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND"), answers(AGENT))

    with pytest.raises(NotFound):
        await handle.answer("get_agent", "a")

    assert len(server.asked) == 1


async def test_an_internal_fault_is_not_repeated(server: Server, handle: Handle) -> None:
    server.play(refuses(grpc.StatusCode.INTERNAL, "INTERNAL"), answers(AGENT))

    with pytest.raises(Internal):
        await handle.answer("delete_thread", "t1")

    assert len(server.asked) == 1


async def test_execute_waits_for_the_same_thread_after_a_disconnect(server: Server, handle: Handle) -> None:
    server.play(
        refuses(grpc.StatusCode.UNAVAILABLE, thread="threads/t1"),
        refuses(grpc.StatusCode.CANCELLED),
        answers(THREAD),
    )

    assert await handle.answer("execute", "a", "2+2") == THREAD

    requests = [asked.request for asked in server.asked]
    assert requests[0].thread.agent == "agents/a"
    assert requests[0].thread.input.text == "2+2"
    assert requests == [requests[0]] * 3


async def test_a_server_that_restarts_meanwhile_is_found_again(server: Server, handle: Handle) -> None:
    server.play(hangs(), answers(THREAD))
    waiting = asyncio.create_task(handle.answer("execute", "a", "2+2"))
    await server.arrived(1)

    await server.stop()
    await server.start()

    assert await waiting == THREAD
    assert server.asked[0].request == server.asked[1].request


async def test_a_deadline_ends_the_call_and_names_the_thread(server: Server, handle: Handle) -> None:
    async def act(_: object, context: Any) -> AsyncIterator[Thread]:
        await context.send_initial_metadata((("treadle-thread", "threads/t1"),))
        await asyncio.Event().wait()
        yield THREAD

    server.play(act)

    with pytest.raises(DeadlineExceeded) as raised:
        await handle.answer("execute", "a", "2+2", timeout=0.3)

    assert raised.value.thread == "threads/t1"
    assert len(server.asked) == 1


async def test_pages_are_fetched_until_the_last(server: Server, handle: Handle) -> None:
    server.play(
        answers(ListAgentsResponse(agents=[Agent(name="agents/1")], next_page_token="p2")),
        refuses(grpc.StatusCode.UNAVAILABLE),
        answers(ListAgentsResponse(next_page_token="p3")),
        answers(ListAgentsResponse(agents=[Agent(name="agents/2"), Agent(name="agents/3")])),
    )

    found = await handle.items("list_agents", filter='model = "demo:react"', page_size=1)

    assert [agent.name for agent in found] == ["agents/1", "agents/2", "agents/3"]
    assert [asked.request.page_token for asked in server.asked] == ["", "p2", "p2", "p3"]
    assert {asked.request.filter for asked in server.asked} == {'model = "demo:react"'}


async def test_every_list_gives_its_items(server: Server, handle: Handle) -> None:
    server.play(
        answers(ListThreadEventsResponse(events=[ThreadEvent(sequence=1)])),
        answers(ListIterationsResponse(iterations=[Iteration(number=1)])),
        answers(ListApiKeysResponse()),
    )

    assert [event.sequence for event in await handle.items("list_events", "t1")] == [1]
    assert [turn.number for turn in await handle.items("list_iterations", "t1")] == [1]
    assert await handle.items("list_api_keys", "acme") == []


async def test_a_cancelled_task_cancels_its_call_and_is_not_repeated(server: Server, client: Client) -> None:
    server.play(hangs(), answers(THREAD))
    waiting = asyncio.create_task(client.execute("a", "2+2"))
    asked = await server.arrived(1)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5):
        await asked.ended.wait()
    assert len(server.asked) == 1


async def test_a_server_that_is_not_there_is_reported_when_patience_is_over(server: Server) -> None:
    await server.stop()

    async with Client(server.address, retry=Retry(call_seconds_max=0.3)) as client, asyncio.timeout(10):
        with pytest.raises(Unavailable) as raised:
            await client.get_agent("a")

    assert raised.value.reason == ""


@pytest.mark.parametrize("target", ["treadle.example:443", "10.0.0.1:50051", "dns:///treadle.example:1"])
def test_a_key_does_not_leave_the_machine_unencrypted(target: str) -> None:
    with pytest.raises(ValueError, match="unencrypted"):
        Client(target, api_key="key")

    Client(target, api_key="key", credentials=grpc.ssl_channel_credentials())
    Client(target, api_key="key", insecure=True)
    Client(target, api_key="")


@pytest.mark.parametrize(
    "target", ["127.0.0.1:1", "localhost:1", "[::1]:1", "ipv6:[::1]:1", "unix:/run/t", "dns:///localhost:1"]
)
def test_a_key_is_sent_to_a_server_on_the_same_machine(target: str) -> None:
    Client(target, api_key="key")


async def test_the_key_of_the_environment_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_API_KEY", "from-the-environment")
    server.play(answers(AGENT))

    async with Client(server.address) as client:
        await client.get_agent("a")

    assert server.asked[0].metadata["authorization"] == "Bearer from-the-environment"
