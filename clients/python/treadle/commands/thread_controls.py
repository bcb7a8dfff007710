"""`treadle threads pause`, `resume`, `send` and `complete`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.commands.access import access

if TYPE_CHECKING:
    from treadle.v1.thread_pb2 import Thread

Name = Annotated[str, typer.Argument(metavar="THREAD", help="Its id or `threads/{thread}`.")]
Reason = Annotated[str, typer.Option(help="Why, for the log.")]


class End(StrEnum):
    """The states that a caller can end a thread in."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


def pause(context: typer.Context, name: Name, reason: Reason = "") -> None:
    """Stops a thread at the next step boundary, until it is resumed."""
    with access(context).client() as client:
        tell(client.pause_thread(name, reason=reason))


def resume(context: typer.Context, name: Name, reason: Reason = "") -> None:
    """Lets a paused thread go on, or takes back a pause that has not taken effect."""
    with access(context).client() as client:
        tell(client.resume_thread(name, reason=reason))


def send(
    context: typer.Context,
    name: Name,
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="What to say; `-` reads it.")] = "",
    data: Annotated[str, typer.Option(help="JSON to give, besides or instead of a text.")] = "",
    answers: Annotated[
        str, typer.Option(metavar="CALL", help="The question that it answers, as in call-1-1.")
    ] = "",
) -> None:
    """Tells a thread something that its model reads at the next turn, or answers a question of its agent."""
    from treadle.v1.content_pb2 import Input

    given = Input(text=sys.stdin.read() if text == "-" else text, data_json=data)
    with access(context).client() as client:
        tell(client.send_thread_input(name, input=given, tool_call_id=answers))


def complete(
    context: typer.Context,
    name: Name,
    state: Annotated[End, typer.Option(help="The state to end it in.")] = End.COMPLETED,
    output: Annotated[str, typer.Option(help="Its answer, as text.")] = "",
    output_json: Annotated[str, typer.Option(help="Its answer, as JSON.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for the log; with failed the error's message.")] = "",
) -> None:
    """Ends a thread with a result of yours and returns once it has really stopped."""
    from treadle.v1.content_pb2 import Content
    from treadle.v1.thread_pb2 import Thread

    given = Content(text=output, data_json=output_json) if output or output_json else None
    with access(context).client() as client:
        tell(client.complete_thread(name, Thread.State.Value(state.name), output=given, reason=reason))


def tell(thread: Thread) -> None:
    """Says in one line where a thread stands, and what of it is still to come."""
    from treadle.figures import value_name

    pending = f", {value_name(thread, 'pending_command')} pending" if thread.pending_command else ""
    waits = ", ".join(f"{value_name(each, 'kind')} {each.resource}" for each in thread.waiting_for)
    what = f", waits for {waits}" if waits else ""
    typer.echo(f"{thread.name} is {value_name(thread, 'state')}{pending}{what}")
