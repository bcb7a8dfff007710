"""Approvals: bound to exact arguments, decided once, expired by nobody."""

import pytest

from tests.core.histories import (
    HOUR,
    SECOND,
    created,
    names,
    payloads,
    waiting_approval,
    waiting_approval_and_input,
)
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.approvals import ApprovalRule
from treadle_server.core.decide import wake_at
from treadle_server.core.errors import Reason
from treadle_server.core.kinds import ApprovalKind, ApprovalState, CallStatus, Decision, Effect, ThreadState
from treadle_server.core.policy import arguments_digest
from treadle_server.core.values import ProposedCall

DIGEST = arguments_digest('{"n":1}')
APPROVAL = "approval-call-1-1"


def test_a_gated_call_asks_for_approval_of_its_exact_arguments_and_does_not_run() -> None:
    history = waiting_approval()

    (asked,) = payloads(history, e.ApprovalRequested)
    assert asked == e.ApprovalRequested(
        APPROVAL,
        "call-1-1",
        "pay",
        Effect.AT_MOST_ONCE,
        '{"n":1}',
        "sha256:2bfd14f43d17fc7cea24e0917a8879b4b2f880b8baeec1b9d90fbaad655e71bd",
        1,
        history.now + HOUR,
        ApprovalKind.TOOL_CALL,
    )
    assert history.state.status is ThreadState.WAITING_APPROVAL
    assert history.wanted == frozenset()


def test_an_approved_call_runs() -> None:
    history = waiting_approval().approve("call-1-1", message="go on")

    assert names(*history.events[-3:]) == "ApprovalVoteRecorded ApprovalDecided StateChanged"
    assert payloads(history, e.ApprovalVoteRecorded) == [
        e.ApprovalVoteRecorded(APPROVAL, "users/bob", Decision.APPROVE, "go on")
    ]
    assert payloads(history, e.ApprovalDecided) == [
        e.ApprovalDecided(APPROVAL, ApprovalState.APPROVED, "go on")
    ]
    assert history.tool_command("call-1-1").arguments_json == '{"n":1}'


@pytest.mark.parametrize(
    ("message", "observation"),
    [("", "A person rejected this call."), ("too dear", "A person rejected this call: too dear")],
)
def test_a_rejected_call_does_not_run_and_the_model_is_told(message: str, observation: str) -> None:
    history = waiting_approval().reject("call-1-1", message=message)

    assert payloads(history, e.ToolCallCompleted) == [
        e.ToolCallCompleted("call-1-1", CallStatus.REJECTED, observation)
    ]
    assert payloads(history, e.ApprovalDecided) == [
        e.ApprovalDecided(APPROVAL, ApprovalState.REJECTED, message)
    ]
    approval = history.state.calls["call-1-1"].approval
    assert approval is not None
    assert (approval.state, approval.approvals) == (ApprovalState.REJECTED, ())
    assert history.startable == ["model-2"]


def test_a_call_runs_with_the_arguments_that_were_edited_and_both_are_kept() -> None:
    history = waiting_approval().approve("call-1-1", edited_arguments_json='{"n":2}')

    assert history.tool_command("call-1-1").arguments_json == '{"n":2}'
    assert payloads(history, e.ApprovalDecided)[0].edited_arguments_json == '{"n":2}'
    assert payloads(history, e.ToolCallRequested)[0].arguments_json == '{"n":1}'


@pytest.mark.parametrize("digest", ["", "sha256:00", arguments_digest('{"n": 1}')])
def test_approving_other_arguments_than_those_asked_about_is_refused(digest: str) -> None:
    history = waiting_approval()

    refused = history.refusal(
        s.Decide,
        approval_id=APPROVAL,
        decision=Decision.APPROVE,
        principal="users/bob",
        arguments_digest=digest,
    )

    assert refused.reason is Reason.APPROVAL_STALE
    assert refused.message == (
        "arguments_digest is not that of approval-call-1-1: read the approval again, and give its own"
    )
    assert refused.metadata == {"approval": "approval-call-1-1"}


