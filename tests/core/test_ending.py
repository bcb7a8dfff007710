"""How threads are ended from outside: grace, what is closed, what comes too late, and time."""

from collections.abc import Callable

import pytest

from tests.core.histories import (
    DAY,
    HOUR,
    SECOND,
    SITUATIONS,
    History,
    cancelling,
    created,
    limited,
    model_in_flight,
    names,
    payloads,
    tools_in_flight,
)
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.accept import Ask
from treadle_server.core.decide import wake_at
from treadle_server.core.errors import Reason
from treadle_server.core.kinds import CallStatus, StopReason, ThreadState
from treadle_server.core.values import Content, Cost, Fault, Usage

ENDED = ["completed", "failed", "cancelled", "timed out"]


def statuses(history: History) -> dict[str, CallStatus]:
    return {payload.tool_call_id: payload.status for payload in payloads(history, e.ToolCallCompleted)}


def test_a_cancel_waits_for_what_is_in_flight_and_wants_nothing_any_more() -> None:
    history = cancelling()

    assert names(history.events[-1]) == "ControlRequested"
    assert history.wanted == frozenset()
    assert wake_at(history.state) == history.now + 5 * SECOND


def test_a_cancel_keeps_what_still_arrives_within_its_grace() -> None:
    history = cancelling().tool("call-1-1", "a cat")
    assert not history.state.ended

    history.ask(o.Aborted, call_id="call-1-2", attempt=1)

    assert history.state.status is ThreadState.CANCELLED
    assert payloads(history, e.ToolCallCompleted)[1].observation == (
        "stopped before the result came: whether it took effect is unknown"
    )
    assert statuses(history) == {
        "call-1-1": CallStatus.SUCCEEDED,
        "call-1-2": CallStatus.UNKNOWN,
        "call-1-3": CallStatus.CANCELLED,
        "call-1-4": CallStatus.CANCELLED,
        "call-1-5": CallStatus.CANCELLED,
    }
    assert history.state.output == Content("on it")


def test_a_call_that_may_be_repeated_and_was_stopped_is_cancelled() -> None:
    history = cancelling()

    history.ask(o.Aborted, call_id="call-1-1", attempt=1, duration_micros=9)

    assert payloads(history, e.ToolCallCompleted) == [
        e.ToolCallCompleted("call-1-1", CallStatus.CANCELLED, "stopped before the result came", 9)
    ]


def test_a_failure_within_the_grace_is_not_tried_again() -> None:
    history = cancelling().tool_fails("call-1-1")

    assert statuses(history) == {"call-1-1": CallStatus.FAILED}


def test_a_model_failure_within_the_grace_is_not_tried_again() -> None:
    history = model_in_flight()
    history.ask(s.Cancel)

    history.model_fails()

    assert history.state.stop_reason is StopReason.CANCELLED_BY_CALLER
    assert not payloads(history, e.ModelCallFailed)[0].will_retry


@pytest.mark.parametrize("calls", [(), ("look",)])
def test_a_turn_within_the_grace_is_kept_and_paid_but_calls_nothing_and_answers_nothing(
    calls: tuple[str, ...],
) -> None:
    history = model_in_flight()
    history.ask(s.Cancel)

    history.reply("42", *calls)

    assert not payloads(history, e.MessageCompleted)[0].final
    assert payloads(history, e.ToolCallRequested) == []
    assert (history.state.status, history.state.output) == (ThreadState.CANCELLED, Content("42"))
    assert history.state.cost == Cost(100)


def test_a_model_call_that_was_stopped_is_in_the_cost_as_unknown() -> None:
    history = model_in_flight()
    history.ask(s.Cancel)

    history.ask(o.Aborted, call_id="model-1", attempt=1)

    assert names(*history.events[-3:]) == "ModelCallFailed UsageRecorded ThreadEnded"
    assert payloads(history, e.ModelCallFailed) == [
        e.ModelCallFailed("model-1", 1, Fault(1, "the call was stopped"))
    ]
    assert history.state.cost == Cost(known=False)


