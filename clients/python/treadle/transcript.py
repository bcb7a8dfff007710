"""What happened to a thread, told line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from treadle import figures
from treadle.figures import value_name
from treadle.v1.event_pb2 import ThreadEvent, ToolCallRequested
from treadle.v1.iteration_pb2 import Action
from treadle.v1.thread_pb2 import Task, Thread

TEXT_MAX = 4_000
ARGUMENTS_MAX = 400
MODEL_MAX = 80


@dataclass(frozen=True, slots=True)
class Line:
    """A paragraph of the telling; its text may hold new lines, and nothing that a terminal obeys."""

    text: str
    style: str = ""
    indent: int = 2


class Transcript:
    """Turns the events of one thread into lines, knowing no more of it than what it has seen."""

    def __init__(self) -> None:
        self._tools: dict[str, str] = {}
        self._said = ""
        self._iterations = 0
        self._calls = 0
        self._start: ThreadEvent | None = None

    def lines(self, event: ThreadEvent) -> list[Line]:
        """What there is to say of an event; nothing of those that are ephemeral or not known."""
        tell = getattr(self, f"_tell_{event.WhichOneof('payload')}", None)
        return [] if tell is None else list(tell(event))

    def tool(self, tool_call_id: str) -> str:
        """Name of the tool that a call is of, or the call's id when its request was not seen."""
        return self._tools.get(tool_call_id, tool_call_id)

    def _tell_thread_created(self, event: ThreadEvent) -> Iterator[Line]:
        self._start = event
        spec = event.thread_created.spec
        model = figures.one_line(spec.model, MODEL_MAX)
        yield _line(f"{event.thread}  {spec.agent_version}  {model}", "bold", 0)
        if event.thread_created.initial_context_ignored:
            yield _line("the session had started before: the initial context was not used", "yellow")

    def _tell_thread_forked(self, event: ThreadEvent) -> Iterator[Line]:
        self._start = event if self._start is not None else None  # its own time begins
        origin = event.thread_forked
        yield _line(f"forked from {origin.forked_from} at {origin.forked_sequence}", "dim", 0)

    def _tell_state_changed(self, event: ThreadEvent) -> Iterator[Line]:
        state = event.state_changed.to
        if state not in (Thread.PENDING, Thread.RUNNING):
            yield _line(value_name(event.state_changed, "to"), "yellow", 0)

    def _tell_control_requested(self, event: ThreadEvent) -> Iterator[Line]:
        asked = event.control_requested
        by = f" by {asked.principal}" if asked.principal else ""
        why = f": {asked.reason}" if asked.reason else ""
        yield _line(f"{value_name(asked, 'command')} asked{by}{why}", "yellow", 0)

    def _tell_input_received(self, event: ThreadEvent) -> Iterator[Line]:
        content = event.input_received.content
        yield _line(f"> {content.text or content.data_json}", "cyan", 0)

    def _tell_iteration_started(self, event: ThreadEvent) -> Iterator[Line]:
        self._iterations += 1
        yield _line(f"Iteration {event.iteration_started.number}", "bold", 0)

    def _tell_thought_recorded(self, event: ThreadEvent) -> Iterator[Line]:
        yield _line(event.thought_recorded.text, "dim italic")

    def _tell_message_completed(self, event: ThreadEvent) -> Iterator[Line]:
        message = event.message_completed
        self._said = message.text
        if message.text:
            yield _line(message.text, "bold" if message.final else "")
        if message.truncated:
            yield _line("the model's output limit cut it off", "yellow")

    def _tell_model_call_failed(self, event: ThreadEvent) -> Iterator[Line]:
        failed = event.model_call_failed
        then = f"; again in {_span(failed.retry_delay)}" if failed.will_retry else ""
        yield _line(f"model call failed, attempt {failed.attempt}: {failed.error.message}{then}", "red")

    def _tell_output_rejected(self, event: ThreadEvent) -> Iterator[Line]:
        yield _line(f"turn not taken: {event.output_rejected.problem}", "yellow")

    def _tell_usage_recorded(self, event: ThreadEvent) -> Iterator[Line]:
        used = event.usage_recorded
        if used.estimated and not used.usage.total_tokens:
            yield _line("usage unknown", "dim")
            return
        about = "at least " if used.estimated else ""
        yield _line(f"{about}{figures.tokens(used.usage)}, {figures.money(used.cost)}", "dim")

    def _tell_tool_call_requested(self, event: ThreadEvent) -> Iterator[Line]:
        call = event.tool_call_requested
        self._tools[call.tool_call_id] = call.tool
        self._calls += 1
        notes = {
            ToolCallRequested.NEEDS_APPROVAL: "  needs approval",
            ToolCallRequested.INVALID: "  not valid",
            ToolCallRequested.CLIENT: f"  waits for its result, call {call.tool_call_id}",
        }
        arguments = figures.shortened(call.arguments_json, ARGUMENTS_MAX)
        yield _line(f"{call.tool} {arguments}{notes.get(call.verdict, '')}", "blue")

    def _tell_tool_attempt_failed(self, event: ThreadEvent) -> Iterator[Line]:
        failed = event.tool_attempt_failed
        tool, then = self.tool(failed.tool_call_id), _span(failed.retry_delay)
        yield _line(
            f"{tool} attempt {failed.attempt} failed: {failed.error.message}; again in {then}", "yellow"
        )

    def _tell_tool_call_completed(self, event: ThreadEvent) -> Iterator[Line]:
        done = event.tool_call_completed
        tool = self._tools.pop(done.tool_call_id, done.tool_call_id)
        took = f", {_span(done.duration)}" if done.HasField("duration") else ""
        well = done.status == Action.SUCCEEDED
        how = value_name(done, "status")
        yield _line(f"{tool} → {done.observation}  ({how}{took})", "green" if well else "red")

    def _tell_approval_requested(self, event: ThreadEvent) -> Iterator[Line]:
        asked = event.approval_requested
        name = f"{event.thread}/approvals/{asked.approval_id}"
        arguments = figures.shortened(asked.arguments_json, ARGUMENTS_MAX)
        yield _line(f"waits for approval: {asked.tool} {arguments}  {name}", "yellow")

    def _tell_approval_expiring(self, event: ThreadEvent) -> Iterator[Line]:
        expiring = event.approval_expiring
        yield _line(
            f"approval {expiring.approval_id} expires at {expiring.expire_time.ToJsonString()}", "yellow"
        )

    def _tell_approval_vote_recorded(self, event: ThreadEvent) -> Iterator[Line]:
        vote = event.approval_vote_recorded
        said = f": {vote.message}" if vote.message else ""
        yield _line(f"{vote.principal} answered {value_name(vote, 'decision')}{said}")

    def _tell_approval_decided(self, event: ThreadEvent) -> Iterator[Line]:
        decided = event.approval_decided
        said = f": {decided.message}" if decided.message else ""
        yield _line(f"approval {decided.approval_id} {value_name(decided, 'state')}{said}")

    def _tell_question_asked(self, event: ThreadEvent) -> Iterator[Line]:
        asked = event.question_asked
        yield _line(f"asks: {asked.question}  (call {asked.tool_call_id})", "yellow")

    def _tell_budget_alert(self, event: ThreadEvent) -> Iterator[Line]:
        alert = event.budget_alert
        yield _line(f"{alert.budget} is used up to {alert.threshold_percent} %", "yellow")

    def _tell_suggestions_offered(self, event: ThreadEvent) -> Iterator[Line]:
        for suggestion in event.suggestions_offered.suggestions:
            yield _line(f"suggests: {suggestion}", "dim")

    def _tell_tasks_updated(self, event: ThreadEvent) -> Iterator[Line]:
        marks = {Task.DONE: "x", Task.IN_PROGRESS: "-", Task.CANCELLED: "/"}
        for task in event.tasks_updated.tasks:
            yield _line(f"[{marks.get(task.state, ' ')}] {task.title}")

    def _tell_context_compacted(self, event: ThreadEvent) -> Iterator[Line]:
        compacted = event.context_compacted
        yield _line(
            f"context compacted, {compacted.tokens_before:,} to {compacted.tokens_after:,} tokens", "dim"
        )

    def _tell_child_thread_started(self, event: ThreadEvent) -> Iterator[Line]:
        started = event.child_thread_started
        yield _line(f"{started.child_thread} begins, {started.agent_version}", "blue")

    def _tell_child_thread_ended(self, event: ThreadEvent) -> Iterator[Line]:
        ended = event.child_thread_ended
        yield _line(f"{ended.child_thread} ended {value_name(ended, 'state')}", "blue")

    def _tell_execution_recovered(self, event: ThreadEvent) -> Iterator[Line]:
        recovered = event.execution_recovered
        unknown = ", ".join(self.tool(call) for call in recovered.unknown_tool_call_ids)
        lost = f"; outcome unknown: {unknown}" if unknown else ""
        yield _line(f"taken up again by another server, epoch {recovered.epoch}{lost}", "magenta", 0)

    def _tell_redacted(self, event: ThreadEvent) -> Iterator[Line]:
        yield _line(f"({event.redacted.kind} was erased)", "dim")

    def _tell_thread_ended(self, event: ThreadEvent) -> Iterator[Line]:
        ended = event.thread_ended
        if ended.output.text and ended.output.text != self._said:
            yield _line(ended.output.text, "bold")
        if ended.output.data_json:
            yield _line(ended.output.data_json, "bold")
        if ended.error.message:
            yield _line(ended.error.message, "red")
        well = ended.state == Thread.COMPLETED
        yield _line(", ".join(self._summary(event)), "bold green" if well else "bold red", 0)

    def _summary(self, event: ThreadEvent) -> Iterator[str]:
        ended = event.thread_ended
        yield f"{value_name(ended, 'state')} ({value_name(ended, 'stop_reason')})"
        if self._start is not None:  # else the counts would be of what was seen only
            yield figures.count(self._iterations, "iteration")
            yield figures.count(self._calls, "tool call")
            yield figures.duration(event.event_time.ToDatetime() - self._start.event_time.ToDatetime())
        yield figures.tokens(ended.usage)
        yield figures.money(ended.cost)


def _line(text: str, style: str = "", indent: int = 2) -> Line:
    return Line(figures.printable(figures.shortened(text, TEXT_MAX)), style, indent)


def _span(span: Duration) -> str:
    return figures.duration(span.ToTimedelta())
