"""The conversation as a model is to see it: a fold over the log, kept while a thread is driven."""

from dataclasses import dataclass, field
from typing import Any

from treadle_server.core.events import (
    Event,
    HistoryRecalled,
    InputReceived,
    IterationStarted,
    MessageCompleted,
    OutputRejected,
    ThoughtRecorded,
    ThreadCreated,
    ThreadForked,
    ToolCallCompleted,
    ToolCallRequested,
)
from treadle_server.core.kinds import CallStatus, Role
from treadle_server.core.values import Content, Context, ProviderContent


@dataclass(frozen=True, slots=True)
class UserEntry:
    """What a caller said."""

    content: Content


@dataclass(frozen=True, slots=True)
class CallEntry:
    """One tool call of a model's turn."""

    tool_call_id: str
    name: str
    arguments_json: str
    provider_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One turn of the model."""

    text: str
    thought: str
    calls: tuple[CallEntry, ...]
    provider_content: ProviderContent | None = None


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """What a tool call of the model's last turn gave. In call order, whatever finished first."""

    tool_call_id: str
    name: str
    status: CallStatus
    observation: str
    provider_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ProblemEntry:
    """Why the runtime did not take the model's last turn."""

    problem: str


@dataclass(frozen=True, slots=True)
class ContextEntry:
    """What the model is told besides the inputs."""

    text: str


@dataclass(frozen=True, slots=True)
class RecalledEntry:
    """Something that was said in an earlier thread of the session."""

    role: Role
    content: Content


Entry = ContextEntry | RecalledEntry | UserEntry | ModelEntry | ToolEntry | ProblemEntry


@dataclass(slots=True)
class Transcript:
    """Entries are only ever added, at the beginning of an iteration."""

    entries: list[Entry] = field(default_factory=list)
    fragments: dict[str, list[Any]] = field(default_factory=dict)
    """An adapter's own encoding of `entries`, by provider and model; it adds what is missing."""


class TranscriptFold:
    """Builds a transcript from the events of a log. A turn enters it when the next iteration begins."""

    __slots__ = (
        "_before",
        "_calls",
        "_context",
        "_inputs",
        "_problem",
        "_reply",
        "_results",
        "_thought",
        "transcript",
    )

    def __init__(self) -> None:
        self.transcript = Transcript()
        self._inputs: dict[int, Content] = {}
        self._thought = ""
        self._reply: MessageCompleted | None = None
        self._calls: list[CallEntry] = []
        self._results: dict[str, ToolCallCompleted] = {}
        self._problem = ""
        self._before: list[Entry] = []
        """What the first iteration begins with, before its inputs."""
        self._context = Context()

    def apply(self, event: Event) -> None:
        payload = event.payload
        match payload:
            case ThreadCreated() if payload.context is not None:
                self._context = payload.context
            case HistoryRecalled():
                self._before = [RecalledEntry(each.role, each.content) for each in payload.messages]
            case InputReceived(tool_call_id=""):
                self._inputs[event.sequence] = payload.content
            case ThoughtRecorded():
                self._thought = payload.text
            case MessageCompleted():
                self._reply = payload
            case OutputRejected():
                self._problem = payload.problem
            case ToolCallRequested():
                self._calls.append(_call_entry(payload))
            case ToolCallCompleted():
                self._results[payload.tool_call_id] = payload
            case ThreadForked():
                self._drop_cut_turn()
            case IterationStarted():
                self._begin_conversation()
                self._close_turn()
                for sequence in payload.consumed_inputs:
                    if (
                        sequence in self._inputs
                    ):  # else it is of a newer release, and nobody drives the thread
                        self.transcript.entries.append(UserEntry(self._inputs.pop(sequence)))

    def _drop_cut_turn(self) -> None:
        """A turn that was shared without anything that it asks for is given anew."""
        reply = self._reply
        if reply is None or not (reply.final or self._calls or self._problem or self._inputs):
            self._reply, self._thought = None, ""

    def _begin_conversation(self) -> None:
        """The session's context, what was said in it, then the thread's own context; once."""
        (initial, additional), self._context = (self._context.initial, self._context.additional), Context()
        before, self._before = self._before, []
        entries = self.transcript.entries
        entries += [ContextEntry(initial)] if initial else []
        entries += before
        entries += [ContextEntry(additional)] if additional else []

    def _close_turn(self) -> None:
        if self._reply is None:
            return
        entries, calls = self.transcript.entries, tuple(self._calls)
        entries.append(ModelEntry(self._reply.text, self._thought, calls, self._reply.provider_content))
        entries.extend(
            _tool_entry(call, self._results[call.tool_call_id])
            for call in calls
            if call.tool_call_id in self._results
        )
        if self._problem:
            entries.append(ProblemEntry(self._problem))
        self._thought, self._reply, self._problem = "", None, ""
        self._calls, self._results = [], {}


def _tool_entry(call: CallEntry, result: ToolCallCompleted) -> ToolEntry:
    return ToolEntry(call.tool_call_id, call.name, result.status, result.observation, call.provider_call_id)


def _call_entry(payload: ToolCallRequested) -> CallEntry:
    return CallEntry(payload.tool_call_id, payload.tool, payload.arguments_json, payload.provider_call_id)
