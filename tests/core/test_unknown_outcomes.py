"""A crash left the outcome of a call unknown, and the agent's policy is to ask people."""

from typing import Any

import pytest

from tests.core.histories import DAY, History, created, payloads, spec
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.approvals import ApprovalRule
from treadle_server.core.decisions import UNKNOWN_OUTCOME
from treadle_server.core.errors import Reason
from treadle_server.core.kinds import (
    ApprovalKind,
    ApprovalState,
    CallStatus,
    Decision,
    Effect,
    ThreadState,
    UnknownPolicy,
)
from treadle_server.core.policy import arguments_digest
from treadle_server.core.values import ProposedCall

DIGEST = arguments_digest('{"n":1}')
OUTCOME = "outcome-call-1-1-1"


def asking(*tools: str, rule: ApprovalRule | None = None, **fields: Any) -> History:
    """Calls in flight when the server died."""
    calls = tuple(
        ProposedCall(name, f'{{"n":{number}}}', rule=rule) for number, name in enumerate(tools, start=1)
    )
    history = created(spec(on_unknown_outcome=UnknownPolicy.ASK, **fields)).begin().reply("", calls=calls)
    for number in range(1, rule.approvers_needed + 1) if rule is not None else ():
        history.approve("call-1-1", f"users/{number}")
    return history.begin().crash()


def decide(history: History, decision: Decision, **fields: Any) -> tuple[e.Event, ...]:
    given = {"principal": "users/bob", "arguments_digest": DIGEST, **fields}
    return history.ask(s.Decide, approval_id=OUTCOME, decision=decision, **given)


def test_people_are_asked_about_a_call_whose_outcome_is_unknown() -> None:
    history = asking("send")

    assert payloads(history, e.ExecutionRecovered)[0].unknown_tool_call_ids == ("call-1-1",)
    assert payloads(history, e.ApprovalRequested) == [
        e.ApprovalRequested(
            OUTCOME,
            "call-1-1",
            "send",
            Effect.AT_MOST_ONCE,
            '{"n":1}',
            DIGEST,
            1,
            kind=ApprovalKind.TOOL_OUTCOME,
        )
    ]
    assert history.state.status is ThreadState.WAITING_APPROVAL
    assert (history.wanted, payloads(history, e.ToolCallCompleted)) == (frozenset(), [])


def test_calls_that_may_be_repeated_begin_again_meanwhile_and_nobody_is_asked_about_them() -> None:
    history = asking("look", "send", "save")

    assert [asked.tool_call_id for asked in payloads(history, e.ApprovalRequested)] == ["call-1-2"]
    assert history.startable == ["call-1-1", "call-1-3"]
    assert history.state.status is ThreadState.RUNNING


def test_approving_runs_it_again_as_a_further_attempt() -> None:
    history = asking("send")

    decide(history, Decision.APPROVE)

    assert (history.tool_command("call-1-1").attempt, history.startable) == (2, ["call-1-1"])
    history.begin().tool("call-1-1", "sent")
    assert payloads(history, e.ToolCallCompleted)[0].observation == "sent"


def test_a_further_crash_asks_again_and_the_first_answer_does_not_count_for_it() -> None:
    history = asking("send")
    decide(history, Decision.APPROVE)
    history.begin().ask(o.Recovered, epoch=3)

    assert history.state.status is ThreadState.WAITING_APPROVAL
    assert [asked.approval_id for asked in payloads(history, e.ApprovalRequested)] == [
        OUTCOME,
        "outcome-call-1-1-2",
    ]
    refused = history.refusal(
        s.Decide,
        approval_id=OUTCOME,
        decision=Decision.APPROVE,
        principal="users/bob",
        arguments_digest=DIGEST,
    )
    assert refused.reason is Reason.APPROVAL_ALREADY_DECIDED


@pytest.mark.parametrize(
    ("message", "observation"),
    [("", UNKNOWN_OUTCOME), ("ask the bank", f"{UNKNOWN_OUTCOME} A person said: ask the bank")],
)
def test_rejecting_tells_the_model_that_it_is_unknown(message: str, observation: str) -> None:
    history = asking("send")

    decide(history, Decision.REJECT, message=message)

    assert payloads(history, e.ToolCallCompleted) == [
        e.ToolCallCompleted("call-1-1", CallStatus.UNKNOWN, observation)
    ]
    assert history.startable == ["model-2"]


