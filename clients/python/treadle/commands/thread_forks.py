"""`treadle threads fork` and `retry`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from treadle.commands.access import access
from treadle.commands.thread_controls import Name, tell

NewId = Annotated[str, typer.Option("--id", help="Id of the new thread; made if not given.")]


def fork(
    context: typer.Context,
    name: Name,
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="A further input; `-` reads it.")] = "",
    at: Annotated[
        int, typer.Option(min=0, metavar="SEQUENCE", help="Last event to share; all there are if not given.")
    ] = 0,
    agent_version: Annotated[
        str, typer.Option(metavar="VERSION", help="As in `agents/a/versions/2`; the same if not given.")
    ] = "",
    model: Annotated[str, typer.Option(help="`provider:model` to go on with; the version's own.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Instead of its tags. Repeat it.")] = None,
    new_id: NewId = "",
) -> None:
    """Makes a thread that shares another's events up to one of them, and goes on by itself."""
    with access(context).client() as client:
        tell(
            client.fork_thread(
                name,
                sequence=at,
                agent_version=agent_version,
                text=sys.stdin.read() if text == "-" else text,
                tags=tag or (),
                model=model,
                thread_id=new_id,
            )
        )


def retry(context: typer.Context, name: Name, new_id: NewId = "") -> None:
    """Makes a thread with the input and settings of one that has ended."""
    with access(context).client() as client:
        tell(client.retry_thread(name, thread_id=new_id))
