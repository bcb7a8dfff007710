"""A fork: what stands where the events are cut off, and how the thread goes on from there."""

from dataclasses import replace

import pytest

from tests.core.forks import LATER, fork
from tests.core.histories import (
    COST,
    HOUR,
    REFERENCE,
    SITUATIONS,
    TOOLS,
    USAGE,
    History,
    between_steps,
    cancelled,
    cancelling,
    completed,
    created,
    failed,
    model_in_flight,
    model_waits_to_retry,
    names,
    paused,
    payloads,
    spec,
    tools_in_flight,
    waiting_approval,
    waiting_client,
    waiting_question,
)
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.approvals import ApprovalRule
from treadle_server.core.commands import CallTool
from treadle_server.core.decide import wake_at
from treadle_server.core.ending import resting_state
from treadle_server.core.errors import Reason
from treadle_server.core.evolve import fold
from treadle_server.core.iterations import iterations
from treadle_server.core.kinds import (
    ApprovalKind,
    ApprovalState,
    CallStatus,
    Control,
    Decision,
    Effect,
    StopReason,
    ThreadState,
    TriggerType,
    UnknownPolicy,
)
from treadle_server.core.spec import Limits, ToolSpec
from treadle_server.core.state import State
from treadle_server.core.transcript import ModelEntry, TranscriptFold, UserEntry
from treadle_server.core.values import Content, Cost, ProposedCall, ProviderContent, Usage

EXPERT = ToolSpec(
    "expert", "agents/expert", "", "{}", Effect.IDEMPOTENT, agent_version="agents/expert/versions/1"
)
KEPT = ProviderContent("scripted", "tests", '{"parts":[]}')


def own(history: History) -> str:
    """Kinds of the events of a fork's own life."""
    begin = next(index for index, event in enumerate(history.events) if "Forked" in names(event))
    return names(*history.events[begin + 1 :])


def cut_before(history: History, kind: str) -> int:
    """Where to cut so that the first event of a kind is just not shared."""
    return next(index for index, event in enumerate(history.events) if names(event) == kind)


def transcript(history: History) -> list[object]:
    found = TranscriptFold()
    for event in history.events:
        found.apply(event)
    return list(found.transcript.entries)


CUTS = [
    pytest.param(situation, cut, id=f"{situation}, {cut}")
    for situation, make in SITUATIONS.items()
    for cut in range(2, len(make().events) + 1 - make().state.ended)
]


@pytest.mark.parametrize(("situation", "cut"), CUTS)
def test_a_fork_of_any_thread_after_any_event_has_something_to_do_or_to_wait_for_or_has_ended(
    situation: str, cut: int
) -> None:
    forked = fork(SITUATIONS[situation](), cut)

    state = forked.state
    waits = [call for call in state.calls.values() if call.open and not call.runnable]
    assert not state.in_flight
    assert state.pending is None
    match state.status:
        case ThreadState.PENDING:
            assert forked.startable
        case ThreadState.WAITING_APPROVAL | ThreadState.WAITING_INPUT:
            assert waits
            assert not forked.wanted
        case ended:
            assert ended is ThreadState.COMPLETED
            assert state.answer is not None


@pytest.mark.parametrize(("situation", "cut"), CUTS)
def test_a_fork_of_any_thread_after_any_event_can_be_brought_to_an_end(situation: str, cut: int) -> None:
    forked = fork(SITUATIONS[situation](), cut, text="and then?")

    for _ in range(10):
        if forked.state.ended:
            break
        for call in list(forked.state.calls.values()):
            if call.gated:
                forked.reject(call.call_id)
            elif call.open and call.asked:
                forked.answer(call.call_id)
            elif call.open and call.client:
                forked.submit(call.call_id)
            elif call.open:
                forked.begin(call.call_id).tool(call.call_id)
        if forked.startable:
            forked.begin().reply("the answer")

    assert forked.state.status is ThreadState.COMPLETED
    assert names(*forked.events).count("ThreadEnded") == 1
    sequences = [event.sequence for event in forked.events]
    assert sequences == list(range(1, len(sequences) + 1))


def test_a_forks_own_life_begins_with_the_fork() -> None:
    history = completed()

    forked = fork(history, text="why?")

    state, origin = forked.state, forked.state.origin
    assert origin is not None
    assert (state.status, state.create_time, state.start_time) == (ThreadState.PENDING, LATER, 0)
    assert (origin.forked_from, origin.principal) == ("threads/first", "users/eve")
    assert origin.trigger == e.Trigger(TriggerType.API, "users/eve")
    assert wake_at(state) == LATER + state.spec.limits.max_lifetime_micros
    assert (state.iteration, state.first_input) == (1, Content("hello"))