def test_people_can_say_what_it_gave_and_it_does_not_run_again() -> None:
    history = asking("send")

    decide(history, Decision.APPROVE, result_json='{"id":7}', message="it is in the books")

    assert payloads(history, e.ApprovalDecided) == [
        e.ApprovalDecided(OUTCOME, ApprovalState.APPROVED, "it is in the books", "", '{"id":7}')
    ]
    assert payloads(history, e.ToolCallCompleted) == [
        e.ToolCallCompleted("call-1-1", CallStatus.SUCCEEDED, '{"id":7}')
    ]
    assert history.startable == ["model-2"]


def test_the_same_result_again_is_ok_and_another_or_none_is_refused() -> None:
    history = asking("send", "ask")  # the question keeps the turn open
    decide(history, Decision.APPROVE, result_json="7")

    assert decide(history, Decision.APPROVE, result_json="7") == ()
    for other in ({"result_json": "8"}, {}):
        refused = history.refusal(
            s.Decide,
            approval_id=OUTCOME,
            decision=Decision.APPROVE,
            principal="users/cat",
            arguments_digest=DIGEST,
            **other,
        )
        assert refused.reason is Reason.APPROVAL_ALREADY_DECIDED


def test_what_may_have_happened_cannot_be_edited() -> None:
    refused = asking("send").refusal(
        s.Decide,
        approval_id=OUTCOME,
        decision=Decision.APPROVE,
        principal="users/bob",
        arguments_digest=DIGEST,
        edited_arguments_json='{"n":2}',
    )

    assert refused.reason is Reason.FIELD_INVALID
    assert refused.message == "arguments_json: cannot be edited where the call may have taken effect"


def test_a_result_is_no_answer_to_whether_a_call_may_run() -> None:
    history = created().turn("", "pay")

    refused = history.refusal(
        s.Decide,
        approval_id="approval-call-1-1",
        decision=Decision.APPROVE,
        principal="users/bob",
        arguments_digest=DIGEST,
        result_json="1",
    )

    assert refused.message == "result_json: is for approvals of kind TOOL_OUTCOME"


def test_repeating_takes_as_many_people_as_the_call_did() -> None:
    rule = ApprovalRule("s*", approvers_needed=2, exclude_starter=True)
    history = asking("send", rule=rule)

    asked = payloads(history, e.ApprovalRequested)[-1]
    assert (asked.approvers_needed, asked.exclude_starter, asked.rule) == (2, True, "s*")
    decide(history, Decision.APPROVE)
    assert history.wanted == frozenset()
    decide(history, Decision.APPROVE, principal="users/cat")
    assert history.startable == ["call-1-1"]


def test_a_result_is_not_taken_from_one_person_where_several_must_approve() -> None:
    history = asking("send", rule=ApprovalRule(approvers_needed=2))

    refused = history.refusal(
        s.Decide,
        approval_id=OUTCOME,
        decision=Decision.APPROVE,
        principal="users/bob",
        arguments_digest=DIGEST,
        result_json="1",
    )

    assert refused.message == "result_json: cannot be given where several people must approve"


def test_the_thread_ends_with_the_outcome_still_unknown_when_nobody_answers() -> None:
    history = asking("send")

    history.at(history.now + 31 * DAY).ask(s.Due)

    assert history.state.status is ThreadState.TIMED_OUT
    assert payloads(history, e.ApprovalDecided)[0].state is ApprovalState.CANCELLED
    assert payloads(history, e.ToolCallCompleted)[0].status is CallStatus.UNKNOWN


def test_a_thread_that_is_being_cancelled_asks_nobody() -> None:
    history = created(spec(on_unknown_outcome=UnknownPolicy.ASK)).turn("", "send").begin()
    history.ask(s.Cancel)

    history.crash()

    assert payloads(history, e.ApprovalRequested) == []
    assert payloads(history, e.ToolCallCompleted)[0].status is CallStatus.UNKNOWN
    assert history.state.status is ThreadState.CANCELLED
