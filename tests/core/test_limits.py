"""Why threads fail: limits, faults and refusals, each with what is kept."""

from dataclasses import replace

import pytest

from tests.core.histories import (
    HOUR,
    SECOND,
    History,
    created,
    limited,
    model_in_flight,
    names,
    payloads,
    proposed,
)
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core.commands import CallModel, CallTool
from treadle_server.core.decide import due
from treadle_server.core.kinds import CallStatus, Effect, ThreadState
from treadle_server.core.policy import backoff
from treadle_server.core.values import Content, Fault, Usage


def end(history: History) -> tuple[str, str, int | None]:
    """State, stop reason and error code of the end."""
    payload = history.events[-1].payload
    assert isinstance(payload, e.ThreadEnded)
    return payload.state.name, payload.stop_reason.name, payload.error.code if payload.error else None


def test_the_last_iteration_allowed_may_run_its_tools_but_no_other_follows() -> None:
    history = created(limited(max_iterations=2)).turn("one", "look").begin().tool("call-1-1")
    history.turn("two", "look").begin()

    history.tool("call-2-1")

    assert end(history) == ("FAILED", "MAX_ITERATIONS", 8)
    assert history.state.error == Fault(8, "limits.max_iterations of 2 is reached")
    assert history.state.output == Content("two")


def test_an_answer_in_the_last_iteration_allowed_is_an_answer() -> None:
    assert end(created(limited(max_iterations=1)).turn("42")) == ("COMPLETED", "FINISHED", None)


def test_steering_in_the_last_iteration_allowed_leaves_no_room_for_another() -> None:
    history = created(limited(max_iterations=1)).begin().steer().reply("42")

    assert end(history) == ("FAILED", "MAX_ITERATIONS", 8)
    assert history.state.output == Content("42")


@pytest.mark.parametrize("calls", [2, 3])
def test_a_turn_with_more_tool_calls_than_are_left_runs_none_of_them(calls: int) -> None:
    history = created(limited(max_tool_calls=3)).turn("", "look", "look").begin()
    history.tool("call-1-1").tool("call-1-2")

    history.turn("more", *["look"] * calls)

    assert end(history) == ("FAILED", "MAX_TOOL_CALLS", 8)
    assert history.state.error == Fault(8, "limits.max_tool_calls of 3 is reached")
    assert history.state.tool_call_count == 2
    assert history.state.output == Content("more")


def test_exactly_as_many_tool_calls_as_allowed_run() -> None:
    history = created(limited(max_tool_calls=2)).turn("", "look", "look").begin()

    assert history.tool("call-1-1").tool("call-1-2").turn("42").state.status is ThreadState.COMPLETED


def test_input_tokens_are_limited_over_all_model_calls() -> None:
    history = created(limited(max_input_tokens=20)).turn("", "look").begin().tool("call-1-1")
    assert not history.state.ended

    history.turn("", "look").begin().tool("call-2-1")

    assert end(history) == ("FAILED", "MAX_TOKENS", 8)
    assert history.state.error == Fault(8, "limits.max_input_tokens of 20 is reached")


def test_an_answer_over_the_token_limit_is_an_answer() -> None:
    history = created(limited(max_input_tokens=5)).turn("42")

    assert end(history) == ("COMPLETED", "FINISHED", None)


def test_a_model_call_is_tried_five_times_with_growing_delays() -> None:
    history, delays = created(), []
    for attempt in range(1, 6):
        assert history.wanted == {
            CallModel("model-1", attempt, begun=False, not_before=history.now if attempt > 1 else 0)
        }
        history.begin().model_fails(jitter=0.0)
        failed = payloads(history, e.ModelCallFailed)[-1]
        assert (failed.attempt, failed.error) == (attempt, Fault(14, "overloaded"))
        delays.append(failed.retry_delay_micros)
        history.at(history.now + failed.retry_delay_micros + SECOND)

    assert delays == [SECOND // 4, SECOND // 2, SECOND, 2 * SECOND, 0]
    assert end(history) == ("FAILED", "MODEL_ERROR", 14)
    assert [payload.will_retry for payload in payloads(history, e.ModelCallFailed)] == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("attempt", "jitter", "retry_after", "delay"),
    [
        (1, 0.0, None, 0.25),
        (1, 1.0, None, 0.5),
        (2, 0.5, None, 0.75),
        (7, 1.0, None, 30),
        (1000, 0.0, None, 15),
        (1, 1.0, 10, 10),
        (6, 1.0, 10, 16),
        (1, 0.0, 600, 120),
    ],
)
def test_a_delay_is_half_random_bounded_and_no_less_than_was_asked_for(
    attempt: int, jitter: float, retry_after: int | None, delay: float
) -> None:
    asked = None if retry_after is None else retry_after * SECOND

    waited = backoff(attempt, jitter, asked)

    assert (type(waited), waited) == (int, int(delay * SECOND))


