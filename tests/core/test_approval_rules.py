"""Rules of an approval policy: which one decides about a call, and what it asks for."""

from itertools import product

import pytest

from tests.core.histories import HOUR, History, created, payloads, proposed, spec
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.approvals import ApprovalRule, first_fitting, matches
from treadle_server.core.errors import Reason
from treadle_server.core.kinds import ApprovalState, Decision, Effect, ThreadState, Verdict
from treadle_server.core.policy import arguments_digest
from treadle_server.core.values import ProposedCall

ANY = ApprovalRule(approvers_needed=1)
NOBODY = ApprovalRule()


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("pay", "pay", True),
        ("pay", "repay", False),
        ("pay", "payroll", False),
        ("pay*", "payroll", True),
        ("*pay", "repay", True),
        ("*", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("**", "anything", True),
        ("builtin/*", "builtin/remember", True),
        ("a.c", "abc", False),
    ],
)
def test_a_star_stands_for_any_characters_and_nothing_else_does(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


def test_a_pattern_of_stars_takes_no_time_that_explodes() -> None:
    assert not matches("*a" * 127, "a" * 120 + "b" * 136)


def test_the_first_rule_that_fits_decides() -> None:
    dear = ApprovalRule("pay", argument_predicate="dear", approvers_needed=2)
    rules = (dear, ApprovalRule("pay*"), ApprovalRule(effect=Effect.AT_MOST_ONCE, approvers_needed=1))
    names, once = ("pay", "toolServers/bank/tools/pay"), Effect.AT_MOST_ONCE

    assert first_fitting(rules, names, once, lambda predicate: predicate == "dear") is rules[0]
    assert first_fitting(rules, names, once, lambda predicate: False) is rules[1]
    assert first_fitting(rules, ("send",), once, lambda predicate: True) is rules[2]
    assert first_fitting(rules, ("look",), Effect.READ_ONLY, lambda predicate: True) is None
    assert first_fitting((ApprovalRule("*/bank/*"),), names, once, bool) is not None


def test_every_condition_of_a_rule_must_fit() -> None:
    for name, effect, predicate in product((True, False), repeat=3):
        rule = ApprovalRule("pay", Effect.IDEMPOTENT, "large")
        names = ("pay" if name else "send",)
        kind = Effect.IDEMPOTENT if effect else Effect.READ_ONLY
        found = first_fitting((rule,), names, kind, {"large": predicate}.__getitem__)
        assert (found is rule) is (name and effect and predicate)


def test_a_predicate_that_cannot_be_computed_asks_and_exempts_nobody() -> None:
    exempts = ApprovalRule(argument_predicate="small")
    asks = ApprovalRule(argument_predicate="large", approvers_needed=1)

    for rules in ((exempts, asks), (asks, exempts)):
        assert first_fitting(rules, ("pay",), Effect.AT_MOST_ONCE, lambda predicate: None) is asks
    assert first_fitting((exempts,), ("pay",), Effect.AT_MOST_ONCE, lambda predicate: None) is None


def turn_with(rule: ApprovalRule | None, tool: str = "send") -> History:
    call = ProposedCall(tool, '{"n":1}', rule=rule)
    return created().begin().reply("", calls=(call,))


def test_a_rule_makes_a_call_wait_for_as_many_people_as_it_says() -> None:
    rule = ApprovalRule("se*", approvers_needed=2, expire_after_micros=HOUR)
    history = turn_with(rule)

    (asked,) = payloads(history, e.ApprovalRequested)
    assert (asked.rule, asked.approvers_needed, asked.expire_time_micros) == ("se*", 2, history.now + HOUR)
    assert history.state.status is ThreadState.WAITING_APPROVAL
    assert history.approve("call-1-1", "users/bob").startable == []
    assert history.approve("call-1-1", "users/cat").startable == ["call-1-1"]


def test_a_rule_for_every_tool_is_named_by_a_star_and_a_tools_own_need_by_nothing() -> None:
    (by_rule,) = payloads(turn_with(ANY), e.ApprovalRequested)
    (by_tool,) = payloads(turn_with(None, "pay"), e.ApprovalRequested)

    assert (by_rule.rule, by_tool.rule) == ("*", "")


def test_a_rule_that_needs_nobody_exempts_a_call_also_from_what_its_tool_asks_for() -> None:
    history = turn_with(NOBODY, "pay")

    assert payloads(history, e.ToolCallRequested)[0].verdict is Verdict.ALLOWED
    assert history.startable == ["call-1-1"]


def test_a_call_that_cannot_run_asks_nobody() -> None:
    call = ProposedCall("send", "{", "not JSON", rule=ANY)
    history = created().begin().reply("", calls=(call,))

    assert payloads(history, e.ApprovalRequested) == []


def decide(history: History, principal: str, decision: Decision) -> None:
    history.ask(
        s.Decide,
        approval_id="approval-call-1-1",
        decision=decision,
        principal=principal,
        arguments_digest=arguments_digest('{"n":1}'),
    )


def test_who_started_the_thread_may_not_approve_where_the_rule_says_so_but_may_reject() -> None:
    history = turn_with(ApprovalRule(approvers_needed=1, exclude_starter=True))

    refused = history.refusal(
        s.Decide,
        approval_id="approval-call-1-1",
        decision=Decision.APPROVE,
        principal="users/ann",
        arguments_digest=arguments_digest('{"n":1}'),
    )

    assert refused.reason is Reason.APPROVER_EXCLUDED
    assert refused.metadata == {"approval": "approval-call-1-1"}
    decide(history, "users/ann", Decision.REJECT)
    assert [payload.state for payload in payloads(history, e.ApprovalDecided)] == [ApprovalState.REJECTED]


def test_anybody_else_may_approve_what_the_starter_may_not() -> None:
    history = turn_with(ApprovalRule(approvers_needed=1, exclude_starter=True))

    decide(history, "users/bob", Decision.APPROVE)

    assert history.startable == ["call-1-1"]


def test_calls_of_one_turn_are_each_under_their_own_rule() -> None:
    history = created(spec()).begin()
    look, send = proposed("look", "send")
    history.ask(
        o.ModelReplied,
        call_id="model-1",
        attempt=1,
        calls=(look, ProposedCall(send.name, send.arguments_json, rule=ANY)),
    )

    assert history.state.status is ThreadState.RUNNING
    assert history.startable == ["call-1-1"]
