"""Crashes that count against a thread, and outcomes that clear it."""

import pytest

from tests.core.histories import SITUATIONS, History, created, model_in_flight, spec
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core import suspicion
from treadle_server.core.kinds import CallStatus, StopReason, ThreadState, UnknownPolicy
from treadle_server.core.values import Fault


def looking() -> History:
    return created().turn("", "look").begin()


def crash(history: History, epoch: int, **fields: bool) -> History:
    """A server finds the thread with calls in flight, and begins them again."""
    history.ask(o.Recovered, epoch=epoch, **fields)
    if history.wanted:
        history.begin()
    return history


def crashed(history: History, times: int) -> History:
    for epoch in range(2, 2 + times):
        crash(history, epoch)
    return history


def test_crashes_in_a_row_during_the_same_step_are_counted() -> None:
    assert crashed(looking(), 3).state.crashes == {"look": 3}
    assert crashed(model_in_flight(), 2).state.crashes == {"": 2}


def test_the_crash_that_is_not_recorded_yet_counts_once() -> None:
    history = crashed(looking(), 1)

    assert suspicion.crashes(history.state, 3, blameless=False) == 2
    assert suspicion.crashes(history.state, 3, blameless=True) == 1
    assert suspicion.crashes(history.state, 2, blameless=False) == 0
    assert suspicion.crashes(created().turn("", "ask").state, 3, blameless=False) == 0


def test_the_first_crash_of_all_counts_once_too() -> None:
    assert suspicion.crashes(looking().state, 2, blameless=False) == 1
    assert suspicion.crashes(looking().state, 2, blameless=True) == 0


@pytest.mark.parametrize(("times", "suspected"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_thread_is_suspected_from_the_second_crash_in_a_row_until_an_outcome(
    times: int, suspected: bool
) -> None:
    history = crashed(looking(), times)
    assert suspicion.suspected(history.state) is suspected

    history.tool("call-1-1")

    assert not suspicion.suspected(history.state)


def test_a_thread_that_has_ended_is_not_suspected() -> None:
    history = crashed(looking(), 2)

    history.due()

    assert history.state.ended
    assert not suspicion.suspected(history.state)


def test_a_server_that_takes_a_thread_up_twice_counts_no_crash_for_it() -> None:
    history = looking()
    crash(crash(history, 2), 2)

    assert history.state.recoveries == 2
    assert history.state.crashes == {"look": 1}


def test_a_stop_in_order_is_no_crash() -> None:
    history = crash(crash(looking(), 2, blameless=True), 3, blameless=True)

    assert history.state.crashes == {}
    assert history.events[-2].payload == e.ExecutionRecovered(3, blameless=True)


def test_the_third_crash_without_a_sign_of_progress_is_proof_where_there_is_nobody_else() -> None:
    history = crashed(looking(), 1)
    assert not suspicion.proven_alone(history.state, 3)

    crash(history, 3)
    assert suspicion.proven_alone(history.state, 4)
    assert not suspicion.proven_alone(history.state, 3), "this server has taken it up already"


def test_any_progress_between_two_crashes_is_no_proof() -> None:
    history = crash(created().turn("", "send").begin(), 2).reply("", "send").begin()
    history = crash(history, 3).reply("", "send").begin()

    assert history.state.crashes == {"send": 2}
    assert not suspicion.proven_alone(history.state, 4)


def test_a_result_clears_the_step() -> None:
    assert crashed(looking(), 2).tool("call-1-1").state.crashes == {}
    assert crashed(model_in_flight(), 2).reply("", "look").state.crashes == {}


def test_a_failure_of_the_call_itself_clears_the_step() -> None:
    assert crashed(looking(), 1).tool_fails("call-1-1").state.crashes == {}, "another attempt follows"
    assert crashed(looking(), 2).tool_fails("call-1-1").state.crashes == {}, "it was the last one"
    assert crashed(model_in_flight(), 2).model_fails().state.crashes == {}


def test_an_outcome_of_another_step_clears_nothing() -> None:
    history = crashed(created().turn("", "look", "save").begin(), 2)

    assert history.tool("call-1-2").state.crashes == {"look": 2}


def test_a_call_that_is_not_repeated_is_held_against_the_tool_when_it_is_called_anew() -> None:
    """The outcome UNKNOWN is the recovery's own."""
    history = created()
    for epoch in (2, 3, 4):
        history.turn("", "send").begin()
        history.ask(o.Recovered, epoch=epoch)

    assert history.state.crashes == {"send": 3}


def test_who_is_found_guilty_ends_poisoned_with_every_call_closed() -> None:
    history = crashed(created().turn("so far", "look", "send").begin("call-1-1"), 2)
    history.ask(o.Recovered, epoch=4, guilty=True)

    ended = history.events[-1].payload
    assert isinstance(ended, e.ThreadEnded)
    assert (ended.state, ended.stop_reason) == (ThreadState.FAILED, StopReason.POISONED)
    assert ended.error is not None
    assert ended.error.message.startswith("the server went down 3 times in a row")
    assert "the tool look" in ended.error.message
    assert {call.status for call in history.state.calls.values()} <= {
        *(CallStatus.ABANDONED, CallStatus.CANCELLED, CallStatus.UNKNOWN)
    }


def test_the_end_says_that_it_was_the_models_call() -> None:
    history = crashed(model_in_flight(), 2)
    history.ask(o.Recovered, epoch=4, guilty=True)

    assert history.state.error == Fault(
        10, "the server went down 3 times in a row during this thread's call of the model"
    )


@pytest.mark.parametrize("times", [0, 1])
def test_fewer_than_three_crashes_make_nobody_guilty(times: int) -> None:
    history = crashed(looking(), times)

    history.ask(o.Recovered, epoch=9, guilty=True)

    assert history.state.status is ThreadState.RUNNING


def test_a_cancel_that_is_pending_comes_before_guilt() -> None:
    history = crashed(looking(), 2)
    history.ask(s.Cancel)

    history.ask(o.Recovered, epoch=9, guilty=True)

    assert history.state.stop_reason is StopReason.CANCELLED_BY_CALLER


def test_an_unknown_outcome_that_fails_the_thread_comes_before_guilt() -> None:
    history = created(spec(on_unknown_outcome=UnknownPolicy.FAIL)).turn("", "look", "send").begin("call-1-1")
    for epoch in (2, 3):
        history.ask(o.Recovered, epoch=epoch)
        history.begin("call-1-1")
    history.begin("call-1-2")

    history.ask(o.Recovered, epoch=9, guilty=True)

    assert history.state.stop_reason is StopReason.TOOL_OUTCOME_UNKNOWN


@pytest.mark.parametrize("situation", ["pending", "model in flight", "waits for an answer"])
def test_a_thread_that_cannot_be_driven_ends_without_details(situation: str) -> None:
    history = SITUATIONS[situation]()

    history.ask(o.DriveFailed)

    assert (history.state.status, history.state.stop_reason) == (ThreadState.FAILED, StopReason.INTERNAL)
    assert history.state.error == Fault(13, "the server failed at driving the thread; its log says why")
    assert history.state.in_flight is False


def test_a_thread_that_has_ended_does_not_end_again() -> None:
    assert "no call in flight" in created().turn("42").refusal(o.DriveFailed).message
