"""Agents that call agents: what the calling thread records, waits for and passes on."""

from typing import Any

import pytest

from tests.core.histories import COST, REFERENCE, SECOND, USAGE, History, names, payloads, spec, tool
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.accept import Ask, advance
from treadle_server.core.commands import CallAgent
from treadle_server.core.draft import Draft
from treadle_server.core.errors import Reason
from treadle_server.core.kinds import CallStatus, Effect, StopReason, ThreadState
from treadle_server.core.mail import Letter
from treadle_server.core.spec import Limits
from treadle_server.core.values import Content, Cost, Fault, Usage

EXPERT = tool("expert", Effect.IDEMPOTENT, attempts_max=3, agent_version="agents/expert/versions/2")
TOOLS = (EXPERT, tool("look"), tool("pay", Effect.AT_MOST_ONCE, approvers_needed=1))
CALL = "call-1-1"


def calling(*tools: str, **limits: Any) -> History:
    """A thread whose model has called these, and whose calls have begun."""
    history = History(spec(tools=TOOLS, limits=Limits(**limits))).create()
    return history.turn("I ask.", *(tools or ("expert",))).begin()


def child_of(call_id: str) -> str:
    return f"threads/child-of-{call_id}"


def started(history: History, *call_ids: str) -> History:
    for call_id in call_ids or (CALL,):
        attempt = history.state.calls[call_id].attempt
        history.ask(
            o.ChildStarted,
            call_id=call_id,
            attempt=attempt,
            child_thread=child_of(call_id),
            agent_version="agents/expert/versions/2",
        )
    return history


def answer(call_id: str = CALL, state: ThreadState = ThreadState.COMPLETED, **fields: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "call_id": call_id,
        "agent_version": "agents/expert/versions/2",
        "state": state,
        "stop_reason": StopReason.FINISHED,
        "output": Content("42"),
        "usage": USAGE,
        "cost": COST,
        "child_thread": child_of(call_id),
    }
    return {**given, **fields}


def ended(history: History, call_id: str = CALL, **fields: Any) -> History:
    history.ask(o.ChildEnded, **answer(call_id, **fields))
    return history


def letters(history: History, kind: Any, **fields: Any) -> list[Letter]:
    """What an ask makes the thread tell others."""
    history.now += SECOND
    ask: Ask = kind(history.now, **fields)
    draft = advance(history.state, ask)
    assert isinstance(draft, Draft)
    history.take(ask)
    return draft.letters


def child(history: History | None = None) -> History:
    """A thread that is the child of another."""
    history = history or History()
    history.ask(
        s.Create,
        spec=REFERENCE,
        input=Content("do it"),
        parent_thread="threads/boss",
        parent_call=e.ParentCall("call-3-1", 1),
    )
    return history


def test_a_call_of_an_agent_is_a_command_of_its_own() -> None:
    history = History(spec(tools=TOOLS)).create().turn("", "expert")

    (command,) = history.wanted

    assert isinstance(command, CallAgent)
    assert (command.agent_version, command.arguments_json) == ("agents/expert/versions/2", '{"n":1}')


def test_a_thread_that_waits_for_a_child_runs_and_wants_nothing() -> None:
    history = started(calling())

    assert history.state.status is ThreadState.RUNNING
    assert not history.state.in_flight
    assert history.wanted == frozenset()
    assert [call.child_thread for call in history.state.children] == [child_of(CALL)]


def test_the_answer_of_a_child_is_the_result_of_its_call() -> None:
    history = started(calling())

    made = history.ask(o.ChildEnded, **answer())

    assert names(*made) == "ChildThreadEnded ToolCallCompleted"
    (completed,) = payloads(history, e.ToolCallCompleted)
    assert (completed.status, completed.observation) == (CallStatus.SUCCEEDED, "42")
    assert completed.duration_micros == SECOND
    assert history.startable == ["model-2"]


def test_a_child_may_end_before_it_is_recorded_that_it_began() -> None:
    history = calling()

    made = history.ask(o.ChildEnded, **answer())
    refused = history.refusal(
        o.ChildStarted, call_id=CALL, attempt=1, child_thread=child_of(CALL), agent_version="x"
    )

    assert names(*made) == "ChildThreadStarted ChildThreadEnded ToolCallCompleted"
    assert refused.reason is Reason.THREAD_STATE_CONFLICT


def test_the_same_answer_counts_once() -> None:
    history = ended(started(calling()))

    assert history.refusal(o.ChildEnded, **answer()).reason is Reason.THREAD_STATE_CONFLICT


