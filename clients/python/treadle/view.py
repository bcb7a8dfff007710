"""A thread's run, or that of several, as people watch it, or as programs read it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.text import Text

from treadle import figures
from treadle.transcript import Line, Transcript
from treadle.v1.event_pb2 import MessageDelta, ThreadEvent

TAIL_CHARACTERS = 4_000


class View(Protocol):
    """Something that shows events, in the order in which it gets them, while it is entered."""

    def show(self, event: ThreadEvent) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Streaming:
    """What is being said and done at the moment, from events that nothing depends on."""

    def __init__(self) -> None:
        self._attempt = 0
        self._texts = {MessageDelta.THOUGHT: "", MessageDelta.TEXT: ""}
        self._running: dict[str, str] = {}

    def take(self, event: ThreadEvent, transcript: Transcript) -> None:
        match event.WhichOneof("payload"):
            case "message_delta":
                self._append(event.message_delta)
            case "model_call_started" | "model_call_failed" | "message_completed" | "thread_ended":
                self._reset()
            case "thought_recorded":
                self._texts[MessageDelta.THOUGHT] = ""
            case "tool_call_started":
                call = event.tool_call_started.tool_call_id
                self._running[call] = transcript.tool(call)
            case "tool_call_progress":
                progress = event.tool_call_progress
                tool = transcript.tool(progress.tool_call_id)
                self._running[progress.tool_call_id] = f"{tool}  {figures.one_line(progress.message, 200)}"
            case "tool_call_completed":
                self._running.pop(event.tool_call_completed.tool_call_id, None)

    def region(self, console: Console) -> RenderableType:
        """The newest lines of what is streamed, at most half a screen, and the tools at work."""
        rows: list[RenderableType] = []
        for kind, style in ((MessageDelta.THOUGHT, "dim italic"), (MessageDelta.TEXT, "")):
            tail = Text(figures.printable(self._texts[kind][-TAIL_CHARACTERS:]), style)
            wrapped = tail.wrap(console, max(20, console.width - 2))
            rows += [Padding(line, (0, 0, 0, 2)) for line in wrapped[-max(4, console.height // 2) :]]
        for running in list(self._running.values()):
            rows.append(Padding(Spinner("dots", Text(figures.printable(running), "blue")), (0, 0, 0, 2)))
        return Group(*rows)

    def _append(self, delta: MessageDelta) -> None:
        if delta.attempt < self._attempt or delta.kind not in self._texts:
            return
        if delta.attempt > self._attempt:
            self._reset()
            self._attempt = delta.attempt
        self._texts[delta.kind] = self._texts[delta.kind][: delta.offset] + delta.text

    def _reset(self) -> None:
        self._attempt = 0
        self._texts = {MessageDelta.THOUGHT: "", MessageDelta.TEXT: ""}


@dataclass(slots=True)
class _Told:
    """What was told of one thread, to go on with."""

    transcript: Transcript = field(default_factory=Transcript)
    streaming: Streaming = field(default_factory=Streaming)


class LiveView:
    """Shows events of one or several threads: on a terminal also what is being streamed, elsewhere plain
    lines alone.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._told: dict[str, _Told] = {}
        self._last = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._region,
                console=self._console,
                refresh_per_second=8,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, event: ThreadEvent) -> None:
        told = self._told.setdefault(event.thread, _Told())
        lines = told.transcript.lines(event)
        told.streaming.take(event, told.transcript)
        if lines and self._last not in ("", event.thread) and not event.HasField("thread_created"):
            self._write(Line(event.thread, "bold underline", 0))
        for line in lines:
            self._last = event.thread
            self._write(line)
        if event.HasField("thread_ended"):
            del self._told[event.thread]

    def _region(self) -> RenderableType:
        regions = [told.streaming.region(self._console) for told in list(self._told.values())]
        return Group(*regions)

    def _write(self, line: Line) -> None:
        if self._console.is_terminal:
            self._console.print(Padding(Text(line.text, line.style), (0, 0, 0, line.indent)))
        else:
            self._console.file.write(textwrap.indent(line.text, " " * line.indent) + "\n")
            self._console.file.flush()


class JsonView:
    """Writes each event as one line of JSON, in protobuf's own mapping."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def show(self, event: ThreadEvent) -> None:
        self._console.file.write(json_line(event) + "\n")
        self._console.file.flush()


def json_line(message: Message) -> str:
    """A message as JSON on one line."""
    return MessageToJson(message, indent=None)