def test_what_the_other_thread_spent_is_not_the_forks() -> None:
    forked = fork(completed(), text="why?")

    assert (forked.state.usage, forked.state.cost) == (Usage(), Cost())
    forked.turn("because")
    (ended,) = payloads(forked, e.ThreadEnded)
    assert (ended.usage, ended.cost) == (USAGE, COST)


def test_a_limit_of_tokens_counts_only_the_forks_own() -> None:
    its_spec = spec(limits=Limits(max_input_tokens=USAGE.input_tokens + 1))
    history = created(its_spec).turn("", "look").begin()

    forked = fork(history)

    forked.begin().tool("call-1-1").turn("done")
    assert forked.state.status is ThreadState.COMPLETED


def test_turns_and_tool_calls_that_are_shared_count() -> None:
    history = created(spec(limits=Limits(max_iterations=1))).turn("", "look").begin()

    forked = fork(history)

    forked.begin().tool("call-1-1")
    assert forked.state.stop_reason is StopReason.MAX_ITERATIONS
    assert forked.state.tool_call_count == 1


def test_a_fork_of_an_answer_ends_with_it_unless_it_is_asked_further() -> None:
    forked, asked = fork(completed()), fork(completed(), text="why?")

    assert own(forked) == "ThreadEnded"
    assert forked.state.output == Content("the answer")
    assert own(asked) == "InputReceived"
    asked.turn("because")
    assert transcript(asked)[0] == UserEntry(Content("hello"))
    assert transcript(asked)[2] == UserEntry(Content("why?"))


def test_a_model_call_in_flight_is_made_again() -> None:
    forked = fork(model_in_flight())

    (command,) = forked.wanted
    assert (command.call_id, command.attempt, command.begun) == ("model-1", 2, False)


def test_a_pause_before_the_next_attempt_is_not_waited_for_again() -> None:
    (command,) = fork(model_waits_to_retry()).wanted

    assert command.not_before == 0


def test_a_call_at_most_once_that_was_in_flight_ends_unknown_and_the_others_begin_again() -> None:
    forked = fork(tools_in_flight())

    unknown = [each.tool_call_id for each in payloads(forked, e.ToolCallCompleted)]
    assert unknown == ["call-1-2"]
    assert forked.state.calls["call-1-2"].status is CallStatus.UNKNOWN
    assert forked.startable == ["call-1-1"]


def test_a_fork_of_a_strict_agent_fails_for_an_unknown_outcome() -> None:
    strict = spec(on_unknown_outcome=UnknownPolicy.FAIL)

    forked = fork(tools_in_flight(), its_spec=strict)

    assert forked.state.stop_reason is StopReason.TOOL_OUTCOME_UNKNOWN
    assert not any(call.open for call in forked.state.calls.values())


def test_an_open_approval_is_asked_for_again_and_its_time_begins_anew() -> None:
    forked = fork(waiting_approval())

    assert own(forked) == "ApprovalRequested StateChanged StateChanged"
    assert resting_state(forked.state) is forked.state.status
    assert payloads(forked, e.ApprovalRequested)[-1].expire_time_micros == LATER + HOUR
    forked.approve("call-1-1").begin().tool("call-1-1", "paid").turn("done")
    assert forked.state.status is ThreadState.COMPLETED


def test_votes_on_the_other_thread_do_not_count() -> None:
    history = created().turn("", "sign").approve("call-1-1", "users/bob")

    forked = fork(history).approve("call-1-1", "users/cat")

    assert forked.state.status is ThreadState.WAITING_APPROVAL
    assert not forked.approve("call-1-1", "users/bob").state.calls["call-1-1"].gated


def test_what_was_approved_and_not_begun_is_approved_only_of_the_other_thread() -> None:
    forked = fork(waiting_approval().approve("call-1-1"))

    assert forked.state.status is ThreadState.WAITING_APPROVAL
    assert not forked.wanted


def test_edited_arguments_are_what_is_asked_about_again() -> None:
    history = waiting_approval().approve("call-1-1", edited_arguments_json='{"n":2}')

    forked = fork(history)

    assert payloads(forked, e.ApprovalRequested)[-1].arguments_json == '{"n":2}'


@pytest.mark.parametrize("kind", ["ApprovalRequested", "ApprovalVoteRecorded"])
def test_a_cut_between_a_call_and_its_approval_lets_nothing_run(kind: str) -> None:
    history = waiting_approval().approve("call-1-1")

    forked = fork(history, cut_before(history, kind))

    assert forked.state.status is ThreadState.WAITING_APPROVAL
    assert not forked.wanted


def test_a_cut_between_a_rejection_and_the_end_of_its_call_lets_nothing_run() -> None:
    history = waiting_approval().reject("call-1-1")
    cut = cut_before(history, "ToolCallCompleted")
    assert fold(State(spec()), history.events[:cut]).calls["call-1-1"].approval is not None

    forked = fork(history, cut)

    approval = forked.state.calls["call-1-1"].approval
    assert approval is not None
    assert approval.state is ApprovalState.PENDING


