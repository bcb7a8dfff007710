"""The second table of the API page, "States": every control in every situation of a thread."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.core.histories import SECOND, SITUATIONS, History, created, names
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.accept import Ask, accept
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import TERMINAL, Control, Decision, ThreadState
from treadle_server.core.policy import arguments_digest
from treadle_server.core.transitions import Reaction, Row, reaction
from treadle_server.core.values import Content

# The page's table, a line for each situation instead of a column for each state. In capitals: the state that
# it goes to at once. `s`: the state that the caller gave. `pending`: accepted, carried out once nothing is in
# flight. `stored`: recorded, the state stays. `ok`: accepted, and nothing happens. `decided`: refused with
# APPROVAL_ALREADY_DECIDED.
PAGE = """
                      |Pause   |Resume           |Cancel    |Complete |answer  |steer   |result  |Decide
pending               |PAUSED  |ok               |CANCELLED |s        |refused |stored  |refused |refused
model in flight       |pending |ok               |pending   |pending  |refused |stored  |refused |decided
model waits to retry  |PAUSED  |ok               |CANCELLED |s        |refused |stored  |refused |decided
tools in flight       |pending |ok               |pending   |pending  |stored  |stored  |stored  |stored
between steps         |PAUSED  |ok               |CANCELLED |s        |refused |stored  |refused |decided
pausing               |ok      |stored           |pending   |pending  |refused |stored  |refused |decided
cancelling            |refused |refused          |ok        |refused  |refused |refused |refused |refused
waits for approval    |PAUSED  |ok               |CANCELLED |s        |refused |stored  |refused |RUNNING
waits for both        |PAUSED  |ok               |CANCELLED |s        |stored  |stored  |refused |RUNNING
waits for an answer   |PAUSED  |ok               |CANCELLED |s        |RUNNING |stored  |refused |decided
waits for the client  |PAUSED  |ok               |CANCELLED |s        |refused |stored  |RUNNING |decided
paused at first       |ok      |PENDING          |CANCELLED |s        |refused |stored  |refused |decided
paused between steps  |ok      |RUNNING          |CANCELLED |s        |refused |stored  |refused |decided
paused for approval   |ok      |WAITING_APPROVAL |CANCELLED |s        |refused |stored  |refused |stored
paused for an answer  |ok      |WAITING_INPUT    |CANCELLED |s        |stored  |stored  |refused |decided
paused for the client |ok      |WAITING_INPUT    |CANCELLED |s        |refused |stored  |stored  |decided
completed             |refused |refused          |refused   |refused  |refused |refused |refused |decided
failed                |refused |refused          |refused   |refused  |refused |refused |refused |decided
cancelled             |refused |refused          |ok        |refused  |refused |refused |refused |decided
timed out             |refused |refused          |refused   |refused  |refused |refused |refused |decided
"""
CONTROLS, *LINES = ([cell.strip() for cell in line.split("|")] for line in PAGE.strip("\n").splitlines())
CELLS = [
    (line[0], control, cell) for line in LINES for control, cell in zip(CONTROLS[1:], line[1:], strict=True)
]
# What is recorded when a control does something, before what follows from it.
RECORDED = {
    "Pause": "ControlRequested",
    "Resume": "ControlRequested",
    "Cancel": "ControlRequested",
    "Complete": "ControlRequested",
    "answer": "InputReceived ToolCallCompleted",
    "steer": "InputReceived",
    "result": "ToolCallCompleted",
    "Decide": "ApprovalVoteRecorded ApprovalDecided",
}
# What may be asked instead, by the page. Conditions that hang on more than the state are left to the answer.
LIVE = "PAUSE RESUME CANCEL COMPLETE ANSWER STEER TOOL_RESULT DECIDE FORK"
ALLOWED = {
    "PENDING": "PAUSE RESUME CANCEL COMPLETE STEER FORK",
    "RUNNING": LIVE,
    "WAITING_APPROVAL": LIVE,
    "WAITING_INPUT": LIVE,
    "PAUSED": LIVE,
    "COMPLETED": "FORK RETRY",
    "FAILED": "FORK RETRY",
    "CANCELLED": "FORK RETRY",
    "TIMED_OUT": "FORK RETRY",
}
# What a refusal calls them.
ASKING = {
    "Pause": "pausing",
    "Resume": "resuming",
    "Cancel": "cancelling",
    "Complete": "completing",
    "answer": "answering {call}",
    "steer": "sending input",
    "result": "submitting a result of {call}",
    "Decide": "deciding",
}
OUTPUT = Content("the caller's own")


def call_of(history: History, tool: str) -> str:
    """The call of a tool, or one that is of another."""
    calls = {call.name: call.call_id for call in history.state.calls.values()}
    return calls.get(tool, next(iter(calls.values()), "call-1-1"))


def ask_of(control: str, history: History, end_state: ThreadState = ThreadState.FAILED) -> Ask:
    """The control, asked as well as the situation lets it be asked."""
    now = history.now + SECOND
    approved = call_of(history, "pay")
    asks: dict[str, Ask] = {
        "Pause": s.Pause(now, "users/ann", "lunch"),
        "Resume": s.Resume(now, "users/ann", "back"),
        "Cancel": s.Cancel(now, "users/ann", "enough"),
        "Complete": s.Complete(now, end_state, OUTPUT, "users/ann", "good enough"),
        "answer": s.SendInput(now, Content("yes"), call_of(history, "ask")),
        "steer": s.SendInput(now, Content("shorter")),
        "result": s.SubmitToolResult(now, call_of(history, "open_file"), "text"),
        "Decide": s.Decide(
            now,
            f"approval-{approved}",
            Decision.APPROVE,
            "users/bob",
            arguments_digest('{"n":1}' if approved == "call-1-1" else '{"n":3}'),
        ),
    }
    return asks[control]


def check_refused(history: History, refused: object, what: str) -> None:
    state = history.state
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.THREAD_STATE_CONFLICT
    during = f"{state.status.name} with CANCEL pending" if state.ending else state.status.name
    possible = "CANCEL FORK" if state.ending else ALLOWED[state.status.name]
    if what.startswith(("answering", "submitting")) and "ANSWER" in possible:
        assert refused.message.startswith(f"tool_call_id: {what.split()[-1]} is no open ")
    else:
        those = possible.replace(" ", ", ")
        assert refused.message == f"{what} is not possible while the thread is {during}; possible are {those}"
    assert refused.metadata == {"current_state": state.status.name, "allowed": possible.replace(" ", ",")}


def check_recorded(history: History, control: str, made: object, then: str) -> None:
    """It recorded what the control records, then at most a change of state; everything else was kept."""
    assert isinstance(made, tuple)
    assert names(*made) == " ".join([RECORDED[control], then]).strip()


@pytest.mark.parametrize(("situation", "control", "cell"), CELLS)
def test_a_control_does_what_the_page_says(situation: str, control: str, cell: str) -> None:
    history = SITUATIONS[situation]()
    before, shown = history.state, repr(history.state)

    ask = ask_of(control, history)

    made = accept(before, ask)

    assert repr(before) == shown
    if cell == "refused":
        check_refused(history, made, ASKING[control].format(call=getattr(ask, "tool_call_id", "")))
    elif cell == "decided":
        assert isinstance(made, Refused)
        assert made.reason is Reason.APPROVAL_ALREADY_DECIDED
    elif cell == "ok":
        assert made == ()
    elif cell in ("stored", "pending"):
        check_recorded(history, control, made, "")
        history.take(ask_of(control, history))
        assert history.state.status is before.status
    elif cell in ("s", "CANCELLED"):
        history.take(ask_of(control, history))
        assert names(history.events[before.sequence]) == "ControlRequested"
        assert names(history.events[-1]) == "ThreadEnded"
        assert history.state.status.name == cell.replace("s", "FAILED")
    else:
        check_recorded(history, control, made, "StateChanged")
        history.take(ask_of(control, history))
        assert history.state.status.name == cell


@pytest.mark.parametrize(
    ("situation", "control"),
    [
        (situation, control)
        for situation, control, cell in CELLS
        if RECORDED[control] == "ControlRequested" and cell not in ("ok", "refused")
    ],
)
def test_a_control_is_recorded_with_who_asked_and_why(situation: str, control: str) -> None:
    history = SITUATIONS[situation]()
    before, ask = history.state.sequence, ask_of(control, history)

    history.take(ask)

    recorded = history.events[before].payload
    assert isinstance(recorded, e.ControlRequested)
    assert isinstance(ask, s.Pause | s.Resume | s.Cancel | s.Complete)
    assert recorded.command.name == control.upper()
    assert (recorded.principal, recorded.reason) == ("users/ann", ask.reason)


def test_the_table_covers_every_situation_once() -> None:
    assert [line[0] for line in LINES] == list(SITUATIONS)


@pytest.mark.parametrize("end_state", sorted(TERMINAL))
@pytest.mark.parametrize("situation", [line[0] for line in LINES if line[4] == "s"])
def test_complete_ends_in_the_state_and_with_the_output_of_the_caller(
    situation: str, end_state: ThreadState
) -> None:
    history = SITUATIONS[situation]()

    history.take(ask_of("Complete", history, end_state))

    assert (history.state.status, history.state.output) == (end_state, OUTPUT)
    timed_out = end_state is ThreadState.TIMED_OUT
    assert history.state.stop_reason.name == ("DEADLINE" if timed_out else "COMPLETED_BY_CALLER")


@pytest.mark.parametrize(
    ("control", "command"),
    [("Pause", Control.PAUSE), ("Cancel", Control.CANCEL), ("Complete", Control.COMPLETE)],
)
@pytest.mark.parametrize("situation", ["model in flight", "tools in flight"])
def test_a_pending_control_is_carried_out_once_nothing_is_in_flight(
    situation: str, control: str, command: Control
) -> None:
    history = SITUATIONS[situation]()
    history.take(ask_of(control, history))
    assert history.state.pending is not None
    assert history.state.pending.command is command
    assert history.startable == []

    history.crash()

    assert history.state.pending is None
    expected = {"Pause": "PAUSED", "Cancel": "CANCELLED", "Complete": "FAILED"}[control]
    assert history.state.status.name == expected


def test_an_attempt_that_waits_does_not_begin_while_a_pause_is_pending() -> None:
    history = created().turn("", "look", "send").begin().tool_fails("call-1-1")

    history.ask(s.Pause)

    assert (history.startable, history.in_flight) == ([], ["call-1-2"])


def test_resume_withdraws_a_pending_pause() -> None:
    history = SITUATIONS["pausing"]()

    history.ask(s.Resume)

    assert history.state.pending is None
    assert history.reply("", "look").startable == ["call-1-1"]


@pytest.mark.parametrize("control", ["Cancel", "Complete"])
def test_a_pending_pause_gives_way_to_an_end(control: str) -> None:
    history = SITUATIONS["pausing"]()

    history.take(ask_of(control, history))

    assert history.reply("too late").state.ended


def test_a_pending_end_is_not_replaced_by_another() -> None:
    history = SITUATIONS["model in flight"]()
    complete = ask_of("Complete", history)
    assert isinstance(complete, s.Complete)
    history.take(complete)

    assert accept(history.state, complete) == ()
    for other, what in (
        (replace(complete, state=ThreadState.COMPLETED), "completing"),
        (replace(complete, output=None), "completing"),
        (ask_of("Cancel", history), "cancelling"),
    ):
        refused = accept(history.state, other)
        assert isinstance(refused, Refused)
        assert refused.message == (
            f"{what} is not possible while the thread is RUNNING with COMPLETE pending; "
            "possible are COMPLETE, FORK"
        )
        assert refused.metadata == {"current_state": "RUNNING", "allowed": "COMPLETE,FORK"}


@pytest.mark.parametrize("situation", ["completed", "failed", "cancelled", "timed out"])
def test_complete_is_ok_for_a_thread_that_ended_so_and_refused_otherwise(situation: str) -> None:
    history = SITUATIONS[situation]()
    state = history.state
    same = s.Complete(history.now, state.status, state.output)

    assert accept(state, same) == ()
    assert accept(state, replace(same, output=None)) == ()
    check_refused(history, accept(state, replace(same, output=Content("another"))), "completing")
    for other in TERMINAL - {state.status}:
        check_refused(history, accept(state, replace(same, state=other)), "completing")


@pytest.mark.parametrize("state", [state for state in ThreadState if state is not ThreadState.UNSPECIFIED])
def test_fork_is_always_possible_and_retry_of_an_ended_thread_only(state: ThreadState) -> None:
    assert reaction(Row.FORK, state) is Reaction.MAKE
    assert reaction(Row.RETRY, state) is (Reaction.MAKE if state in TERMINAL else Reaction.REFUSE)


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda now: s.SendInput(now, Content("yes"), "call-1-9"), "answering call-1-9"),
        (lambda now: s.SubmitToolResult(now, "call-1-9", "text"), "submitting a result of call-1-9"),
        (lambda now: s.SubmitToolResult(now, "call-1-4", "text"), "submitting a result of call-1-4"),
        (lambda now: s.SendInput(now, Content("yes"), "call-1-5"), "answering call-1-5"),
        (lambda now: s.SendInput(now, Content("yes"), "call-1-1"), "answering call-1-1"),
    ],
    ids=["no such question", "no such call", "a question", "a client's call", "a call of the server"],
)
def test_what_is_not_open_cannot_be_settled(ask: Callable[[int], Ask], what: str) -> None:
    history = SITUATIONS["tools in flight"]()

    check_refused(history, accept(history.state, ask(history.now)), what)


@pytest.mark.parametrize("control", CONTROLS[1:])
def test_a_thread_that_was_never_created_does_not_exist(control: str) -> None:
    refused = accept(History().state, ask_of(control, History()))

    assert isinstance(refused, Refused)
    assert refused.reason is Reason.RESOURCE_NOT_FOUND
    assert refused.message == "the thread does not exist"


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_thread_is_created_once(situation: str) -> None:
    history = SITUATIONS[situation]()

    refused = accept(history.state, s.Create(history.now, history.state.origin.spec, Content("again")))  # type: ignore[union-attr]

    check_refused(history, refused, "creating")