def test_after_the_grace_everything_open_is_closed_in_the_append_of_the_end() -> None:
    history = cancelling()
    began = history.state.sequence

    history.due()

    assert names(*history.events[began:]) == (
        "ToolCallCompleted ToolCallCompleted ApprovalDecided ToolCallCompleted ToolCallCompleted "
        "ToolCallCompleted ThreadEnded"
    )
    late, not_run = "the thread ended before the result came", "not run: the thread ended"
    assert payloads(history, e.ToolCallCompleted) == [
        e.ToolCallCompleted("call-1-1", CallStatus.ABANDONED, late),
        e.ToolCallCompleted("call-1-2", CallStatus.UNKNOWN, f"{late}: whether it took effect is unknown"),
        *(e.ToolCallCompleted(f"call-1-{number}", CallStatus.CANCELLED, not_run) for number in (3, 4, 5)),
    ]


def test_a_model_call_that_is_open_at_the_end_is_closed_and_in_the_cost_as_unknown() -> None:
    history = model_in_flight().due()

    assert names(*history.events[-3:]) == "ModelCallFailed UsageRecorded ThreadEnded"
    assert payloads(history, e.ModelCallFailed) == [
        e.ModelCallFailed("model-1", 1, Fault(1, "the thread ended"))
    ]
    assert payloads(history, e.UsageRecorded) == [
        e.UsageRecorded("model-1", 1, "scripted:tests", Usage(), Cost(known=False), estimated=True)
    ]


def test_a_model_call_that_waits_to_retry_has_failed_once_and_not_twice() -> None:
    history = model_in_flight().model_fails()

    history.ask(s.Cancel)

    assert len(payloads(history, e.ModelCallFailed)) == 1
    assert (history.state.status, history.state.model_call) == (ThreadState.CANCELLED, None)


def test_a_tool_call_that_waits_to_retry_was_tried_and_is_abandoned() -> None:
    history = created().turn("", "look").begin().tool_fails("call-1-1")

    history.ask(s.Cancel)

    assert statuses(history) == {"call-1-1": CallStatus.ABANDONED}


@pytest.mark.parametrize("grace", [0, HOUR])
@pytest.mark.parametrize(("control", "fields"), [(s.Cancel, {}), (s.Complete, {"state": ThreadState.FAILED})])
def test_the_grace_is_the_callers(
    control: Callable[..., Ask], fields: dict[str, ThreadState], grace: int
) -> None:
    history = model_in_flight()

    history.ask(control, grace_micros=grace, **fields)

    assert wake_at(history.state) == history.now + grace


def test_the_grace_is_not_over_before_its_time() -> None:
    history = cancelling()

    assert history.at(history.now + 5 * SECOND - 1).ask(s.Due) == ()


@pytest.mark.parametrize("limits", [{"timeout_micros": 3 * SECOND}, {"max_lifetime_micros": 6 * SECOND}])
def test_no_deadline_overtakes_a_cancel_that_was_accepted(limits: dict[str, int]) -> None:
    history = created(limited(**limits)).begin()
    history.ask(s.Cancel)
    assert wake_at(history.state) == history.now + 5 * SECOND

    history.due()

    assert history.state.stop_reason is StopReason.CANCELLED_BY_CALLER


@pytest.mark.parametrize(
    "reason", [StopReason.INTERRUPTED, StopReason.PARENT_ENDED, StopReason.AGENT_DISABLED]
)
def test_a_cancel_says_on_whose_account_it_was(reason: StopReason) -> None:
    history = created()

    history.ask(s.Cancel, stop_reason=reason)

    assert (history.state.status, history.state.stop_reason) == (ThreadState.CANCELLED, reason)


def test_a_thread_that_the_caller_fails_has_the_callers_reason_as_its_error() -> None:
    history = created().turn("so far", "look").begin()
    history.ask(s.Complete, state=ThreadState.FAILED, reason="wrong customer")

    history.tool("call-1-1")

    assert history.state.error == Fault(10, "wrong customer")
    assert history.state.output == Content("so far")
    assert history.state.stop_reason is StopReason.COMPLETED_BY_CALLER


def test_a_thread_that_the_caller_fails_without_a_reason_still_has_an_error() -> None:
    history = created()

    history.ask(s.Complete, state=ThreadState.FAILED)

    assert history.state.error == Fault(10, "the caller ended the thread")


@pytest.mark.parametrize("state", [ThreadState.COMPLETED, ThreadState.CANCELLED])
def test_a_thread_that_the_caller_ends_otherwise_has_no_error(state: ThreadState) -> None:
    history = created()

    history.ask(s.Complete, state=state, reason="done elsewhere")

    assert history.state.error is None


