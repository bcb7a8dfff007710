"""The loop: iterations, tool calls, steering and the answer."""

import pytest

from tests.core.histories import (
    COST,
    MODEL,
    REFERENCE,
    SECOND,
    USAGE,
    History,
    between_steps,
    created,
    model_in_flight,
    names,
    payloads,
    proposed,
    spec,
    tools_in_flight,
)
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.accept import accept
from treadle_server.core.commands import CallModel, CallTool
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.evolve import fold
from treadle_server.core.kinds import CallStatus, Effect, StopReason, ThreadState, TriggerType, Verdict
from treadle_server.core.values import Content, Cost, ProposedCall, Usage


def test_a_thread_is_created_with_all_that_its_creator_said() -> None:
    subject, trigger = e.Subject("user", "42"), e.Trigger(TriggerType.EVENT, "users/ann")
    text = Content("hi")
    history = History()

    history.ask(
        s.Create,
        spec=REFERENCE,
        input=text,
        principal="users/ann",
        session="sessions/s",
        parent_object="objects/o",
        parent_thread="threads/p",
        subject=subject,
        trigger=trigger,
    )

    origin = e.ThreadCreated(
        spec=REFERENCE,
        session="sessions/s",
        parent_object="objects/o",
        parent_thread="threads/p",
        subject=subject,
        trigger=trigger,
        principal="users/ann",
    )
    assert [event.payload for event in history.events] == [
        origin,
        e.InputReceived(text, principal="users/ann"),
    ]
    assert (history.state.origin, history.state.first_input) == (origin, text)
    assert history.steer().state.first_input == text


def test_a_thread_whose_log_a_newer_release_wrote_is_refused() -> None:
    history = created()
    history.state = fold(history.state, [e.Event(3, history.now, 0, e.Unknown(99))])

    refused = history.refusal(s.Cancel)

    assert refused.reason is Reason.RECORD_CORRUPT
    assert refused.message == "the thread's log was written by a newer release"


def test_a_new_thread_wants_its_first_model_call() -> None:
    assert created().wanted == {CallModel("model-1", 1, begun=False)}


def test_a_thread_runs_from_its_first_intent_on() -> None:
    history = created()

    made = history.ask(s.Begin, commands=(CallModel("model-1", 1, begun=False),))

    assert names(*made) == "StateChanged IterationStarted ModelCallStarted"
    assert made[0].payload == e.StateChanged(ThreadState.PENDING, ThreadState.RUNNING, StopReason.UNSPECIFIED)
    assert history.state.state_time == history.now
    assert history.wanted == {CallModel("model-1", 1, begun=True)}
    assert history.state.start_time == history.now


def test_beginning_nothing_begins_nothing() -> None:
    assert created().ask(s.Begin, commands=()) == ()


def test_events_name_the_model_as_the_thread_was_created_with_it() -> None:
    history = created(spec(model="scripted:" + "x" * 1000)).turn("42")

    assert payloads(history, e.ModelCallStarted)[0].model == MODEL
    assert payloads(history, e.UsageRecorded)[0].model == MODEL


def test_a_final_message_ends_the_thread_with_its_text() -> None:
    history = model_in_flight().reply("42")

    assert names(*history.events[-3:]) == "MessageCompleted UsageRecorded ThreadEnded"
    ended = history.events[-1].payload
    assert ended == e.ThreadEnded(
        ThreadState.COMPLETED, StopReason.FINISHED, Content("42"), usage=USAGE, cost=COST
    )
    assert payloads(history, e.MessageCompleted) == [
        e.MessageCompleted("message-1", "model-1", "42", final=True, truncated=False)
    ]
    assert history.wanted == frozenset()


def test_an_answer_that_was_cut_short_is_an_answer_that_says_so() -> None:
    history = model_in_flight().reply("forty", truncated=True)

    assert payloads(history, e.MessageCompleted) == [
        e.MessageCompleted("message-1", "model-1", "forty", final=True, truncated=True)
    ]