def test_rejecting_needs_no_digest() -> None:
    assert waiting_approval().reject("call-1-1").startable == ["model-2"]


def again(decision: Decision, **fields: str) -> dict[str, object]:
    return {
        "approval_id": APPROVAL,
        "decision": decision,
        "principal": "users/cat",
        "arguments_digest": DIGEST,
        **fields,
    }


def test_the_same_decision_again_is_ok_and_changes_nothing() -> None:
    approved = waiting_approval().approve("call-1-1")
    edited = waiting_approval().approve("call-1-1", edited_arguments_json='{"n":2}')
    rejected = waiting_approval_and_input().reject("call-1-1")

    assert approved.ask(s.Decide, **again(Decision.APPROVE)) == ()
    assert edited.ask(s.Decide, **again(Decision.APPROVE, edited_arguments_json='{"n":2}')) == ()
    assert rejected.ask(s.Decide, **again(Decision.REJECT)) == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"decision": Decision.APPROVE}, {"decision": Decision.REJECT}),
        ({"decision": Decision.REJECT}, {"decision": Decision.APPROVE}),
        ({"decision": Decision.APPROVE}, {"decision": Decision.APPROVE, "edited_arguments_json": '{"n":2}'}),
        ({"decision": Decision.APPROVE, "edited_arguments_json": '{"n":2}'}, {"decision": Decision.APPROVE}),
        (
            {"decision": Decision.APPROVE, "edited_arguments_json": '{"n":2}'},
            {"decision": Decision.APPROVE, "edited_arguments_json": '{"n":3}'},
        ),
    ],
)
def test_another_decision_than_the_first_is_refused(
    first: dict[str, object], second: dict[str, object]
) -> None:
    history = waiting_approval_and_input()
    history.ask(s.Decide, approval_id=APPROVAL, principal="users/bob", arguments_digest=DIGEST, **first)

    refused = history.refusal(
        s.Decide, approval_id=APPROVAL, principal="users/cat", arguments_digest=DIGEST, **second
    )

    assert refused.reason is Reason.APPROVAL_ALREADY_DECIDED
    state = ApprovalState.APPROVED if first["decision"] is Decision.APPROVE else ApprovalState.REJECTED
    assert refused.message == f"{APPROVAL} is {state.name} already"
    assert refused.metadata == {"approval": APPROVAL, "state": state.name}


def test_as_many_people_as_are_needed_must_approve_and_each_counts_once() -> None:
    history = created().turn("", "sign").approve("call-1-1", "users/bob")
    assert history.state.status is ThreadState.WAITING_APPROVAL

    assert history.approve("call-1-1", "users/bob").state.status is ThreadState.WAITING_APPROVAL
    assert len(payloads(history, e.ApprovalVoteRecorded)) == 1
    history.approve("call-1-1", "users/cat")

    assert history.startable == ["call-1-1"]
    assert payloads(history, e.ApprovalDecided) == [e.ApprovalDecided(APPROVAL, ApprovalState.APPROVED)]


def test_one_of_several_people_can_reject_even_after_having_approved() -> None:
    history = created().turn("", "sign").approve("call-1-1", "users/bob")

    history.reject("call-1-1", "users/bob")

    assert [vote.decision for vote in payloads(history, e.ApprovalVoteRecorded)] == [
        Decision.APPROVE,
        Decision.REJECT,
    ]
    assert history.startable == ["model-2"]


def test_nobody_can_edit_what_several_people_approve() -> None:
    history = created().turn("", "sign").approve("call-1-1", "users/bob")

    refused = history.refusal(s.Decide, **again(Decision.APPROVE, edited_arguments_json='{"n":2}'))

    assert refused.reason is Reason.FIELD_INVALID
    assert refused.message == "arguments_json: cannot be edited where several people must approve"