def test_an_attempt_that_waits_does_not_begin_before_its_time() -> None:
    history = model_in_flight()

    draft = history.drafted(
        o.ModelFailed, call_id="model-1", attempt=1, code=14, message="overloaded", retryable=True
    )

    assert names(*draft.events) == "ModelCallFailed"
    time = history.now + SECOND // 4
    assert history.wanted == {CallModel("model-1", 2, begun=False, not_before=time)}
    assert due(history.state, time - 1) == []
    assert due(history.state, time) == [*history.wanted]


def test_a_model_call_is_tried_again_no_sooner_than_the_provider_asks() -> None:
    history = model_in_flight().model_fails(retry_after_micros=10 * SECOND)

    assert history.wanted == {CallModel("model-1", 2, begun=False, not_before=history.now + 10 * SECOND)}


def test_a_fault_that_no_retry_cures_fails_at_once() -> None:
    history = model_in_flight().model_fails(retryable=False, code=3, message="no such model")

    assert end(history) == ("FAILED", "MODEL_ERROR", 3)
    assert history.state.error == Fault(3, "no such model")


def test_a_refusal_of_the_model_fails_and_keeps_its_words_and_cost() -> None:
    history = model_in_flight().reply("I am sorry", "look", refusal="against the rules")

    assert end(history) == ("FAILED", "MODEL_REFUSAL", 9)
    assert history.state.error == Fault(9, "against the rules")
    assert history.state.output == Content("I am sorry")
    assert history.state.cost.cost_micros == 100
    assert payloads(history, e.ToolCallRequested) == []


@pytest.mark.parametrize(
    ("turn", "problem"),
    [
        ({"text": "{}", "problem": "no field a"}, "no field a"),
        ({"text": " \n"}, "the turn was empty: answer, or call a tool"),
        ({"calls": proposed(*["look"] * 33)}, "33 tool calls in one turn; at most 32 are taken"),
    ],
)
def test_three_turns_in_a_row_that_cannot_be_taken_fail(turn: dict[str, object], problem: str) -> None:
    history = created(limited(max_tool_calls=1000))
    for number in (1, 2, 3):
        assert history.startable == [f"model-{number}"]
        history.begin().reply(**turn)  # type: ignore[arg-type]

    assert payloads(history, e.OutputRejected) == [
        e.OutputRejected(f"model-{number}", problem) for number in (1, 2, 3)
    ]
    assert end(history) == ("FAILED", "INVALID_OUTPUT", 9)
    assert history.state.error == Fault(9, f"3 turns in a row could not be taken: {problem}")


def test_three_turns_in_a_row_with_calls_that_cannot_be_run_fail() -> None:
    history = created().turn("", "loook").turn("", "loook").turn("", "loook", "loook")

    assert history.state.error == Fault(9, "none of the tool calls of 3 turns in a row could be run")


def test_a_turn_with_as_many_calls_as_are_taken_is_taken() -> None:
    assert len(created().turn("", *["look"] * 32).startable) == 32


def rejected(history: History) -> History:
    return history.turn("{}", problem="no field a")


def invalid(history: History) -> History:
    return history.turn("", "loook")


def taken_with_tools(history: History) -> History:
    iteration = history.state.iteration + 1
    return history.turn("", "look", "loook").begin().tool(f"call-{iteration}-1")


def taken_but_steered(history: History) -> History:
    return history.begin().steer().reply("42")


@pytest.mark.parametrize(
    ("turns", "stop_reason"),
    [
        ([invalid] * 3, "REPEATED_FAILURE"),
        ([rejected, rejected, invalid], "REPEATED_FAILURE"),
        ([invalid, invalid, rejected], "INVALID_OUTPUT"),
        ([invalid, invalid, taken_with_tools, invalid, invalid], ""),
        ([rejected, rejected, taken_with_tools, rejected, rejected], ""),
        ([rejected, rejected, taken_but_steered, rejected, rejected], ""),
        ([invalid, taken_but_steered, invalid, invalid, rejected], "INVALID_OUTPUT"),
    ],
)
def test_only_turns_in_a_row_count(turns: list[object], stop_reason: str) -> None:
    history = created()
    for turn in turns:
        assert not history.state.ended
        assert callable(turn)
        turn(history)

    assert history.state.ended is bool(stop_reason)
    assert history.state.stop_reason.name == (stop_reason or "UNSPECIFIED")