def test_a_tool_call_is_requested_begun_and_observed_before_the_next_model_call() -> None:
    history = created().turn("let me look", "look", thought="where?")
    assert payloads(history, e.ThoughtRecorded) == [e.ThoughtRecorded("model-1", "where?")]
    command = CallTool("call-1-1", "look", '{"n":1}', Effect.READ_ONLY, 1, begun=False)
    assert history.wanted == {command}
    assert not payloads(history, e.MessageCompleted)[0].final

    history.begin().tool("call-1-1", "a cat", duration_micros=7)

    assert history.events[-1].payload == e.ToolCallCompleted("call-1-1", CallStatus.SUCCEEDED, "a cat", 7)
    assert history.wanted == {CallModel("model-2", 1, begun=False)}


def test_an_outcome_and_what_can_begin_after_it_are_one_append() -> None:
    history = model_in_flight()

    draft = history.drafted(
        o.ModelReplied, call_id="model-1", attempt=1, calls=proposed("look", "pay", "send"), cost=COST
    )

    assert names(*draft.events) == (
        "MessageCompleted UsageRecorded ToolCallRequested ToolCallRequested ApprovalRequested "
        "ToolCallRequested ToolCallStarted ToolCallStarted"
    )
    assert history.in_flight == ["call-1-1", "call-1-3"]


def test_the_last_result_and_the_next_iteration_are_one_append() -> None:
    history = created().turn("", "look").begin()

    draft = history.drafted(
        o.ToolReturned, call_id="call-1-1", attempt=1, status=CallStatus.SUCCEEDED, observation="a cat"
    )

    assert names(*draft.events) == "ToolCallCompleted IterationStarted ModelCallStarted"
    assert [event.iteration for event in draft.events] == [1, 2, 2]


def test_ten_calls_and_more_begin_in_the_order_of_the_turn() -> None:
    history = model_in_flight()

    draft = history.drafted(o.ModelReplied, call_id="model-1", attempt=1, calls=proposed(*["look"] * 12))

    started = [
        event.payload.tool_call_id for event in draft.events if isinstance(event.payload, e.ToolCallStarted)
    ]
    assert started == [f"call-1-{number}" for number in range(1, 13)]


def test_nothing_begins_that_is_not_wanted() -> None:
    history = created().turn("", "look", "pay")
    look = history.tool_command("call-1-1")

    for commands in (
        (CallModel("model-2", 1, begun=False),),
        (CallTool("call-1-2", "pay", '{"n":2}', Effect.AT_MOST_ONCE, 1, begun=False),),
        (look, CallTool("call-1-1", "look", '{"n":2}', Effect.READ_ONLY, 1, begun=False)),
    ):
        assert history.refusal(s.Begin, commands=commands).reason is Reason.THREAD_STATE_CONFLICT


def test_what_was_begun_does_not_begin_again() -> None:
    history = tools_in_flight()

    refused = history.refusal(s.Begin, commands=(history.tool_command("call-1-1"),))

    assert refused.reason is Reason.THREAD_STATE_CONFLICT


def test_results_come_in_any_order_and_the_iteration_ends_with_the_last() -> None:
    history = created().turn("", "look", "save", "send").begin()

    history.tool("call-1-3").tool("call-1-1")
    assert history.in_flight == ["call-1-2"]
    history.tool("call-1-2")

    completed = [payload.tool_call_id for payload in payloads(history, e.ToolCallCompleted)]
    assert completed == ["call-1-3", "call-1-1", "call-1-2"]
    assert history.startable == ["model-2"]


@pytest.mark.parametrize(
    ("call", "observation"),
    [
        (ProposedCall("look", "{", "not JSON: line 1"), "not JSON: line 1"),
        (ProposedCall("loook", "{}"), "there is no tool loook"),
        (ProposedCall("loook", "{}", "did you mean look?"), "did you mean look?"),
    ],
)
def test_a_call_that_cannot_run_is_told_to_the_model_and_never_begun(
    call: ProposedCall, observation: str
) -> None:
    history = model_in_flight().reply("", calls=(call,))

    (requested,) = payloads(history, e.ToolCallRequested)
    (completed,) = payloads(history, e.ToolCallCompleted)
    assert requested.verdict is Verdict.INVALID
    assert completed == e.ToolCallCompleted("call-1-1", CallStatus.INVALID, observation)
    assert history.startable == ["model-2"]
    assert history.state.tools_used == ()