def test_the_answer_of_another_thread_is_not_taken() -> None:
    history = started(calling())

    refused = history.refusal(o.ChildEnded, **answer(child_thread="threads/other"))

    assert refused.reason is Reason.THREAD_STATE_CONFLICT


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (ThreadState.FAILED, CallStatus.FAILED),
        (ThreadState.CANCELLED, CallStatus.CANCELLED),
        (ThreadState.TIMED_OUT, CallStatus.TIMED_OUT),
    ],
)
def test_a_child_that_did_not_complete_says_why(state: ThreadState, status: CallStatus) -> None:
    history = started(calling())

    ended(history, state=state, stop_reason=StopReason.MAX_TOKENS, error=Fault(8, "too much to read"))

    (completed,) = payloads(history, e.ToolCallCompleted)
    assert completed.status is status
    assert completed.observation == (
        f"The agent ended {state.name} (MAX_TOKENS): too much to read. What there was of its answer: 42"
    )


def test_a_call_that_was_interrupted_begins_again() -> None:
    history = calling().crash()

    (command,) = history.wanted

    assert (command.call_id, command.attempt, command.begun) == (CALL, 2, False)


def test_a_crash_while_children_work_changes_nothing() -> None:
    history = started(calling())

    assert history.refusal(o.Recovered, epoch=2).reason is Reason.THREAD_STATE_CONFLICT
    assert history.state.steps_in_flight == frozenset()


def test_children_work_beside_other_tools_and_approvals() -> None:
    history = calling("expert", "look", "pay")
    started(history).tool("call-1-2").approve("call-1-3")

    history.begin().tool("call-1-3")

    assert history.state.status is ThreadState.RUNNING
    assert ended(history).startable == ["model-2"]


def test_an_open_approval_shows_only_when_no_child_works() -> None:
    history = started(calling("expert", "pay"))
    before = history.state.status

    ended(history)

    assert (before, history.state.status) == (ThreadState.RUNNING, ThreadState.WAITING_APPROVAL)


def test_no_more_children_than_allowed_live_at_one_time() -> None:
    history = calling("expert", "expert", "expert", max_children=2)
    begun = history.in_flight

    started(history, "call-1-1", "call-1-2")
    full = history.startable
    ended(history, "call-1-2")

    assert (begun, full, history.startable) == (["call-1-1", "call-1-2"], [], ["call-1-3"])


def test_an_agent_as_deep_as_allowed_calls_no_other() -> None:
    history = child(History(spec(tools=TOOLS, limits=Limits(max_depth=1))))

    history.turn("", "expert")

    (completed,) = payloads(history, e.ToolCallCompleted)
    assert completed.status is CallStatus.INVALID
    assert completed.observation == (
        "agents are called at most 1 deep, and this is as deep: do it without expert"
    )


def test_what_children_used_is_counted_once() -> None:
    history = calling("expert", "expert")
    started(history, "call-1-1", "call-1-2")

    ended(ended(history, "call-1-1"), "call-1-2", cost=Cost(7, known=False))

    assert history.state.children_usage == USAGE.plus(USAGE)
    assert history.state.children_cost == Cost(COST.cost_micros + 7, known=False)
    assert history.state.usage == USAGE


def test_an_end_is_told_to_the_parent_with_what_the_whole_tree_used() -> None:
    history = child(History(spec(tools=TOOLS))).turn("", "expert").begin()
    ended(started(history)).begin()

    told = letters(history, o.ModelReplied, call_id="model-2", attempt=1, text="43", usage=USAGE, cost=COST)

    (letter,) = told
    assert letter.thread == "threads/boss"
    assert letter.ask == o.ChildEnded(
        history.now,
        "call-3-1",
        "agents/a/versions/1",
        ThreadState.COMPLETED,
        StopReason.FINISHED,
        Content("43"),
        usage=Usage(30, 6, 15, 3, 45),
        cost=Cost(300),
    )


def test_a_thread_that_nobody_called_tells_nobody() -> None:
    history = History().create().begin()

    assert letters(history, o.ModelReplied, call_id="model-1", attempt=1, text="43") == []


def test_pause_and_resume_are_passed_on() -> None:
    history = started(calling())

    pausing = letters(history, s.Pause, principal="users/ann", reason="wait")
    paused = history.state.status
    resuming = letters(history, s.Resume)

    assert [(letter.call_id, type(letter.ask)) for letter in pausing] == [(CALL, s.Pause)]
    assert (paused, history.state.status) == (ThreadState.PAUSED, ThreadState.RUNNING)
    assert [(letter.call_id, type(letter.ask)) for letter in resuming] == [(CALL, s.Resume)]