def test_several_approvals_are_decided_each_for_itself_and_in_any_order() -> None:
    history = created().turn("", "pay", "look", "pay").begin("call-1-2")
    assert history.state.status is ThreadState.RUNNING

    history.approve("call-1-3").tool("call-1-2").reject("call-1-1")

    assert history.startable == ["call-1-3"]
    decided = [(payload.approval_id, payload.state) for payload in payloads(history, e.ApprovalDecided)]
    assert decided == [
        ("approval-call-1-3", ApprovalState.APPROVED),
        ("approval-call-1-1", ApprovalState.REJECTED),
    ]


def test_waiting_for_approval_shows_only_once_nothing_else_can_run() -> None:
    history = created().turn("", "look", "pay", "ask")
    assert history.state.status is ThreadState.RUNNING

    history.begin().tool("call-1-1")
    assert history.state.status is ThreadState.WAITING_APPROVAL
    history.reject("call-1-2")
    assert history.state.status is ThreadState.WAITING_INPUT
    assert history.answer("call-1-3").state.status is ThreadState.RUNNING


def test_an_approval_expires_and_nobody_is_said_to_have_decided() -> None:
    history = waiting_approval()
    asked = history.now

    history.due().due()

    assert history.now == asked + HOUR

    assert payloads(history, e.ApprovalDecided) == [e.ApprovalDecided(APPROVAL, ApprovalState.EXPIRED)]
    assert payloads(history, e.ApprovalVoteRecorded) == []
    assert payloads(history, e.ToolCallCompleted) == [
        e.ToolCallCompleted(
            "call-1-1", CallStatus.REJECTED, "The approval of this call expired; it was not run."
        )
    ]
    assert history.startable == ["model-2"]


def test_an_approval_expires_whatever_becomes_of_the_others_of_the_turn() -> None:
    history = created().turn("", "sign", "pay", "pay").reject("call-1-2")

    history.due().due()

    assert [
        (payload.approval_id, payload.state.name) for payload in payloads(history, e.ApprovalDecided)
    ] == [
        ("approval-call-1-2", "REJECTED"),
        ("approval-call-1-3", "EXPIRED"),
    ]
    assert history.state.calls["call-1-1"].gated


def test_an_approval_does_not_expire_before_its_time() -> None:
    history = waiting_approval()
    until = history.now + HOUR
    history.due()

    assert history.at(until - 1).ask(s.Due) == ()


def test_an_approval_without_expiry_waits_as_long_as_the_thread_lives() -> None:
    history = created().turn("", "sign")

    assert history.due().state.status is ThreadState.TIMED_OUT


@pytest.mark.parametrize("decision", [Decision.APPROVE, Decision.REJECT])
def test_nobody_decides_after_the_expiry_even_if_it_was_not_recorded_yet(decision: Decision) -> None:
    history = waiting_approval()
    history.at(history.now + HOUR)

    refused = history.refusal(s.Decide, **again(decision))

    assert refused.reason is Reason.APPROVAL_ALREADY_DECIDED
    assert refused.metadata == {"approval": APPROVAL, "state": "EXPIRED"}


def test_an_approval_expires_while_the_thread_is_paused_and_it_stays_paused() -> None:
    history = waiting_approval()
    history.ask(s.Pause)

    history.due().due()

    assert history.state.status is ThreadState.PAUSED
    history.ask(s.Resume)
    assert history.startable == ["model-2"]


def test_an_approval_decided_while_paused_takes_effect_on_resume() -> None:
    history = waiting_approval()
    history.ask(s.Pause)
    history.approve("call-1-1")
    assert (history.state.status, history.wanted) == (ThreadState.PAUSED, frozenset())

    history.ask(s.Resume)

    assert history.startable == ["call-1-1"]


