"""The conversation as a model is to see it."""

from tests.core.histories import (
    History,
    created,
    model_in_flight,
    proposed,
    spec,
    tools_in_flight,
)
from treadle_server.core.events import Event, InputReceived, ToolCallCompleted, Unknown
from treadle_server.core.kinds import CallStatus
from treadle_server.core.transcript import (
    CallEntry,
    Entry,
    ModelEntry,
    ProblemEntry,
    ToolEntry,
    TranscriptFold,
    UserEntry,
)
from treadle_server.core.values import Content, ProposedCall, ProviderContent


def entries(events: list[Event]) -> list[Entry]:
    fold = TranscriptFold()
    for event in events:
        fold.apply(event)
    return fold.transcript.entries


def user(text: str) -> UserEntry:
    return UserEntry(Content(text))


def test_it_is_empty_until_an_iteration_begins() -> None:
    assert entries(created().events) == []
    assert entries(model_in_flight().events) == [user("hello")]


def test_a_turn_enters_it_when_the_next_iteration_begins() -> None:
    history = created().turn("let me look", "look", thought="where?").begin()
    assert entries(history.events) == [user("hello")]

    history.tool("call-1-1", "a cat").begin()

    assert entries(history.events) == [
        user("hello"),
        ModelEntry("let me look", "where?", (CallEntry("call-1-1", "look", '{"n":1}'),)),
        ToolEntry("call-1-1", "look", CallStatus.SUCCEEDED, "a cat"),
    ]


def test_results_stand_in_the_order_of_the_calls_whatever_finished_first() -> None:
    history = created().turn("", "look", "pay", "ask", "open_file").begin()
    history.submit("call-1-4", "text").answer("call-1-3", "blue").reject("call-1-2").tool("call-1-1", "a cat")

    results = [entry for entry in entries(history.begin().events) if isinstance(entry, ToolEntry)]

    assert [(result.tool_call_id, result.status.name, result.observation) for result in results] == [
        ("call-1-1", "SUCCEEDED", "a cat"),
        ("call-1-2", "REJECTED", "A person rejected this call."),
        ("call-1-3", "SUCCEEDED", "blue"),
        ("call-1-4", "SUCCEEDED", "text"),
    ]


def test_an_answer_to_a_question_is_its_result_and_no_input() -> None:
    history = created().turn("", "ask").answer("call-1-1", "blue").begin()

    assert [entry for entry in entries(history.events) if isinstance(entry, UserEntry)] == [user("hello")]


def test_steering_stands_after_the_turn_that_it_came_in() -> None:
    history = created().turn("", "look").begin().steer("shorter").tool("call-1-1").begin()

    kinds = [type(entry).__name__ for entry in entries(history.events)]
    assert kinds == ["UserEntry", "ModelEntry", "ToolEntry", "UserEntry"]
    assert entries(history.events)[-1] == user("shorter")


def test_why_a_turn_was_not_taken_stands_after_it() -> None:
    history = model_in_flight().reply("{}", problem="no field a").begin()

    assert entries(history.events)[1:] == [ModelEntry("{}", "", ()), ProblemEntry("no field a")]


def test_a_problem_and_a_thought_belong_to_one_turn() -> None:
    history = model_in_flight().reply("{}", problem="no field a", thought="a?").turn("", "look").begin()
    history.tool("call-2-1").begin()

    assert [entry.thought for entry in entries(history.events) if isinstance(entry, ModelEntry)] == ["a?", ""]

    assert [type(entry).__name__ for entry in entries(history.events)] == [
        "UserEntry",
        "ModelEntry",
        "ProblemEntry",
        "ModelEntry",
        "ToolEntry",
    ]


def test_a_call_that_could_not_run_is_answered_like_any_other() -> None:
    history = model_in_flight().reply("", "loook").begin()

    assert entries(history.events)[-1] == ToolEntry(
        "call-1-1", "loook", CallStatus.INVALID, "there is no tool loook"
    )


def test_what_the_provider_said_is_handed_back_word_for_word() -> None:
    content = ProviderContent("google", "gemini", '{"parts":[]}')
    calls = (ProposedCall("look", "{}", provider_call_id="fc-7"),)
    history = model_in_flight().reply("", calls=calls, provider_content=content).begin()

    history.tool("call-1-1").begin()

    assert entries(history.events)[1:] == [
        ModelEntry("", "", (CallEntry("call-1-1", "look", "{}", "fc-7"),), content),
        ToolEntry("call-1-1", "look", CallStatus.SUCCEEDED, "done", "fc-7"),
    ]


def test_an_attempt_without_a_turn_leaves_no_trace() -> None:
    history = model_in_flight().model_fails().begin().crash().begin()

    assert entries(history.events) == [user("hello")]


def test_an_unknown_outcome_is_told() -> None:
    history = created().turn("", "send").begin().crash().begin()

    entry = entries(history.events)[-1]
    assert isinstance(entry, ToolEntry)
    assert entry.status is CallStatus.UNKNOWN


def test_entries_are_only_ever_added() -> None:
    fold, history = TranscriptFold(), long_history()
    seen: list[Entry] = []
    for event in history.events:
        fold.apply(event)
        assert fold.transcript.entries[: len(seen)] == seen
        seen = [*fold.transcript.entries]


def test_a_log_with_events_of_a_newer_release_can_still_be_read() -> None:
    history = long_history()
    hidden = {InputReceived, ToolCallCompleted}
    events = [
        Event(event.sequence, event.time_micros, event.iteration, Unknown(99))
        if type(event.payload) in hidden
        else event
        for event in history.events
    ]

    assert [type(entry).__name__ for entry in entries(events)] == ["ModelEntry", "ModelEntry"]


def long_history() -> History:
    history = created(spec()).turn("", calls=proposed("look", "send")).begin().steer().tool("call-1-2")
    return history.tool("call-1-1").turn("", "look").begin().tool("call-2-1").turn("42")


def test_what_is_open_when_a_thread_ends_stays_out() -> None:
    assert entries(tools_in_flight().due().events) == [user("hello")]
