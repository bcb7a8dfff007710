"""How a run is told: plain lines on a pipe, with a live region on a terminal, or JSON."""

from __future__ import annotations

import io
import json
import re
from datetime import timedelta

import pytest
from google.protobuf.json_format import Parse
from google.rpc.status_pb2 import Status
from rich.console import Console

from tests.client.runs import calculation, created, ended, numbered, piece
from treadle import figures
from treadle.transcript import Transcript
from treadle.v1 import event_pb2 as events
from treadle.v1.approval_pb2 import Approval
from treadle.v1.content_pb2 import Content
from treadle.v1.event_pb2 import ThreadEvent
from treadle.v1.iteration_pb2 import Action
from treadle.v1.thread_pb2 import Task, Thread
from treadle.v1.usage_pb2 import Cost, Usage
from treadle.view import JsonView, LiveView, Streaming

CALCULATION = """\
threads/t1  agents/helper/versions/1  demo:react
> What is 2+2?
Iteration 1
  I must add.
  100 tokens in (40 cached), 20 + 5 thinking out, 0.00025 USD
  calculator {"expression":"2+2"}
  calculator → 4  (SUCCEEDED, 12 ms)
Iteration 2
  It is 4.
COMPLETED (FINISHED), 2 iterations, 1 tool call, 6.5 s, 1,234 tokens in, 56 out, 0.0015 USD
"""


def told(*happened: ThreadEvent) -> list[str]:
    transcript = Transcript()
    return [line.text for event in numbered(*happened) for line in transcript.lines(event)]


def region(*happened: ThreadEvent, height: int = 40) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=height, color_system=None)
    streaming, transcript = Streaming(), Transcript()
    for event in happened:
        transcript.lines(event)
        streaming.take(event, transcript)
    with console.capture() as capture:
        console.print(streaming.region(console))
    return capture.get()


def test_a_run_on_a_pipe_is_plain_lines() -> None:
    out = io.StringIO()

    with LiveView(Console(file=out)) as view:
        for event in calculation():
            view.show(event)

    assert out.getvalue() == CALCULATION


def test_a_run_on_a_terminal_ends_with_the_same_lines() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None, legacy_windows=False)

    with LiveView(console) as view:
        for event in calculation():
            view.show(event)

    shown = [line.rstrip() for line in _visible(out.getvalue()).splitlines()]
    for line in CALCULATION.splitlines():
        assert line in shown


def test_threads_told_together_say_whose_turn_it_is_and_count_for_themselves() -> None:
    out = io.StringIO()
    mine, other = calculation(), calculation()
    for event in other:
        event.thread = "threads/t2"

    with LiveView(Console(file=out)) as view:
        for event in (*mine[:4], *other, *mine[4:]):
            view.show(event)

    lines, theirs = CALCULATION.splitlines(), CALCULATION.replace("/t1", "/t2").splitlines()
    assert out.getvalue().splitlines() == [*lines[:3], *theirs, "threads/t1", *lines[3:]]


def test_json_is_one_event_a_line() -> None:
    out = io.StringIO()

    with JsonView(Console(file=out)) as view:
        for event in calculation():
            view.show(event)

    lines = out.getvalue().splitlines()
    assert [Parse(line, ThreadEvent()) for line in lines] == calculation()
    assert json.loads(lines[0])["threadCreated"]["spec"]["model"] == "demo:react"


def test_what_is_streamed_is_shown_until_it_is_complete() -> None:
    pieces = (piece("It ", 0), piece("is 4", 3))

    assert "It is 4" in region(*pieces)
    assert "It is 4" not in region(
        *pieces, ThreadEvent(message_completed=events.MessageCompleted(text="It is 4."))
    )


def test_a_new_attempt_replaces_what_was_streamed() -> None:
    shown = region(piece("It is five", 0), piece("It is 4", 0, attempt=2), piece("late", 10, attempt=1))

    assert shown.strip() == "It is 4"