def test_an_approved_question_is_put_to_a_person() -> None:
    history = created().turn("", "ask_boss")
    assert payloads(history, e.QuestionAsked) == []

    history.approve("call-1-1", edited_arguments_json='{"n":2}')

    assert payloads(history, e.QuestionAsked) == [e.QuestionAsked("call-1-1", '{"n":2}')]
    assert history.state.status is ThreadState.WAITING_INPUT
    assert history.answer("call-1-1").startable == ["model-2"]


def test_an_approved_clients_call_is_the_clients() -> None:
    history = created().turn("", "delete_file")
    refused = history.refusal(s.SubmitToolResult, tool_call_id="call-1-1", observation="deleted")
    assert refused.reason is Reason.THREAD_STATE_CONFLICT

    history.approve("call-1-1")

    assert (history.state.status, history.wanted) == (ThreadState.WAITING_INPUT, frozenset())
    assert history.submit("call-1-1").startable == ["model-2"]


def test_open_approvals_are_cancelled_with_the_thread() -> None:
    history = waiting_approval()

    history.ask(s.Cancel)

    assert payloads(history, e.ApprovalDecided) == [
        e.ApprovalDecided(APPROVAL, ApprovalState.CANCELLED, "the thread ended")
    ]
    refused = history.refusal(s.Decide, **again(Decision.APPROVE))
    assert refused.message == f"{APPROVAL} is CANCELLED already"
    assert refused.metadata == {"approval": APPROVAL, "state": "CANCELLED"}


def test_an_approval_that_was_given_is_not_cancelled_with_the_thread() -> None:
    history = waiting_approval().approve("call-1-1").begin().due()

    assert [payload.state for payload in payloads(history, e.ApprovalDecided)] == [ApprovalState.APPROVED]
    assert payloads(history, e.ToolCallCompleted)[0].status is CallStatus.UNKNOWN


def test_an_approval_of_an_earlier_iteration_is_settled() -> None:
    history = waiting_approval().reject("call-1-1").begin()

    refused = history.refusal(s.Decide, **again(Decision.APPROVE))

    assert refused.reason is Reason.APPROVAL_ALREADY_DECIDED
    assert refused.message == f"{APPROVAL} is settled already"
    assert refused.metadata == {"approval": APPROVAL}


def test_time_spent_waiting_is_not_time_spent_running() -> None:
    history = waiting_approval()
    ran = history.state.running_micros
    assert history.state.running_since == 0

    history.at(history.now + HOUR // 2).approve("call-1-1")

    assert history.state.running_micros == ran == SECOND
    assert history.state.running_since == history.now


def test_people_are_told_once_and_in_time_that_an_approval_expires() -> None:
    history = waiting_approval()
    asked = history.now

    history.due()

    assert history.now == asked + HOUR - 300 * SECOND
    assert payloads(history, e.ApprovalExpiring) == [e.ApprovalExpiring(APPROVAL, "call-1-1", asked + HOUR)]
    assert wake_at(history.state) == asked + HOUR
    assert history.state.status is ThreadState.WAITING_APPROVAL
    assert history.approve("call-1-1").startable == ["call-1-1"]


def test_an_approval_of_a_few_minutes_is_said_to_expire_when_half_of_them_are_over() -> None:
    rule = ApprovalRule(approvers_needed=1, expire_after_micros=60 * SECOND)
    history = created().begin().reply("", calls=(ProposedCall("send", '{"n":1}', rule=rule),))
    asked = history.now

    assert wake_at(history.state) == asked + 30 * SECOND
    assert (
        names(*history.at(asked + 90 * SECOND).ask(s.Due)) == "ApprovalDecided ToolCallCompleted StateChanged"
    )


def test_an_approval_that_is_settled_is_not_said_to_expire() -> None:
    history = created().turn("", "pay", "ask").approve("call-1-1").begin().tool("call-1-1")

    history.at(history.now + HOUR - SECOND).ask(s.Due)

    assert payloads(history, e.ApprovalExpiring) == []
