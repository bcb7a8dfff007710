"""A server killed between an intent and its result: what is repeated, and what is only in doubt."""

import asyncio

import pytest

from tests.faults.history import Acknowledged, History, check
from tests.faults.ledger import BEGUN, DONE, MODEL
from tests.faults.scripts import Script, script
from tests.faults.site import AGENT, GOOGLE_AGENT, STRICT_AGENT, Site
from treadle import Action, Thread, ThreadEvent

THREAD = "step"
SIGKILLED = -9


async def killed(site: Site, tool: str, failpoint: str, agent: str = AGENT) -> History:
    """One call of a tool in a thread whose server was killed at the failpoint and started again."""
    return await killed_playing(site, script(THREAD, [[tool]]), failpoint, agent)


async def killed_playing(site: Site, played: Script, failpoint: str, agent: str) -> History:
    await site.start(f"{failpoint}=kill")
    async with site.client() as client:
        # The kill may come before the answer; the client then asks again.
        creating = asyncio.create_task(
            client.create_thread(agent, data=played, thread_id=THREAD, request_id="r")
        )
        assert await site.ended() == SIGKILLED
        await site.start()
        created = await creating
        async for _ in client.watch(THREAD):
            pass
        history = History([Acknowledged("r", created.name)], ledger=site.ledger.all())
        await history.read(client)
    check(history)
    return history


def log_of(history: History) -> list[ThreadEvent]:
    return history.logs[f"threads/{THREAD}"]


def result_of(history: History) -> tuple["Action.Status.ValueType", str]:
    (completed,) = [e.tool_call_completed for e in log_of(history) if e.HasField("tool_call_completed")]
    return completed.status, completed.observation


def attempts(history: History, kind: str) -> list[int]:
    return [getattr(event, kind).attempt for event in log_of(history) if event.HasField(kind)]  # type: ignore[arg-type]


IN_DOUBT = [
    ("intent.after#2", 0),  # the first one is that of the model call
    ("dispatch.before", 0),
    ("effect.before", 1),
    ("effect.after", 1),
    ("result.before", 1),
]
"""Places within a call, and how often it then takes effect: what was sent is done, whoever has died."""


@pytest.mark.parametrize(("failpoint", "happened"), IN_DOUBT)
async def test_a_call_at_most_once_is_not_repeated_and_its_model_is_told(
    site: Site, failpoint: str, happened: int
) -> None:
    history = await killed(site, "send", failpoint)

    status, observation = result_of(history)
    assert status == Action.UNKNOWN
    assert "was not repeated" in observation
    assert len(history.effects) == happened
    assert attempts(history, "tool_call_started") == [1]
    end = log_of(history)[-1].thread_ended
    assert end.state == Thread.COMPLETED
    assert end.output.text == f"done after {observation}"


@pytest.mark.parametrize(("failpoint", "happened"), [("dispatch.before", 0), ("effect.after", 1)])
async def test_an_agent_that_asks_for_it_fails_where_an_outcome_is_unknown(
    site: Site, failpoint: str, happened: int
) -> None:
    history = await killed(site, "send", failpoint, STRICT_AGENT)

    assert result_of(history)[0] == Action.UNKNOWN
    assert len(history.effects) == happened
    end = log_of(history)[-1].thread_ended
    assert (end.state, end.stop_reason) == (Thread.FAILED, Thread.TOOL_OUTCOME_UNKNOWN)


@pytest.mark.parametrize("agent", [AGENT, STRICT_AGENT])
@pytest.mark.parametrize(("failpoint", "calls"), [("dispatch.before", 1), ("effect.after", 2)])
@pytest.mark.parametrize("tool", ["look", "save"])
async def test_a_call_that_may_be_repeated_is_made_again_with_its_key(
    site: Site, tool: str, failpoint: str, calls: int, agent: str
) -> None:
    history = await killed(site, tool, failpoint, agent)

    assert result_of(history) == (Action.SUCCEEDED, f"{tool} {THREAD}/1/1")
    assert len(history.effects) == calls
    assert {(line.note, line.call_id) for line in history.ledger} == {(f"{THREAD}/1/1", "call-1-1")}
    assert len({line.key for line in history.ledger}) == 1
    if tool == "save":  # a READ_ONLY call does not wait for its intent, which may be lost with it
        assert attempts(history, "tool_call_started") == [1, 2]
        assert history.ledger[-1].attempt == 2
    assert log_of(history)[-1].thread_ended.state == Thread.COMPLETED


async def test_a_model_call_is_made_again_once_and_the_lost_attempt_is_in_the_cost(site: Site) -> None:
    history = await killed(site, "look", "model.before")

    first, *others = [event.usage_recorded for event in log_of(history) if event.HasField("usage_recorded")]
    assert (first.call_id, first.attempt, first.estimated, first.cost.known) == ("model-1", 1, True, False)
    assert [(usage.call_id, usage.attempt) for usage in others] == [("model-1", 2), ("model-2", 1)]
    assert attempts(history, "model_call_started") == [1, 2, 1]
    end = log_of(history)[-1].thread_ended
    assert end.state == Thread.COMPLETED
    assert not end.cost.known
    assert end.usage.total_tokens == sum(usage.usage.total_tokens for usage in others)


@pytest.mark.parametrize(
    ("failpoint", "requests"),
    [("intent.after", 2), ("model.before", 2), ("model.after", 3), ("result.after", 3)],
)
async def test_a_thread_is_charged_the_tokens_of_the_answers_that_it_took(
    site: Site, failpoint: str, requests: int
) -> None:
    played = {**script(THREAD, [["look"]]), "thread": THREAD}
    history = await killed_playing(site, played, failpoint, GOOGLE_AGENT)

    asked = [line for line in history.ledger if line.tool == MODEL and line.step == BEGUN]
    answers = [line for line in history.ledger if line.tool == MODEL and line.step == DONE]
    assert len(asked) == len(answers) == requests
    end = log_of(history)[-1].thread_ended
    assert (end.state, end.output.text) == (Thread.COMPLETED, f"done after look {THREAD}/1/1")
    taken = {line.note: line.tokens for line in answers}  # the last answer of each turn
    assert end.usage.total_tokens == sum(taken.values())
    estimated = [e for e in log_of(history) if e.usage_recorded.estimated]
    assert len(estimated) == 1
    assert not end.cost.known