@pytest.mark.parametrize(("name", "attempts"), [("look", 3), ("save", 2), ("send", 1)])
def test_a_tool_is_tried_as_often_as_it_allows_and_at_most_once_only_once(name: str, attempts: int) -> None:
    history = created().turn("", name)
    effect = history.state.calls["call-1-1"].effect
    for attempt in range(1, attempts + 1):
        command = history.tool_command("call-1-1")
        assert command == CallTool(
            "call-1-1", name, '{"n":1}', effect, attempt, begun=False, not_before=command.not_before
        )
        history.at(command.not_before or history.now).begin()
        assert history.wanted == {replace(command, begun=True, not_before=0)}
        history.tool_fails("call-1-1")

    assert history.events[-1].payload == e.ToolCallCompleted("call-1-1", CallStatus.FAILED, "no line")
    assert len(payloads(history, e.ToolAttemptFailed)) == attempts - 1
    assert len(payloads(history, e.ToolCallStarted)) == attempts
    assert history.startable == ["model-2"]


def test_a_tool_waits_for_its_next_attempt_while_the_others_run() -> None:
    history = created().turn("", "look", "send").begin().tool_fails("call-1-1")

    failed = payloads(history, e.ToolAttemptFailed)[0]
    assert failed == e.ToolAttemptFailed("call-1-1", 1, Fault(2, "no line"), SECOND // 4)
    assert history.tool_command("call-1-1").not_before == history.now + SECOND // 4
    assert history.in_flight == ["call-1-2"]
    assert history.state.status is ThreadState.RUNNING


def test_a_tool_failure_that_no_retry_cures_is_told_to_the_model_at_once() -> None:
    history = created().turn("", "look").begin()

    history.ask(
        o.ToolFailed,
        call_id="call-1-1",
        attempt=1,
        status=CallStatus.TIMED_OUT,
        message="no answer in 60 s",
        retryable=False,
        duration_micros=60 * SECOND,
    )

    assert payloads(history, e.ToolCallCompleted) == [
        e.ToolCallCompleted("call-1-1", CallStatus.TIMED_OUT, "no answer in 60 s", 60 * SECOND)
    ]
    assert history.startable == ["model-2"]


def test_a_tool_that_answers_that_it_could_not_is_not_tried_again() -> None:
    history = created().turn("", "look").begin().tool("call-1-1", "no cat", status=CallStatus.FAILED)

    assert history.startable == ["model-2"]


def test_an_effect_is_that_of_the_pinned_tool_and_the_strictest_for_an_unknown_one() -> None:
    history = created().turn("", "look", "save", "send", "loook")

    effects = [call.effect for call in payloads(history, e.ToolCallRequested)]
    assert effects == [Effect.READ_ONLY, Effect.IDEMPOTENT, Effect.AT_MOST_ONCE, Effect.AT_MOST_ONCE]


@pytest.mark.parametrize(
    ("limits", "seconds", "what"),
    [
        ({"timeout_micros": HOUR}, 3_600, "limits.timeout is over"),
        ({"max_lifetime_micros": HOUR}, 3_599, "limits.max_lifetime is over"),
    ],
)
def test_a_thread_ends_when_its_time_is_over(limits: dict[str, int], seconds: int, what: str) -> None:
    history = created(limited(**limits)).turn("so far", "look").begin()
    began = history.state.start_time

    history.due()

    assert end(history) == ("TIMED_OUT", "DEADLINE", 4)
    assert history.state.end_time == began + seconds * SECOND
    assert history.state.error == Fault(4, what)
    assert history.state.output == Content("so far")


def test_the_answer_of_a_finishing_tool_is_kept_when_time_is_over_before_the_other_calls() -> None:
    history = created().turn("so far", "finish", "look").begin().tool("call-1-1", "42").due()

    assert end(history) == ("TIMED_OUT", "DEADLINE", 4)
    assert history.state.output == Content("42")


def test_a_thread_without_a_word_ends_without_output() -> None:
    assert model_in_flight().due().state.output is None


def test_a_model_that_says_nothing_of_its_usage_is_booked_as_unknown() -> None:
    history = model_in_flight().reply("42", usage=None, cost=None)

    assert payloads(history, e.UsageRecorded) == [
        e.UsageRecorded("model-1", 1, "scripted:tests", Usage(), history.state.cost, estimated=True)
    ]
    assert not history.state.cost.known
