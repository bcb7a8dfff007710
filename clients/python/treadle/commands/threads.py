"""`treadle threads`."""

from __future__ import annotations

from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.commands import thread_controls, thread_forks
from treadle.commands.access import access, write_json, write_rows

if TYPE_CHECKING:
    from treadle.v1.thread_pb2 import Thread

app = typer.Typer(help="List, read and stop threads. Without a command: list.", no_args_is_help=False)

Filter = Annotated[str, typer.Option(help='As in `state = RUNNING AND tags:"nightly"`.')]
OrderBy = Annotated[str, typer.Option(help="As in `create_time desc`, the default.")]
Limit = Annotated[int, typer.Option(min=1, help="Most threads to list.")]
Json = Annotated[bool, typer.Option("--json", help="Write one thread a line, as JSON.")]
Name = Annotated[str, typer.Argument(metavar="THREAD", help="Its id or `threads/{thread}`.")]

app.command()(thread_controls.pause)
app.command()(thread_controls.resume)
app.command()(thread_controls.send)
app.command()(thread_controls.complete)
app.command()(thread_forks.fork)
app.command()(thread_forks.retry)

HEADERS = ("NAME", "STATE", "AGENT", "CREATED", "TOKENS", "COST", "INPUT")


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    filter: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 50,
    json: Json = False,
) -> None:
    if context.invoked_subcommand is None:
        list_threads(context, filter, order_by, limit, json)


@app.command("list")
def list_threads(
    context: typer.Context,
    filter: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Lists threads, newest first."""
    with access(context).client() as client:
        found = islice(client.list_threads(filter=filter, order_by=order_by, page_size=limit), limit)
        if json:
            for thread in found:
                write_json(thread)
        else:
            write_rows(HEADERS, (_row(thread) for thread in found))


@app.command()
def get(context: typer.Context, name: Name) -> None:
    """Prints a thread with its iterations, as JSON."""
    from treadle.v1.thread_pb2 import Thread

    with access(context).client() as client:
        write_json(client.get_thread(name, view=Thread.FULL), indent=2)


@app.command()
def cancel(
    context: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "",
    grace: Annotated[
        float | None, typer.Option(min=0, help="Seconds for running tools to stop; 5 if not given.")
    ] = None,
) -> None:
    """Cancels a thread and returns once it has really stopped."""
    from treadle.figures import value_name

    span = None if grace is None else timedelta(seconds=grace)
    with access(context).client() as client:
        thread = client.cancel_thread(name, reason=reason, grace=span)
    typer.echo(f"{thread.name} is {value_name(thread, 'state')}")


@app.command()
def delete(
    context: typer.Context,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Cancel it first if it has not ended.")] = False,
) -> None:
    """Deletes a thread that has ended, with its log."""
    with access(context).client() as client:
        client.delete_thread(name, force=force)


def _row(thread: Thread) -> tuple[str, ...]:
    from treadle.figures import money, one_line, value_name

    reason = f" {value_name(thread, 'stop_reason')}" if thread.stop_reason else ""
    return (
        thread.name,
        value_name(thread, "state") + reason,
        thread.agent,
        thread.create_time.ToJsonString()[:19],
        str(thread.usage.total_tokens),
        money(thread.cost),
        one_line(thread.input.text or thread.input.data_json, 80),
    )
