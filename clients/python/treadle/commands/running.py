"""`treadle run` and `treadle watch`."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import closing
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
    from treadle.view import View

DETACHED = 130  # what shells give for a program that Ctrl-C ended


def run(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(help="Agent to run, its id or `agents/{agent}`.")],
    text: Annotated[str, typer.Argument(metavar="[INPUT]", help="What it is to do; `-` reads it.")] = "",
    data: Annotated[str, typer.Option(help="JSON to give it, besides or instead of a text.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show each iteration as it comes.")] = False,
    session_key: Annotated[str, typer.Option(help="Your name of the conversation to go on with.")] = "",
    json: Annotated[
        bool, typer.Option("--json", help="Write the thread as JSON; with --watch one event a line.")
    ] = False,
) -> None:
    """Runs an agent and prints its answer; exit code 1 when it ended without one."""
    from treadle.calls.threads import ThreadFields
    from treadle.v1.content_pb2 import Input

    given = Input(text=sys.stdin.read() if text == "-" else text, data_json=data)
    fields = ThreadFields(session_key=session_key) if session_key else ThreadFields()
    with access(context).client() as client:
        if watch:
            _show(client.stream(agent, input=given, include_deltas=not json, **fields), 0, json)
        else:
            _answer(client, agent, given, fields, json)


def watch(
    context: typer.Context,
    thread: Annotated[str, typer.Argument(help="Thread to watch, its id or `threads/{thread}`.")],
    after: Annotated[int, typer.Option(help="Show only events with a greater sequence.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Write one event a line, as JSON.")] = False,
) -> None:
    """Shows a thread's iterations from its beginning, or from a sequence, until it ends."""
    with access(context).client() as client:
        _show(client.watch(thread, after_sequence=after, include_deltas=not json), after, json)


def _show(events: Generator[ThreadEvent, None, None], after: int, json: bool) -> None:
    from treadle.errors import DataLoss, TreadleError
    from treadle.v1.thread_pb2 import Thread
    from treadle.view import JsonView, LiveView

    view: View = JsonView() if json else LiveView()
    thread, last, completed = "", after, True
    try:
        with insisted(), closing(events), view:
            for event in events:
                view.show(event)
                thread, last = event.thread or thread, event.sequence or last
                if event.WhichOneof("payload") == "thread_ended":
                    completed = event.thread_ended.state == Thread.COMPLETED
    except KeyboardInterrupt:
        _detach(_resumption(thread, last))
    except DataLoss:  # there is nothing to go on with
        raise
    except TreadleError:
        if thread:
            _say(f"the stream broke off; {_resumption(thread, last)}")
        raise
    if not completed:
        raise typer.Exit(1)


def _answer(client: SyncClient, agent: str, given: Input, fields: ThreadFields, json: bool) -> None:
    from treadle.v1.thread_pb2 import Thread

    thread = client.create_thread(agent, input=given, **fields)
    try:
        with insisted():
            _wait(client, thread.name)
        thread = client.get_thread(thread.name, view=Thread.FULL if json else Thread.BASIC)
    except KeyboardInterrupt:
        _detach(_resumption(thread.name, 0))
    if json:
        write_json(thread)
    else:
        for said in (thread.output.text, thread.output.data_json):
            if said:
                typer.echo(said)
    if thread.state != Thread.COMPLETED:
        _say(_shortfall(thread))
        raise typer.Exit(1)


def _wait(client: SyncClient, thread: str) -> None:
    """Returns when ExecuteAgent would: at the end, when paused, or when people are waited for."""
    from treadle.v1.thread_pb2 import Thread

    kinds = ("question_asked", "state_changed", "thread_ended")
    with closing(client.watch(thread, event_types=kinds)) as events:
        for event in events:
            if event.HasField("question_asked"):
                _say(_question(thread, event.question_asked))
            if event.state_changed.to in (Thread.WAITING_APPROVAL, Thread.WAITING_INPUT, Thread.PAUSED):
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
    more = "" if thread.HasField("end_time") else f"; {_resumption(thread.name, 0)}"
    return f"{thread.name} is {what}{why}{decide}{more}"


def _resumption(thread: str, last: int) -> str:
    if not thread:
        return "nothing was received; `treadle threads` tells whether a thread was made"
    after = f" --after {last}" if last else ""
    return f"{thread} goes on: treadle watch {thread}{after}"


def _say(text: str) -> None:
    typer.echo(text, err=True)
