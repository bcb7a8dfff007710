"""`treadle run` and `treadle watch`."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from treadle.commands.access import access, write_json
from treadle.commands.interrupts import insisted

if TYPE_CHECKING:
    from treadle.calls.threads import ThreadFields
    from treadle.sync import SyncClient
    from treadle.v1.content_pb2 import Input
    from treadle.v1.event_pb2 import QuestionAsked, ThreadEvent
    from treadle.v1.thread_pb2 import Thread
    from treadle.v1.thread_service_pb2 import WatchThreadResponse
    from treadle.view import View

DETACHED = 130  # what shells give for a program that Ctrl-C ended


class Busy(StrEnum):
    """What becomes of a new thread when another of its session is at work."""

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    STEER = "steer"


@dataclass(slots=True)
class _Place:
    """How far a stream was shown, and so how to go on with it."""

    thread: str = ""
    after: int = 0
    cursor: str = ""
    children: bool = False
    failed: bool = False
    received: bool = False

    def take(self, event: ThreadEvent) -> None:
        from treadle.v1.thread_pb2 import Thread

        self.received = True
        self.thread = self.thread or event.thread
        if event.thread != self.thread:
            return
        self.after = event.sequence or self.after
        if event.HasField("thread_ended"):
            self.failed = event.thread_ended.state != Thread.COMPLETED

    def events(
        self, batches: Generator[WatchThreadResponse, None, None]
    ) -> Generator[ThreadEvent, None, None]:
        """The events of a tree. One whose batch was not shown whole comes again: a cursor is of a batch."""
        with closing(batches):
            for batch in batches:
                yield from batch.events
                self.cursor = batch.cursor or self.cursor

    def resumption(self) -> str:
        if not self.thread:
            return "nothing was received; `treadle threads` tells whether a thread was made"
        if self.children:
            after = " --children" + (f" --after-cursor {self.cursor}" if self.cursor else "")
        else:
            after = f" --after {self.after}" if self.after else ""
        return f"{self.thread} goes on: treadle watch {self.thread}{after}"


def run(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(help="Agent to run, its id or `agents/{agent}`.")],
    text: Annotated[str, typer.Argument(metavar="[INPUT]", help="What it is to do; `-` reads it.")] = "",
    data: Annotated[str, typer.Option(help="JSON to give it, besides or instead of a text.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show each iteration as it comes.")] = False,
    session_key: Annotated[str, typer.Option(help="Your name of the conversation to go on with.")] = "",
    busy_policy: Annotated[
        Busy | None,
        typer.Option(
            help="What to do while another thread of the conversation is at work: wait for it, be refused,"
            " stop it, or hand it the input."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Write the thread as JSON; with --watch one event a line.")
    ] = False,
) -> None:
    """Runs an agent and prints its answer; exit code 1 when it ended without one."""
    from treadle.calls.threads import ThreadFields
    from treadle.v1.content_pb2 import Input
    from treadle.v1.thread_pb2 import Thread

    given = Input(text=sys.stdin.read() if text == "-" else text, data_json=data)
    fields = ThreadFields(session_key=session_key) if session_key else ThreadFields()
    if busy_policy is not None:
        fields["busy_policy"] = Thread.BusyPolicy.Value(busy_policy.name)
    with access(context).client() as client:
        if watch:
            _show(client.stream(agent, input=given, include_deltas=not json, **fields), _Place(), json)
        else:
            _answer(client, agent, given, fields, json)


def watch(
    context: typer.Context,
    thread: Annotated[str, typer.Argument(help="Thread to watch, its id or `threads/{thread}`.")],
    after: Annotated[int, typer.Option(help="Show only events with a greater sequence.")] = 0,
    children: Annotated[
        bool, typer.Option("--children", help="Show the threads too that it makes by calling agents.")
    ] = False,
    after_cursor: Annotated[
        str, typer.Option(help="With --children: go on after this, as Ctrl-C told it.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Write one event a line, as JSON.")] = False,
) -> None:
    """Shows a thread's iterations from its beginning, or from a sequence, until it ends."""
    from treadle.calls import names

    if after and children:
        raise typer.BadParameter("a sequence is of one thread: with --children give --after-cursor")
    if after_cursor and not children:
        raise typer.BadParameter("--after-cursor goes with --children")
    place = _Place(names.thread(thread), after, after_cursor, children)
    with access(context).client() as client:
        if children:
            events = place.events(client.watch_tree(thread, after_cursor=after_cursor))
        else:
            events = client.watch(thread, after_sequence=after, include_deltas=not json)
        _show(events, place, json)


