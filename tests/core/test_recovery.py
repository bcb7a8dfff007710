"""After a crash: what goes on, what is unknown, and what is never repeated."""

import pytest

from tests.core.histories import (
    HOUR,
    SECOND,
    History,
    between_steps,
    created,
    model_in_flight,
    names,
    payloads,
    spec,
    tools_in_flight,
)
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.commands import CallModel
from treadle_server.core.decide import CLOCK_SLACK_MICROS, decide, due
from treadle_server.core.decisions import UNKNOWN_OUTCOME
from treadle_server.core.kinds import CallStatus, StopReason, ThreadState, UnknownPolicy
from treadle_server.core.values import Cost, Fault, Usage


def test_a_model_call_begins_again_as_another_attempt_and_the_lost_one_is_in_the_cost() -> None:
    history = model_in_flight().crash()

    assert history.wanted == {CallModel("model-1", 2, begun=False)}
    lost = e.UsageRecorded("model-1", 1, "scripted:tests", Usage(), Cost(known=False), estimated=True)
    assert payloads(history, e.UsageRecorded) == [lost]
    assert history.begin().reply("42").state.cost == Cost(100, known=False)
    assert len(payloads(history, e.IterationStarted)) == 1


def test_the_answer_of_the_attempt_that_was_lost_is_refused() -> None:
    history = model_in_flight().crash().begin()

    late = history.refusal(o.ModelReplied, call_id="model-1", attempt=1, text="41")

    assert "no call in flight" in late.message


@pytest.mark.parametrize("name", ["look", "save"])
def test_a_tool_that_may_be_repeated_begins_again(name: str) -> None:
    history = created().turn("", name).begin().crash()

    assert payloads(history, e.ExecutionRecovered) == [e.ExecutionRecovered(2)]
    assert history.tool_command("call-1-1").attempt == 2
    assert history.begin().in_flight == ["call-1-1"]


def test_a_tool_call_at_most_once_is_not_repeated_and_its_outcome_is_unknown() -> None:
    history = created().turn("", "send").begin().crash()

    assert payloads(history, e.ExecutionRecovered) == [e.ExecutionRecovered(2, ("call-1-1",))]
    assert payloads(history, e.ToolCallCompleted) == [
        e.ToolCallCompleted("call-1-1", CallStatus.UNKNOWN, UNKNOWN_OUTCOME)
    ]
    assert len(payloads(history, e.ToolCallStarted)) == 1
    assert history.startable == ["model-2"]


def test_a_call_whose_intent_was_not_recorded_begins_as_if_nothing_had_happened() -> None:
    history = created().turn("", "send", "look").begin("call-1-2").crash()

    assert history.tool_command("call-1-1").attempt == 1
    assert history.tool_command("call-1-2").attempt == 2


def test_a_committed_result_is_kept() -> None:
    history = created().turn("", "send", "look").begin().tool("call-1-1", "sent").crash()

    assert payloads(history, e.ExecutionRecovered) == [e.ExecutionRecovered(2)]
    assert history.startable == ["call-1-2"]


def test_where_the_policy_is_to_fail_an_unknown_outcome_fails_the_thread() -> None:
    its_spec = spec(on_unknown_outcome=UnknownPolicy.FAIL)
    history = created(its_spec).turn("so far", "send", "look").begin().crash()

    assert history.state.status is ThreadState.FAILED
    assert history.state.stop_reason is StopReason.TOOL_OUTCOME_UNKNOWN
    assert history.state.error is not None
    assert history.state.error.message == "the outcome of call-1-1 is unknown after a crash"
    assert {payload.tool_call_id: payload.status for payload in payloads(history, e.ToolCallCompleted)} == {
        "call-1-1": CallStatus.UNKNOWN,
        "call-1-2": CallStatus.ABANDONED,
    }


def test_where_the_policy_is_to_fail_every_call_with_an_unknown_outcome_is_named() -> None:
    history = created(spec(on_unknown_outcome=UnknownPolicy.FAIL)).turn("", "send", "send").begin().crash()

    assert history.state.error == Fault(9, "the outcome of call-1-1, call-1-2 is unknown after a crash")