def test_a_long_stream_shows_its_newest_lines() -> None:
    text = "\n".join(f"line {number}" for number in range(100))

    shown = region(piece(text, 0), height=20).split("\n")

    assert "line 99" in shown[-2]
    assert len(shown) <= 12


def test_running_tools_are_shown_with_their_progress() -> None:
    asked = ThreadEvent(tool_call_requested=events.ToolCallRequested(tool_call_id="c", tool="search"))
    started = ThreadEvent(tool_call_started=events.ToolCallStarted(tool_call_id="c"))
    progress = ThreadEvent(
        tool_call_progress=events.ToolCallProgress(tool_call_id="c", message="page 2\nof 7")
    )
    completed = ThreadEvent(tool_call_completed=events.ToolCallCompleted(tool_call_id="c"))

    assert "search" in region(asked, started)
    assert "search  page 2 of 7" in region(asked, started, progress)
    assert "search" not in region(asked, started, progress, completed)


def test_what_a_model_writes_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2Jgone\x1b]0;title\x07 \u202eabc\r[red]markup[/red]"
    out = io.StringIO()

    with LiveView(Console(file=out, force_terminal=True, width=200, color_system=None)) as view:
        view.show(ThreadEvent(message_completed=events.MessageCompleted(text=evil)))

    shown = out.getvalue()
    assert "\\u001b[2Jgone\\u001b]0;title\\u0007 \\u202eabc\\u000d[red]markup[/red]" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b[2J" not in region(piece(evil, 0))


def test_a_log_begun_in_its_middle_is_told_as_far_as_it_is_known() -> None:
    done = events.ToolCallCompleted(tool_call_id="call-7", status=Action.FAILED, observation="no such page")

    lines = told(
        ThreadEvent(tool_call_completed=done), ended(Thread.FAILED, Thread.MODEL_ERROR, error="quota")
    )

    assert lines == [
        "call-7 → no such page  (FAILED)",
        "quota",
        "FAILED (MODEL_ERROR), 1,234 tokens in, 56 out, 0.0015 USD",
    ]


def test_an_answer_that_no_message_held_is_told_at_the_end() -> None:
    assert '{"n":4}' in told(ended(data_json='{"n":4}'))
    assert "stopped early" in told(ended(Thread.CANCELLED, Thread.CANCELLED_BY_CALLER, text="stopped early"))


def test_an_event_that_only_newer_servers_know_is_skipped() -> None:
    assert told(ThreadEvent()) == []


def test_values_that_only_newer_servers_know_are_told_by_number() -> None:
    newer = ThreadEvent.FromString(
        ThreadEvent(state_changed=events.StateChanged(to=77)).SerializeToString()  # type: ignore[arg-type]
    )

    assert told(newer) == ["77"]


def _failure(message: str) -> Status:
    return Status(code=2, message=message)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ThreadEvent(state_changed=events.StateChanged(to=Thread.WAITING_INPUT)), "WAITING_INPUT"),
        (
            ThreadEvent(
                control_requested=events.ControlRequested(
                    command=Thread.CANCEL, principal="ann", reason="enough"
                )
            ),
            "CANCEL asked by ann: enough",
        ),
        (
            ThreadEvent(input_received=events.InputReceived(content=Content(data_json='{"a":1}'))),
            '> {"a":1}',
        ),
        (
            ThreadEvent(model_call_failed=events.ModelCallFailed(attempt=1, error=_failure("overloaded"))),
            "model call failed, attempt 1: overloaded",
        ),
        (ThreadEvent(output_rejected=events.OutputRejected(problem="no JSON")), "turn not taken: no JSON"),
        (
            ThreadEvent(
                tool_call_requested=events.ToolCallRequested(
                    tool="pay", arguments_json="{}", verdict=events.ToolCallRequested.NEEDS_APPROVAL
                )
            ),
            "pay {}  needs approval",
        ),
        (
            ThreadEvent(tool_attempt_failed=events.ToolAttemptFailed(tool_call_id="c", attempt=1)),
            "c attempt 1 failed: ; again in <1 ms",
        ),
        (
            ThreadEvent(
                approval_requested=events.ApprovalRequested(
                    approval_id="a1", tool="pay", arguments_json='{"eur":5}'
                )
            ),
            'waits for approval: pay {"eur":5}  threads/t1/approvals/a1',
        ),
        (
            ThreadEvent(
                approval_vote_recorded=events.ApprovalVoteRecorded(
                    principal="ann", decision=Approval.REJECT, message="too dear"
                )
            ),
            "ann answered REJECT: too dear",
        ),
        (
            ThreadEvent(approval_decided=events.ApprovalDecided(approval_id="a1", state=Approval.EXPIRED)),
            "approval a1 EXPIRED",
        ),
        (
            ThreadEvent(question_asked=events.QuestionAsked(question="Which one?", tool_call_id="c")),
            "asks: Which one?  (call c)",
        ),
        (
            ThreadEvent(budget_alert=events.BudgetAlert(budget="budgets/b", threshold_percent=80)),
            "budgets/b is used up to 80 %",
        ),
        (
            ThreadEvent(suggestions_offered=events.SuggestionsOffered(suggestions=["And 3+3?"])),
            "suggests: And 3+3?",
        ),
        (
            ThreadEvent(tasks_updated=events.TasksUpdated(tasks=[Task(title="read", state=Task.DONE)])),
            "[x] read",
        ),
        (
            ThreadEvent(context_compacted=events.ContextCompacted(tokens_before=9000, tokens_after=800)),
            "context compacted, 9,000 to 800 tokens",
        ),
        (
            ThreadEvent(
                child_thread_ended=events.ChildThreadEnded(child_thread="threads/t2", state=Thread.FAILED)
            ),
            "threads/t2 ended FAILED",
        ),
        (
            ThreadEvent(execution_recovered=events.ExecutionRecovered(epoch=3, unknown_tool_call_ids=["c"])),
            "taken up again by another server, epoch 3; outcome unknown: c",
        ),
        (ThreadEvent(redacted=events.Redacted(kind="input_received")), "(input_received was erased)"),
        (
            ThreadEvent(thread_forked=events.ThreadForked(forked_from="threads/t0", forked_sequence=4)),
            "forked from threads/t0 at 4",
        ),
    ],
    ids=lambda value: value.WhichOneof("payload") if isinstance(value, ThreadEvent) else "",
)
def test_an_event_is_told(event: ThreadEvent, line: str) -> None:
    assert told(event) == [line]