def test_the_calls_that_can_run_do_so_beside_one_that_cannot() -> None:
    history = model_in_flight().reply("", "look", "loook", "send")

    assert history.startable == ["call-1-1", "call-1-3"]
    assert history.state.tool_call_count == 3


def test_the_first_iteration_consumes_every_input_so_far() -> None:
    history = created()
    history.ask(s.SendInput, content=Content("and"), principal="users/bob")
    assert payloads(history, e.InputReceived) == [
        e.InputReceived(Content("hello"), principal="users/ann"),
        e.InputReceived(Content("and"), principal="users/bob"),
    ]

    history.begin()

    assert payloads(history, e.IterationStarted) == [e.IterationStarted(1, (2, 3))]
    assert history.state.inputs == ()


def test_steering_is_consumed_by_the_next_iteration_and_once() -> None:
    history = created().turn("", "look").begin().steer().tool("call-1-1").turn("", "look").begin()

    history.tool("call-2-1").begin()

    steered = next(event.sequence for event in history.events[2:] if names(event) == "InputReceived")
    consumed = [payload.consumed_inputs for payload in payloads(history, e.IterationStarted)]
    assert consumed == [(2,), (steered,), ()]


def test_a_message_is_not_final_while_an_input_is_unconsumed() -> None:
    history = model_in_flight().steer().reply("the answer")

    assert not payloads(history, e.MessageCompleted)[0].final
    assert history.startable == ["model-2"]
    assert history.turn("the better answer").state.output == Content("the better answer")


def test_a_retried_attempt_does_not_see_what_came_after_the_iteration_began() -> None:
    history = model_in_flight().steer().crash().begin().reply("the answer")

    assert len(payloads(history, e.IterationStarted)) == 1
    assert history.startable == ["model-2"]


def test_inputs_that_wait_are_limited() -> None:
    history = created()
    while len(history.state.inputs) < 100:
        history.steer()

    refused = history.refusal(s.SendInput, content=Content("one too many"))

    assert refused.reason is Reason.CONCURRENCY_LIMITED
    assert refused.message == "100 inputs wait to be taken already"
    assert refused.metadata == {"limit": "100"}


def test_a_finishing_tool_gives_the_answer() -> None:
    history = created().turn("thinking", "finish").begin().tool("call-1-1", "42")

    assert (history.state.status, history.state.stop_reason) == (ThreadState.COMPLETED, StopReason.FINISHED)
    assert history.state.output == Content("42")


def test_a_finishing_tool_that_fails_finishes_nothing() -> None:
    history = created().turn("", "finish").begin().tool("call-1-1", "bad", status=CallStatus.FAILED)

    assert history.startable == ["model-2"]


def test_the_other_calls_of_the_turn_come_to_their_end_before_the_thread_finishes() -> None:
    history = created().turn("", "finish", "look").begin().tool("call-1-1", "42")
    assert history.in_flight == ["call-1-2"]

    history.tool("call-1-2")

    assert history.state.output == Content("42")


def test_an_answer_does_not_outlive_its_iteration() -> None:
    history = created().turn("", "finish", "look").begin().tool("call-1-1", "42").steer().tool("call-1-2")
    assert history.state.status is ThreadState.RUNNING

    history.begin()
    assert history.state.answer is None
    history.reply("", "look").begin().tool("call-2-1")

    assert history.startable == ["model-3"]


@pytest.mark.parametrize(
    ("text", "data_json"),
    [
        ('{"b": 1, "a": "ü"}', '{"a":"ü","b":1}'),
        ("[1, 2.5, 9007199254740993]", "[1,2.5,9007199254740993]"),
        ("no JSON", ""),
        ("NaN", ""),
        ("[1e999]", ""),
        (r'"\ud800"', ""),
        ("[" * 100_000, ""),
    ],
)
def test_structured_output_stands_beside_the_text_as_canonical_json(text: str, data_json: str) -> None:
    its_spec = spec(output_schema_json="{}")

    assert created(its_spec).turn(text).state.output == Content(text, data_json)
    finished = created(its_spec).turn("", "finish").begin().tool("call-1-1", text)
    assert finished.state.output == Content(text, data_json)


