"""`limits.max_starts`: what is refused, and what a thread says that is held back."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.failures import failure_of
from tests.rpc.rig import Rig, running
from tests.rpc.runs import HANG, create, get, make_agent, pb, run
from tests.waiting import eventually
from treadle.v1 import agent_service_pb2, thread_pb2

_agents: Any = agent_service_pb2
START_RATE = thread_pb2.WaitingFor.START_RATE
ONE_A_DAY = {"max_starts": 1, "start_interval": {"seconds": 86_400}}


async def waits_for_rate(rig: Rig, name: str) -> bool:
    thread = await get(rig, name)
    kinds = [(waiting.kind, waiting.resource) for waiting in thread.waiting_for]
    return bool(thread.state == thread.PENDING) and kinds == [(START_RATE, "agents/helper")]


async def test_a_thread_beyond_the_rate_is_pending_and_says_for_what_it_waits(rig: Rig) -> None:
    await make_agent(rig, limits=ONE_A_DAY)
    assert (await run(rig)).success

    second = await create(rig)

    await eventually(lambda: waits_for_rate(rig, second.name))
    waiting = (await get(rig, second.name)).waiting_for[0]
    assert waiting.since == second.create_time


async def test_it_waits_on_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "treadle.db") as rig:
        await make_agent(rig, limits=ONE_A_DAY)
        await run(rig)
        second = await create(rig)

    async with running(tmp_path / "treadle.db") as rig:
        await eventually(lambda: waits_for_rate(rig, second.name))


async def test_a_thread_that_is_held_back_can_be_cancelled(rig: Rig) -> None:
    await make_agent(rig, limits=ONE_A_DAY)
    await run(rig)
    second = await create(rig)

    cancelled = await rig.threads.CancelThread(pb.CancelThreadRequest(name=second.name))

    assert cancelled.state == cancelled.CANCELLED
    assert not cancelled.HasField("start_time")


async def test_the_limit_of_threads_at_work_is_told_before_the_rate(rig: Rig) -> None:
    await make_agent(rig, "helper", HANG, limits={**ONE_A_DAY, "max_concurrent_threads": 1})
    await create(rig)
    second = await create(rig)

    (waiting,) = (await get(rig, second.name)).waiting_for

    assert waiting.kind == thread_pb2.WaitingFor.AGENT_LIMIT


@pytest.mark.parametrize(
    ("limits", "fields"),
    [
        ({"max_starts": 1}, ["agent.limits.start_interval"]),
        ({"start_interval": {"seconds": 60}}, ["agent.limits.start_interval"]),
        ({"max_starts": 1, "start_interval": {}}, ["agent.limits.start_interval"]),
        ({"max_starts": 1, "start_interval": {"seconds": 31 * 86_400 + 1}}, ["agent.limits.start_interval"]),
        ({"max_starts": -1, "start_interval": {"seconds": 60}}, ["agent.limits.max_starts"]),
        ({"max_starts": 10_001, "start_interval": {"seconds": 60}}, ["agent.limits.max_starts"]),
    ],
)
async def test_a_rate_that_says_too_little_or_too_much_is_refused(
    rig: Rig, limits: Any, fields: list[str]
) -> None:
    agent = {"model": "demo:react", "limits": limits}

    failure = await failure_of(rig.agents.CreateAgent(_agents.CreateAgentRequest(agent=agent)))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert list(failure.fields) == fields


async def test_the_largest_rate_is_kept_as_it_was_given(rig: Rig) -> None:
    limits = {"max_starts": 10_000, "start_interval": {"seconds": 31 * 86_400}}
    await make_agent(rig, limits=limits)

    agent = await rig.agents.GetAgent(_agents.GetAgentRequest(name="agents/helper"))

    assert (agent.limits.max_starts, agent.limits.start_interval.seconds) == (10_000, 31 * 86_400)


async def test_a_change_of_the_rate_makes_a_new_version(rig: Rig) -> None:
    await make_agent(rig, limits=ONE_A_DAY)
    agent = {"name": "agents/helper", "limits": {**ONE_A_DAY, "max_starts": 2}}
    request = _agents.UpdateAgentRequest(agent=agent, update_mask={"paths": ["limits"]})

    changed = await rig.agents.UpdateAgent(request)

    assert changed.version == 2
    assert changed.limits.max_starts == 2