def test_an_answer_is_stored_while_the_thread_is_paused() -> None:
    history = started(calling())
    history.ask(s.Pause)

    ended(history)

    assert history.state.status is ThreadState.PAUSED
    history.ask(s.Resume)
    assert history.startable == ["model-2"]


@pytest.mark.parametrize(
    ("control", "fields"),
    [(s.Cancel, {"grace_micros": 10 * SECOND}), (s.Complete, {"state": ThreadState.COMPLETED})],
)
def test_who_is_to_end_stops_its_children_and_waits_for_them(control: Any, fields: dict[str, Any]) -> None:
    history = started(calling("expert", "expert"), "call-1-1", "call-1-2")

    told = letters(history, control, **fields)
    ended(history, "call-1-1", state=ThreadState.CANCELLED)
    waits = history.state.ended
    ended(history, "call-1-2", state=ThreadState.CANCELLED)

    grace = fields.get("grace_micros", s.GRACE_MICROS)
    asks = [letter.ask for letter in told]
    assert [letter.call_id for letter in told] == ["call-1-1", "call-1-2"]
    assert all(isinstance(ask, s.Cancel) and ask.stop_reason is StopReason.PARENT_ENDED for ask in asks)
    assert all(isinstance(ask, s.Cancel) and ask.grace_micros < grace for ask in asks)
    assert (waits, history.state.ended) == (False, True)


def test_who_is_to_end_waits_for_children_no_longer_than_its_grace() -> None:
    history = started(calling())
    history.ask(s.Cancel, grace_micros=3 * SECOND)

    history.due()

    (completed,) = payloads(history, e.ToolCallCompleted)
    assert (history.state.status, completed.status) == (ThreadState.CANCELLED, CallStatus.ABANDONED)
    assert not history.state.children_cost.known


def test_a_child_that_is_being_made_is_stopped_by_the_cancel_of_its_parent() -> None:
    history = calling()
    history.ask(s.Cancel, grace_micros=5 * SECOND)

    told = letters(
        history, o.ChildStarted, call_id=CALL, attempt=1, child_thread=child_of(CALL), agent_version="x"
    )

    (letter,) = told
    assert isinstance(letter.ask, s.Cancel)
    assert letter.ask.grace_micros == 4 * SECOND * 4 // 5  # of what is left


def test_a_child_that_is_being_made_is_paused_by_the_pause_of_its_parent() -> None:
    history = calling()
    history.ask(s.Pause)

    told = letters(
        history, o.ChildStarted, call_id=CALL, attempt=1, child_thread=child_of(CALL), agent_version="x"
    )

    assert [type(letter.ask) for letter in told] == [s.Pause]
    assert history.state.status is ThreadState.PAUSED


def test_a_start_that_is_broken_off_may_have_made_a_child_which_is_stopped() -> None:
    history = calling()
    history.ask(s.Cancel)

    told = letters(history, o.Aborted, call_id=CALL, attempt=1)

    assert [(letter.call_id, type(letter.ask)) for letter in told] == [(CALL, s.Cancel)]
    assert not history.state.children_cost.known


def test_children_end_with_a_thread_whose_time_is_over() -> None:
    history = started(calling(timeout_micros=60 * SECOND))

    history.now += 3_600 * SECOND
    told = letters(history, s.Due)

    assert history.state.status is ThreadState.TIMED_OUT
    assert [(letter.call_id, type(letter.ask)) for letter in told] == [(CALL, s.Cancel)]


def test_a_call_that_could_not_be_made_costs_nothing_unknown() -> None:
    history = calling()

    history.tool_fails(CALL, retryable=False)

    (completed,) = payloads(history, e.ToolCallCompleted)
    assert completed.status is CallStatus.FAILED
    assert history.state.children_cost == Cost()


def test_an_answer_that_is_too_long_is_cut_for_the_model_only() -> None:
    short = tool("expert", Effect.IDEMPOTENT, agent_version="agents/expert/versions/2", output_bytes_max=100)
    history = History(spec(tools=(short,))).create().turn("", "expert").begin()

    ended(started(history), output=Content("x" * 1_000))

    (completed,) = payloads(history, e.ToolCallCompleted)
    (over,) = payloads(history, e.ChildThreadEnded)
    assert len(completed.observation.encode()) <= 100
    assert over.output == Content("x" * 1_000)