def test_a_cut_before_the_end_of_a_call_that_cannot_run_lets_nothing_run() -> None:
    history = created().turn("", "loook", "look")

    forked = fork(history, cut_before(history, "ToolCallCompleted"))

    assert forked.state.calls["call-1-1"].status is CallStatus.INVALID


def test_a_question_and_a_clients_call_stay_open() -> None:
    asked, client = fork(waiting_question()), fork(waiting_client())

    assert (asked.state.status, client.state.status) == (ThreadState.WAITING_INPUT,) * 2
    assert own(asked) == own(client) == "StateChanged StateChanged"
    assert asked.answer("call-1-1").startable == client.submit("call-1-1").startable == ["model-2"]


def test_a_question_whose_asking_was_cut_off_is_asked() -> None:
    history = waiting_question()

    forked = fork(history, cut_before(history, "QuestionAsked"))

    assert own(forked) == "QuestionAsked StateChanged StateChanged"


@pytest.mark.parametrize("history", [paused(created()), paused(between_steps()), cancelling()])
def test_a_control_of_the_other_thread_does_not_hold_for_the_fork(history: History) -> None:
    forked = fork(history)

    assert forked.state.pending is None
    assert forked.startable


def test_a_cancel_of_the_fork_is_the_forks_own() -> None:
    forked = fork(cancelling())

    forked.ask(s.Cancel, principal="users/eve")

    assert forked.state.status is ThreadState.CANCELLED
    assert [each.command for each in payloads(forked, e.ControlRequested)] == [Control.CANCEL] * 2


def test_a_fork_of_a_failed_thread_makes_another_turn() -> None:
    forked = fork(failed())

    forked.turn("the answer")

    assert forked.state.iteration == 2
    assert forked.state.status is ThreadState.COMPLETED


def test_a_fork_of_a_thread_that_failed_by_bad_turns_has_the_same_patience_again() -> None:
    history = created()
    for _ in range(3):
        history.turn("{}", problem="no field a")
    assert history.state.stop_reason is StopReason.INVALID_OUTPUT

    forked = fork(history).turn("better")

    assert forked.state.status is ThreadState.COMPLETED


def test_a_fork_of_a_cancelled_thread_goes_on_without_the_calls_that_were_not_run() -> None:
    forked = fork(cancelled())

    assert forked.state.calls["call-1-1"].status is CallStatus.CANCELLED
    assert forked.startable == ["model-2"]


def test_a_call_of_a_tool_that_another_version_does_not_have_is_not_run() -> None:
    without = spec(tools=tuple(tool for tool in TOOLS if tool.name not in ("look", "open_file")))

    forked = fork(tools_in_flight(), its_spec=without)

    statuses = {call.call_id: call.status for call in forked.state.calls.values()}
    assert (statuses["call-1-1"], statuses["call-1-5"]) == (CallStatus.INVALID,) * 2
    assert "there is no tool look" in [each.observation for each in payloads(forked, e.ToolCallCompleted)]


def test_a_call_that_another_version_has_approved_first_is_not_begun_again_without() -> None:
    stricter = spec(
        tools=tuple(
            tool if tool.name != "look" else type(tool)(tool.name, tool.tool, "", "{}", approvers_needed=1)
            for tool in TOOLS
        )
    )

    forked = fork(created().turn("", "look").begin(), its_spec=stricter)

    assert forked.state.status is ThreadState.WAITING_APPROVAL


def test_a_call_is_as_careful_as_the_stricter_of_two_versions_has_it() -> None:
    history = created().turn("", "look", "send")
    other = {"look": Effect.AT_MOST_ONCE, "send": Effect.READ_ONLY}
    tools = tuple(replace(tool, effect=other.get(tool.name, tool.effect)) for tool in TOOLS)

    forked = fork(history, its_spec=spec(tools=tools))

    effects = {command.call_id: command.effect for command in forked.wanted if isinstance(command, CallTool)}
    assert effects == {"call-1-1": Effect.AT_MOST_ONCE, "call-1-2": Effect.AT_MOST_ONCE}


def test_an_agent_is_not_called_deeper_than_the_fork_may() -> None:
    history = created(spec(tools=(EXPERT,))).turn("", "expert").begin()

    again = fork(history)
    forked = fork(history, its_spec=spec(tools=(EXPERT,), limits=Limits(max_depth=0)))

    assert again.startable == ["call-1-1"]
    assert forked.state.calls["call-1-1"].status is CallStatus.INVALID