@pytest.mark.parametrize("situation", SITUATIONS)
def test_an_end_closes_every_call_and_approval_once(situation: str) -> None:
    history = SITUATIONS[situation]()
    if not history.state.ended:
        history.at(history.now + 60 * DAY).ask(s.Due)

    requested = [payload.tool_call_id for payload in payloads(history, e.ToolCallRequested)]
    assert sorted(statuses(history)) == sorted(requested)
    assert len(payloads(history, e.ToolCallCompleted)) == len(requested)
    asked = [payload.approval_id for payload in payloads(history, e.ApprovalRequested)]
    assert [payload.approval_id for payload in payloads(history, e.ApprovalDecided)] == asked
    assert names(*history.events).count("ThreadEnded") == 1
    assert names(history.events[-1]) == "ThreadEnded"


def test_outcomes_that_come_after_the_end_are_refused() -> None:
    tools, model = tools_in_flight().due().due(), model_in_flight().due()

    refusals = [
        tools.refusal(
            o.ToolReturned, call_id="call-1-1", attempt=1, status=CallStatus.SUCCEEDED, observation="late"
        ),
        tools.refusal(o.Aborted, call_id="call-1-2", attempt=1),
        tools.refusal(o.Recovered, epoch=2),
        model.refusal(o.ModelReplied, call_id="model-1", attempt=1, text="late"),
    ]
    assert {refused.reason for refused in refusals} == {Reason.THREAD_STATE_CONFLICT}


@pytest.mark.parametrize("situation", ENDED)
def test_an_ended_thread_wants_nothing_and_is_never_due(situation: str) -> None:
    history = SITUATIONS[situation]()

    assert history.wanted == frozenset()
    assert wake_at(history.state) is None
    assert history.at(history.now + 1000 * DAY).ask(s.Due) == ()
    assert history.ask(s.Begin, commands=()) == ()


# When a thread wants to be looked at, in seconds from its creation, the first ask.
WAKES = {
    "pending": 30 * DAY,
    "model in flight": 3_600 * SECOND + SECOND,
    "pausing": 3_600 * SECOND + SECOND,
    "paused at first": 30 * DAY,
    "waits for approval": HOUR + 2 * SECOND - 300 * SECOND,
    "paused for approval": HOUR + 2 * SECOND - 300 * SECOND,
    "waits for an answer": 30 * DAY,
    "cancelling": 9 * SECOND,
}


@pytest.mark.parametrize("situation", WAKES)
def test_a_thread_names_the_earliest_time_at_which_something_is_due(situation: str) -> None:
    history = SITUATIONS[situation]()

    assert wake_at(history.state) == history.state.create_time + WAKES[situation]


def test_a_log_without_its_first_event_is_never_due() -> None:
    history = History()

    assert wake_at(history.state) is None
    assert history.ask(s.Due) == ()


@pytest.mark.parametrize("situation", ["pending", "model in flight", "waits for approval", "paused at first"])
def test_nothing_happens_to_a_thread_before_its_time(situation: str) -> None:
    history = SITUATIONS[situation]()
    time = wake_at(history.state)
    assert time is not None

    assert history.at(time - 1).ask(s.Due) == ()


def test_a_thread_that_rests_in_the_instant_of_its_beginning_did_not_run() -> None:
    history = created()
    history.at(history.now).begin()
    history.at(history.now).crash()
    history.at(history.now).ask(s.Pause)

    assert history.state.running_micros == 0


def test_only_time_spent_running_counts_against_the_timeout() -> None:
    history = created(limited(timeout_micros=HOUR)).turn("", "ask")
    history.at(history.now + 5 * HOUR).answer("call-1-1")
    began = history.now

    assert wake_at(history.state) == began + HOUR - SECOND
    history.begin().due()
    assert history.state.running_micros == HOUR
    assert history.state.end_time == began + HOUR - SECOND


def test_a_pause_stops_the_clock_of_the_timeout_and_not_that_of_the_lifetime() -> None:
    history = created(limited(timeout_micros=HOUR, max_lifetime_micros=3 * HOUR)).begin().crash()
    history.ask(s.Pause)
    assert wake_at(history.state) == history.state.create_time + 3 * HOUR

    history.due()

    assert history.state.error == Fault(4, "limits.max_lifetime is over")
    assert history.state.running_micros == 2 * SECOND
