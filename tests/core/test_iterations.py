"""The complete record of a thread's turns, folded from its log."""

from dataclasses import replace

from tests.core.histories import (
    COST,
    HOUR,
    SECOND,
    T0,
    USAGE,
    created,
    model_in_flight,
    proposed,
    tools_in_flight,
)
from treadle_server.core import signals as s
from treadle_server.core.events import Event, ExecutionRecovered, StateChanged, ToolCallCompleted, Unknown
from treadle_server.core.iterations import Action, Iteration, iterations
from treadle_server.core.kinds import CallStatus, ThreadState
from treadle_server.core.values import Cost, Usage


def at(seconds: int) -> int:
    """A time by its distance from the first ask but one; asks come a second apart."""
    return T0 + seconds * SECOND


def test_a_thread_that_did_not_begin_has_no_iteration() -> None:
    assert iterations(created().events) == ()


def test_an_iteration_is_thought_action_and_observation() -> None:
    history = created().turn("let me look", "look", thought="where?").begin()
    history.tool("call-1-1", "a cat", duration_micros=9).turn("a cat", thought="clear")

    assert iterations(history.events) == (
        Iteration(
            number=1,
            start_time_micros=at(2),
            end_time_micros=at(5),
            thought="where?",
            text="let me look",
            actions=(Action("call-1-1", "look", '{"n":1}', "a cat", CallStatus.SUCCEEDED, 9),),
            usage=USAGE,
            cost=COST,
        ),
        Iteration(2, at(6), at(7), "clear", "a cat", (), USAGE, COST),
    )


def test_actions_stand_in_the_order_of_the_turn_whatever_finished_first() -> None:
    history = created().turn("", "look", "send", "save").begin().tool("call-1-3").tool("call-1-1")

    (iteration,) = iterations(history.events)
    assert [(action.tool_call_id, action.status.name) for action in iteration.actions] == [
        ("call-1-1", "SUCCEEDED"),
        ("call-1-2", "UNSPECIFIED"),
        ("call-1-3", "SUCCEEDED"),
    ]


def test_an_iteration_goes_on_while_one_of_its_calls_is_open() -> None:
    history = tools_in_flight().tool("call-1-1").tool("call-1-2")

    assert iterations(history.events)[0].end_time_micros == 0


def test_an_iteration_ends_with_its_last_call_and_not_with_the_next_one() -> None:
    history = created().turn("", "look").begin()
    history.ask(s.Pause)
    history.tool("call-1-1")
    ended = history.now
    assert iterations(history.events)[0].end_time_micros == ended

    history.at(history.now + HOUR).ask(s.Resume)
    history.begin()

    first, second = iterations(history.events)
    assert (first.end_time_micros, second.start_time_micros) == (ended, history.now)
    assert second.end_time_micros == 0


def test_a_turn_that_cannot_run_ends_when_it_came() -> None:
    history = model_in_flight().reply("", "loook")

    (iteration,) = iterations(history.events)
    assert iteration.end_time_micros == history.now
    assert iteration.actions[0].status is CallStatus.INVALID


def test_every_attempt_at_the_model_call_counts() -> None:
    history = model_in_flight().crash().begin().reply("42")

    (iteration,) = iterations(history.events)
    assert (iteration.usage, iteration.cost) == (USAGE, Cost(100, known=False))


def test_an_iteration_that_never_got_its_turn_ends_with_the_thread() -> None:
    history = model_in_flight().due()

    assert iterations(history.events) == (
        Iteration(1, at(2), history.now, usage=Usage(), cost=Cost(known=False)),
    )


def test_calls_that_the_end_closed_are_shown_as_they_were_closed() -> None:
    (iteration,) = iterations(tools_in_flight().due().due().events)

    assert [action.status.name for action in iteration.actions] == [
        "ABANDONED",
        "UNKNOWN",
        "CANCELLED",
        "CANCELLED",
        "CANCELLED",
    ]


def test_the_record_adds_up_to_the_state() -> None:
    history = model_in_flight().reply("", calls=proposed("look", "loook")).begin().tool("call-1-1")
    history.turn("", "send").begin().crash().turn("42")

    record = iterations(history.events)
    assert len(record) == history.state.iteration
    assert sum(len(iteration.actions) for iteration in record) == history.state.tool_call_count
    assert sum(iteration.cost.cost_micros for iteration in record) == history.state.cost.cost_micros


def test_an_iteration_whose_end_a_newer_release_wrote_ends_where_the_next_one_begins() -> None:
    history = created().turn("", "look").begin().tool("call-1-1").begin()
    events = [
        replace(event, payload=Unknown(99)) if isinstance(event.payload, ToolCallCompleted) else event
        for event in history.events
    ]

    first, second = iterations(events)
    assert first.end_time_micros == second.start_time_micros == history.now


def test_events_before_the_first_iteration_belong_to_none() -> None:
    events = [
        Event(3, at(2), 0, StateChanged(ThreadState.PENDING, ThreadState.RUNNING)),
        Event(4, at(2), 0, ExecutionRecovered(2)),
    ]

    assert iterations([*created().events, *events]) == ()