def test_a_child_of_the_other_thread_is_not_waited_for() -> None:
    history = created(spec(tools=(EXPERT,))).turn("", "expert").begin()
    history.ask(
        o.ChildStarted,
        call_id="call-1-1",
        attempt=1,
        child_thread="threads/child",
        agent_version="agents/expert/versions/1",
    )

    forked = fork(history)

    assert history.state.calls["call-1-1"].delegated
    assert forked.startable == ["call-1-1"]


def test_a_turn_that_was_cut_off_before_its_calls_is_given_anew() -> None:
    history = created().turn("I look.", "look", thought="Where?", provider_content=KEPT)

    forked = fork(history, cut_before(history, "ToolCallRequested")).turn("the answer")

    assert forked.state.status is ThreadState.COMPLETED
    assert transcript(forked) == [UserEntry(Content("hello"))]


def test_a_turn_that_was_cut_off_between_its_calls_is_the_one_with_those_that_are_shared() -> None:
    history = created().turn("I look.", "look", "save", provider_content=KEPT)
    cut = max(event.sequence for event in history.events if names(event) == "ToolCallRequested") - 1

    forked = fork(history, cut)

    forked.begin().tool("call-1-1").begin()
    (turn,) = (entry for entry in transcript(forked) if isinstance(entry, ModelEntry))
    assert [call.name for call in turn.calls] == ["look"]


def test_a_text_that_an_input_came_before_stays_said() -> None:
    history = model_in_flight().steer().reply("the answer")

    forked = fork(history).begin()

    assert [type(entry) for entry in transcript(forked)] == [UserEntry, ModelEntry, UserEntry]


def test_shared_turns_are_turns_of_the_fork() -> None:
    forked = fork(completed(), text="why?").turn("because")

    assert [turn.text for turn in iterations(forked.events)] == ["the answer", "because"]


def test_a_fork_of_a_fork_names_the_thread_that_it_was_made_of() -> None:
    once = fork(completed(), text="why?").turn("because")

    twice = fork(once, text="really?").turn("yes")

    assert twice.state.status is ThreadState.COMPLETED
    assert len(payloads(twice, e.ThreadForked)) == 2
    assert payloads(twice, e.ThreadForked)[1].forked_sequence == len(once.events) - 1


ASKING = spec(on_unknown_outcome=UnknownPolicy.ASK)


def test_people_are_asked_about_a_call_whose_outcome_the_fork_cannot_know() -> None:
    history = created(ASKING).turn("", "send").begin()

    forked = fork(history)

    assert own(forked) == "ApprovalRequested StateChanged StateChanged"
    (asked,) = payloads(forked, e.ApprovalRequested)
    assert (asked.kind, asked.tool_call_id) == (ApprovalKind.TOOL_OUTCOME, "call-1-1")
    assert not forked.wanted


def test_what_people_said_of_an_outcome_was_about_the_other_threads_call() -> None:
    history = created(ASKING).turn("", "send").begin().crash()
    asked = payloads(history, e.ApprovalRequested)[-1]
    approved = created(ASKING).turn("", "send").begin().crash()
    approved.ask(
        s.Decide,
        approval_id=asked.approval_id,
        decision=Decision.APPROVE,
        principal="users/bob",
        arguments_digest=asked.arguments_digest,
    )

    for before in (history, approved):
        forked = fork(before)

        assert forked.state.status is ThreadState.WAITING_APPROVAL
        assert not forked.wanted
        assert payloads(forked, e.ApprovalRequested)[-1].kind is ApprovalKind.TOOL_OUTCOME


def test_who_forked_a_thread_counts_as_its_starter() -> None:
    rule = ApprovalRule(approvers_needed=1, exclude_starter=True)
    history = created().turn("", calls=(ProposedCall("send", "{}", rule=rule),))
    forked = History(history.state.spec)
    forked.events, forked.state = history.events[:], fold(forked.state, history.events)
    reviewed = (("call-1-1", ProposedCall("send", "{}", rule=rule)),)
    forked.ask(s.Fork, spec=REFERENCE, forked_from="threads/first", principal="users/eve", reviewed=reviewed)
    asked = payloads(forked, e.ApprovalRequested)[-1]

    refused = forked.refusal(
        s.Decide,
        approval_id=asked.approval_id,
        decision=Decision.APPROVE,
        principal="users/eve",
        arguments_digest=asked.arguments_digest,
    )

    assert refused.reason is Reason.APPROVER_EXCLUDED
    assert forked.approve("call-1-1", "users/ann").startable == ["call-1-1"]


def test_a_call_that_another_version_runs_without_approval_does_not_wait_for_one() -> None:
    free = spec(tools=tuple(replace(tool, approvers_needed=0) for tool in TOOLS))

    forked = fork(waiting_approval(), its_spec=free)

    assert forked.startable == ["call-1-1"]
