"""A sound history of a thread that people and another agent had a part in, and what breaks it."""

import json
from collections.abc import Callable
from typing import Any

from tests.faults import about_children as children
from tests.faults import about_people as people
from tests.faults.evidence import Acknowledged, Answered, Decided, History, Steered
from tests.faults.history import Invariant
from tests.faults.ledger import Line
from treadle import Action, Approval, Thread, ThreadEvent
from treadle.v1.iteration_pb2 import Iteration

BOSS, CHILD = "threads/boss", "threads/child"
APPROVAL = "approval-1"
PAID = '{"note":"boss/1/1"}'
CHANGED = '{"note":"boss/1/1/edited"}'
CALLS = {"pays": (PAID, "paid"), "asks": ("{}", "blue"), "delegates": ("{}", "well done")}
"""Arguments and results."""


def event(thread: str, payload: str, /, **fields: Any) -> ThreadEvent:
    made = ThreadEvent(thread=thread)
    its = getattr(made, payload)
    its.SetInParent()
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(its, name).extend(value)
        else:
            setattr(its, name, value)
    return made


def _boss() -> list[ThreadEvent]:
    """It was steered, asked a person, paid what another person changed, and called an agent."""
    steered = event(BOSS, "input_received")
    steered.input_received.content.text = "be quick"
    running = event(BOSS, "state_changed", to=Thread.RUNNING)
    setattr(running.state_changed, "from", Thread.PENDING)
    told = event(
        BOSS,
        "child_thread_ended",
        tool_call_id="delegates",
        child_thread=CHILD,
        state=Thread.COMPLETED,
        stop_reason=Thread.FINISHED,
    )
    told.child_thread_ended.output.text = "well done"
    return [
        event(BOSS, "thread_created"),
        steered,
        running,
        event(BOSS, "iteration_started", number=1, consumed_inputs=[2]),
        *(
            event(BOSS, "tool_call_requested", tool_call_id=call_id, arguments_json=arguments)
            for call_id, (arguments, _) in CALLS.items()
        ),
        event(
            BOSS,
            "approval_requested",
            approval_id=APPROVAL,
            tool_call_id="pays",
            arguments_json=PAID,
            kind=Approval.TOOL_CALL,
        ),
        event(
            BOSS,
            "approval_decided",
            approval_id=APPROVAL,
            state=Approval.APPROVED,
            edited_arguments_json=CHANGED,
        ),
        event(BOSS, "tool_call_started", tool_call_id="pays", attempt=1),
        event(BOSS, "child_thread_started", tool_call_id="delegates", child_thread=CHILD),
        told,
        *(
            event(
                BOSS,
                "tool_call_completed",
                tool_call_id=call_id,
                observation=result,
                status=Action.SUCCEEDED,
            )
            for call_id, (_, result) in CALLS.items()
        ),
        _end(BOSS, "done"),
    ]


def _child() -> list[ThreadEvent]:
    created = event(CHILD, "thread_created")
    created.thread_created.parent_call.tool_call_id = "delegates"
    running = event(CHILD, "state_changed", to=Thread.RUNNING)
    setattr(running.state_changed, "from", Thread.PENDING)
    return [created, running, _end(CHILD, "well done")]


def _end(thread: str, text: str) -> ThreadEvent:
    made = event(thread, "thread_ended", state=Thread.COMPLETED, stop_reason=Thread.FINISHED)
    made.thread_ended.output.text = text
    made.thread_ended.cost.known = True
    return made


def _shown(name: str, log: list[ThreadEvent], **fields: Any) -> Thread:
    thread = Thread(
        name=name,
        state=Thread.COMPLETED,
        stop_reason=Thread.FINISHED,
        success=True,
        last_sequence=len(log),
        **fields,
    )
    thread.output.CopyFrom(log[-1].thread_ended.output)
    thread.cost.known = True
    return thread


def add_people(history: History) -> History:
    """To a sound history, which stays one."""
    for name, log in ((BOSS, _boss()), (CHILD, _child())):
        for sequence, each in enumerate(log, start=1):
            each.sequence = sequence
        history.logs[name] = log
    boss = _shown(
        BOSS, history.logs[BOSS], iteration_count=1, actions_taken=3, iterations=[Iteration(number=1)]
    )
    for call_id, (arguments, result) in CALLS.items():
        action = boss.iterations[0].actions.add(tool_call_id=call_id, status=Action.SUCCEEDED)
        action.arguments_json, action.observation = arguments, result
    child = _shown(CHILD, history.logs[CHILD], parent_thread=BOSS)
    history.threads |= {BOSS: boss, CHILD: child}
    history.acknowledged.append(Acknowledged("boss", BOSS))
    history.ledger.append(Line("pay", "boss/1/1/edited", "pays", "key-boss", 1))
    history.steered.append(Steered(BOSS, "be quick"))
    history.answered.append(Answered(BOSS, "asks", "blue"))
    edited = json.loads(CHANGED)["note"]
    history.decided.append(Decided(BOSS, APPROVAL, Approval.APPROVED, edited))
    return history