def test_a_long_text_is_cut_and_says_so() -> None:
    (line,) = told(ThreadEvent(message_completed=events.MessageCompleted(text="x" * 5_000)))

    assert line.endswith("… (1,000 more characters)")


def test_an_initial_context_that_was_not_used_is_told() -> None:
    event = created()
    event.thread_created.initial_context_ignored = True

    assert any("initial context" in line for line in told(event))


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(), "<1 ms"),
        (timedelta(milliseconds=340), "340 ms"),
        (timedelta(seconds=1.24), "1.2 s"),
        (timedelta(seconds=90), "1 min 30 s"),
        (timedelta(hours=25, minutes=3), "25 h 3 min"),
    ],
)
def test_durations_are_read_at_a_glance(span: timedelta, text: str) -> None:
    assert figures.duration(span) == text


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (Cost(cost_micros=1, currency_code="USD", known=True), "0.000001 USD"),
        (Cost(cost_micros=2_500_000, currency_code="EUR", known=True), "2.5 EUR"),
        (Cost(currency_code="USD", known=True), "0 USD"),
        (Cost(currency_code="USD"), "cost unknown"),
        (Cost(cost_micros=30_000, currency_code="USD"), "at least 0.03 USD"),
    ],
)
def test_money_is_exact_and_the_unknown_is_not_nothing(cost: Cost, text: str) -> None:
    assert figures.money(cost) == text


def test_tokens_tell_what_was_cached_and_thought() -> None:
    assert figures.tokens(Usage(input_tokens=5, output_tokens=7)) == "5 tokens in, 7 out"


def _visible(written: str) -> str:
    """What was written without the sequences that move the cursor and erase the region."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n")