def _show(events: Generator[ThreadEvent, None, None], place: _Place, json: bool) -> None:
    from treadle.errors import DataLoss, TreadleError
    from treadle.view import JsonView, LiveView

    view: View = JsonView() if json else LiveView()
    try:
        with insisted(), closing(events), view:
            for event in events:
                view.show(event)
                place.take(event)
    except KeyboardInterrupt:
        _detach(place.resumption())
    except DataLoss:  # there is nothing to go on with
        raise
    except TreadleError:
        if place.received:
            _say(f"the stream broke off; {place.resumption()}")
        raise
    if place.failed:
        raise typer.Exit(1)


def _answer(client: SyncClient, agent: str, given: Input, fields: ThreadFields, json: bool) -> None:
    from treadle.v1.thread_pb2 import Thread

    thread = client.create_thread(agent, input=given, **fields)
    try:
        with insisted():
            _wait(client, thread)
        thread = client.get_thread(thread.name, view=Thread.FULL if json else Thread.BASIC)
    except KeyboardInterrupt:
        _detach(_Place(thread.name).resumption())
    if json:
        write_json(thread)
    else:
        for said in (thread.output.text, thread.output.data_json):
            if said:
                typer.echo(said)
    if thread.state != Thread.COMPLETED:
        _say(_shortfall(thread))
        raise typer.Exit(1)


def _wait(client: SyncClient, thread: Thread) -> None:
    """Returns when ExecuteAgent would: at the end, when paused, or when people are waited for."""
    waits = (thread.WAITING_APPROVAL, thread.WAITING_INPUT, thread.PAUSED)
    if thread.state in waits:  # an input that was handed to it changes nothing of that
        return
    kinds = ("question_asked", "state_changed", "thread_ended")
    # A thread that was handed the input may have waited before.
    stream = client.watch(thread.name, after_sequence=thread.last_sequence, event_types=kinds)
    with closing(stream) as events:
        for event in events:
            if event.HasField("question_asked"):
                _say(_question(thread.name, event.question_asked))
            if event.state_changed.to in waits:
                return


def _question(thread: str, asked: QuestionAsked) -> str:
    from treadle.figures import printable

    schema = asked.answer_schema_json
    given = f"--data 'JSON that fits {schema}'" if schema else "'...'"
    how = f"treadle threads send {thread} --answers {asked.tool_call_id} {given}"
    return printable(f"the agent asks: {asked.question}\n(answer with {how})")


def _detach(how_to_resume: str) -> NoReturn:
    """Ends the process at once: gRPC cannot always close a channel whose call was interrupted."""
    _say(f"detached; {how_to_resume}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(DETACHED)


def _shortfall(thread: Thread) -> str:
    from treadle.figures import one_line, value_name

    reason = value_name(thread, "stop_reason") if thread.stop_reason else ""
    what = " ".join(part for part in (value_name(thread, "state"), reason) if part)
    why = f": {one_line(thread.error.message, 1_000)}" if thread.error.message else ""
    decide = "; decide it with treadle approvals" if thread.state == thread.WAITING_APPROVAL else ""
    more = "" if thread.HasField("end_time") else f"; {_Place(thread.name).resumption()}"
    return f"{thread.name} is {what}{why}{decide}{more}"


def _say(text: str) -> None:
    typer.echo(text, err=True)