def _of(history: History, kind: str) -> ThreadEvent:
    """The last event of a kind in the boss's log."""
    return [each for each in history.logs[BOSS] if each.HasField(kind)][-1]  # type: ignore[arg-type]


def pay_unasked(history: History) -> None:
    history.ledger.append(Line("pay", "boss/2/1", "pays-again", "key-9", 1))


def pay_with_the_arguments_of_before(history: History) -> None:
    history.ledger.append(Line("pay", "boss/1/1", "pays", "key-boss", 1))


def pay_what_was_rejected(history: History) -> None:
    _of(history, "approval_decided").approval_decided.state = Approval.REJECTED


def begin_before_the_approval(history: History) -> None:
    log = history.logs[BOSS]
    place = log.index(_of(history, "approval_decided"))
    log[place].sequence, log[place + 1].sequence = place + 2, place + 1
    log[place], log[place + 1] = log[place + 1], log[place]


def decide_twice(history: History) -> None:
    history.logs[BOSS].insert(-1, _of(history, "approval_decided"))


def never_decide(history: History) -> None:
    history.logs[BOSS].remove(_of(history, "approval_decided"))


def decide_otherwise(history: History) -> None:
    history.decided.append(Decided(BOSS, APPROVAL, Approval.REJECTED))


def lose_the_edit(history: History) -> None:
    _of(history, "approval_decided").approval_decided.edited_arguments_json = ""


def lose_an_input(history: History) -> None:
    history.logs[BOSS].remove(_of(history, "input_received"))


def take_an_input_twice(history: History) -> None:
    history.logs[BOSS].insert(-1, event(BOSS, "iteration_started", number=2, consumed_inputs=[2]))


def finish_without_an_input(history: History) -> None:
    del _of(history, "iteration_started").iteration_started.consumed_inputs[:]


def hear_something_else(history: History) -> None:
    history.answered[0] = Answered(BOSS, "asks", "green")


def start_a_second_child(history: History) -> None:
    history.threads["threads/twin"] = Thread(name="threads/twin", parent_thread=BOSS, state=Thread.COMPLETED)
    history.logs["threads/twin"] = history.logs[CHILD]


def name_a_child_that_is_not_there(history: History) -> None:
    del history.threads[CHILD]


def tell_an_end_twice(history: History) -> None:
    history.logs[BOSS].insert(-1, _of(history, "child_thread_ended"))


def tell_no_end(history: History) -> None:
    history.logs[BOSS].remove(_of(history, "child_thread_ended"))


def tell_another_end(history: History) -> None:
    _of(history, "child_thread_ended").child_thread_ended.state = Thread.FAILED


def leave_a_child_behind(history: History) -> None:
    history.threads[CHILD].state = Thread.RUNNING


BREAKS: tuple[tuple[Callable[[History], None], Invariant], ...] = (
    (pay_unasked, people.nothing_gated_happens_without_its_approval),
    (pay_with_the_arguments_of_before, people.nothing_gated_happens_without_its_approval),
    (pay_what_was_rejected, people.nothing_gated_happens_without_its_approval),
    (begin_before_the_approval, people.nothing_gated_happens_without_its_approval),
    (decide_twice, people.approvals_are_decided_once),
    (never_decide, people.approvals_are_decided_once),
    (decide_otherwise, people.acknowledged_decisions_are_in_the_log),
    (lose_the_edit, people.acknowledged_decisions_are_in_the_log),
    (lose_an_input, people.acknowledged_inputs_are_taken_once),
    (take_an_input_twice, people.acknowledged_inputs_are_taken_once),
    (finish_without_an_input, people.acknowledged_inputs_are_taken_once),
    (hear_something_else, people.acknowledged_answers_are_the_results),
    (start_a_second_child, children.a_call_of_an_agent_has_one_thread),
    (name_a_child_that_is_not_there, children.a_call_of_an_agent_has_one_thread),
    (tell_an_end_twice, children.the_end_of_a_child_reaches_its_parent_once),
    (tell_no_end, children.the_end_of_a_child_reaches_its_parent_once),
    (tell_another_end, children.the_end_of_a_child_reaches_its_parent_once),
    (leave_a_child_behind, children.no_child_outlives_its_parent),
)
"""What breaks an invariant, each with the one."""