def test_text_is_not_parsed_where_no_structure_was_asked_for() -> None:
    assert created().turn("{}").state.output == Content("{}")


def test_usage_and_cost_are_the_sum_of_all_calls() -> None:
    history = created().turn("", "look").begin().tool("call-1-1").turn("42")

    assert history.state.usage == Usage(20, 4, 10, 2, 30)
    assert history.state.cost == Cost(200)


def test_a_cost_that_is_not_known_makes_the_sum_unknown_and_keeps_the_known_part() -> None:
    history = created().turn("", "look").begin().tool("call-1-1").begin().reply("42", usage=None, cost=None)

    assert history.state.cost == Cost(100, known=False)
    assert [used.estimated for used in payloads(history, e.UsageRecorded)] == [False, True]


def test_tools_are_named_once_in_order_of_their_first_use_and_only_if_used() -> None:
    history = created().turn("", "send", "pay", "ask").begin().tool("call-1-1")
    assert history.state.tools_used == ("send",)

    history.answer("call-1-3").reject("call-1-2").turn("", "look", "send").begin()

    assert history.state.tools_used == ("send", "ask", "look")


def test_a_question_and_a_clients_call_wait_for_those_they_are_put_to() -> None:
    history = created().turn("", "ask", "open_file")
    assert payloads(history, e.QuestionAsked) == [e.QuestionAsked("call-1-1", '{"n":1}')]
    assert [call.verdict for call in payloads(history, e.ToolCallRequested)] == [Verdict.CLIENT] * 2
    assert (history.state.status, history.wanted) == (ThreadState.WAITING_INPUT, frozenset())

    history.answer("call-1-1", "blue").submit("call-1-2", "no such file", ok=False)

    assert payloads(history, e.ToolCallCompleted) == [
        e.ToolCallCompleted("call-1-1", CallStatus.SUCCEEDED, "blue"),
        e.ToolCallCompleted("call-1-2", CallStatus.FAILED, "no such file"),
    ]
    assert history.startable == ["model-2"]


def test_the_model_reads_all_that_an_answer_says() -> None:
    history = created().turn("", "ask")

    content = Content("see data", '{"a":1}')
    history.ask(s.SendInput, content=content, tool_call_id="call-1-1", principal="users/bob")

    assert payloads(history, e.InputReceived)[1] == e.InputReceived(content, "call-1-1", "users/bob")
    assert payloads(history, e.ToolCallCompleted)[0].observation == 'see data\n{"a":1}'
    assert history.state.inputs == ()


@pytest.mark.parametrize(
    "outcome",
    [
        o.ModelReplied(0, "model-1", 2, "42"),
        o.ModelReplied(0, "model-2", 1, "42"),
        o.ModelReplied(0, "call-1-1", 1, "42"),
        o.ModelFailed(0, "model-2", 1, 14, "overloaded", retryable=True),
        o.ToolReturned(0, "model-1", 1, CallStatus.SUCCEEDED, "done"),
        o.ToolFailed(0, "model-1", 1, CallStatus.FAILED, "no line", retryable=True),
        o.Aborted(0, "model-1", 2),
    ],
)
@pytest.mark.parametrize("history", [model_in_flight(), tools_in_flight(), between_steps()])
def test_an_outcome_of_no_attempt_in_flight_is_refused(history: History, outcome: o.Outcome) -> None:
    refused = accept(history.state, outcome)

    assert isinstance(refused, Refused)
    assert refused.reason is Reason.THREAD_STATE_CONFLICT


def test_the_second_outcome_of_an_attempt_is_refused() -> None:
    history = created().turn("", "look", "send").begin().tool("call-1-1")

    refused = history.refusal(
        o.ToolReturned, call_id="call-1-1", attempt=1, status=CallStatus.SUCCEEDED, observation="again"
    )

    assert refused.reason is Reason.THREAD_STATE_CONFLICT


def test_time_never_goes_back_within_a_log() -> None:
    history = model_in_flight()
    last = history.events[-1].time_micros

    history.at(last - 5 * SECOND).steer()

    assert history.events[-1].time_micros == last