@pytest.mark.parametrize("name", ["look", "save"])
def test_where_the_policy_is_to_fail_a_call_that_may_be_repeated_does_not(name: str) -> None:
    its_spec = spec(on_unknown_outcome=UnknownPolicy.FAIL)

    assert created(its_spec).turn("", name).begin().crash().startable == ["call-1-1"]


def test_what_waits_for_people_goes_on_waiting() -> None:
    history = tools_in_flight().crash()

    assert history.startable == ["call-1-1"]
    assert history.begin().tool("call-1-1").state.status is ThreadState.WAITING_APPROVAL
    assert history.approve("call-1-3").startable == ["call-1-3"]


@pytest.mark.parametrize(
    "history",
    [created(), between_steps(), created().turn("", "ask"), created().turn("42")],
    ids=["pending", "recovered already", "waiting", "ended"],
)
def test_a_thread_without_anything_in_flight_is_not_recovered(history: History) -> None:
    assert "no call in flight" in history.refusal(o.Recovered, epoch=3).message


def test_a_cancel_that_was_pending_is_carried_out() -> None:
    history = created().turn("so far", "look", "send").begin()
    history.ask(s.Cancel)

    history.crash()

    assert history.state.status is ThreadState.CANCELLED
    statuses = {payload.tool_call_id: payload.status for payload in payloads(history, e.ToolCallCompleted)}
    assert statuses == {"call-1-1": CallStatus.ABANDONED, "call-1-2": CallStatus.UNKNOWN}


def test_a_pending_cancel_comes_before_the_policy_to_fail() -> None:
    history = created(spec(on_unknown_outcome=UnknownPolicy.FAIL)).turn("", "send").begin()
    history.ask(s.Cancel)

    assert history.crash().state.stop_reason is StopReason.CANCELLED_BY_CALLER


def test_a_pause_that_was_pending_is_carried_out_and_the_call_begins_again_after_it() -> None:
    history = model_in_flight()
    history.ask(s.Pause)

    history.crash()

    assert history.state.status is ThreadState.PAUSED
    history.ask(s.Resume)
    assert history.wanted == {CallModel("model-1", 2, begun=False)}


def test_an_attempt_that_waits_for_its_retry_is_not_touched_by_a_crash_of_another() -> None:
    history = created().turn("", "look", "save").begin().tool_fails("call-1-1")
    waiting = history.tool_command("call-1-1")

    history.crash()

    assert history.tool_command("call-1-1") == waiting
    assert history.tool_command("call-1-2").attempt == 2


def test_the_time_that_a_server_was_down_counts_against_the_time_of_the_thread() -> None:
    history = model_in_flight()
    history.at(history.now + 2 * HOUR)

    history.crash()
    history.ask(s.Due)

    assert history.state.status is ThreadState.TIMED_OUT


def test_crash_after_crash_leaves_one_attempt_for_each() -> None:
    history = created().turn("", "look").begin()
    for attempt in (2, 3, 4):
        history.crash()
        assert history.tool_command("call-1-1").attempt == attempt
        history.begin()

    assert names(*history.events).count("ToolCallStarted") == 4
    assert history.state.recoveries == 3
    assert history.tool("call-1-1").startable == ["model-2"]
    assert history.state.running_since == history.state.start_time
    assert history.now - history.state.start_time > SECOND


def test_a_wait_for_another_attempt_is_over_when_the_wall_clock_was_put_back_behind_its_beginning() -> None:
    state = created().turn("", "look").begin().tool_fails("call-1-1").state
    (waiting,) = decide(state)
    failed_at = state.update_time

    assert due(state, waiting.not_before - 1) == []
    assert due(state, waiting.not_before) == [waiting]
    assert due(state, failed_at) == []
    assert due(state, failed_at - CLOCK_SLACK_MICROS) == [], "events that came together may differ so much"
    assert due(state, failed_at - 24 * HOUR) == [waiting]
