"""`treadle sessions`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.commands.access import access, write_json, write_rows

if TYPE_CHECKING:
    from treadle.v1.session_pb2 import Session

app = typer.Typer(help="List, read and delete conversations. Without a command: list.", no_args_is_help=False)

Filter = Annotated[str, typer.Option(help="As in `agent = agents/helper`.")]
Limit = Annotated[int, typer.Option(min=1, help="Most sessions to list.")]
Json = Annotated[bool, typer.Option("--json", help="Write one a line, as JSON.")]
Name = Annotated[
    str, typer.Argument(metavar="SESSION", help="Its id, `sessions/{session}`, or with --key its key.")
]
Key = Annotated[bool, typer.Option("--key", help="SESSION is the key that threads were started with.")]

HEADERS = ("ID", "KEY", "AGENT", "OBJECT", "CREATED", "ACTIVE", "NAME")


@app.callback(invoke_without_command=True)
def default(context: typer.Context, filter: Filter = "", limit: Limit = 50, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_sessions(context, filter, limit, json)


@app.command("list")
def list_sessions(context: typer.Context, filter: Filter = "", limit: Limit = 50, json: Json = False) -> None:
    """Lists sessions, newest first."""
    with access(context).client() as client:
        found = islice(client.list_sessions(filter=filter, page_size=limit), limit)
        if json:
            for session in found:
                write_json(session)
        else:
            write_rows(HEADERS, (_row(session) for session in found))


@app.command()
def get(context: typer.Context, name: Name, key: Key = False) -> None:
    """Prints a session as JSON."""
    with access(context).client() as client:
        write_json(client.lookup_session(name) if key else client.get_session(name), indent=2)


@app.command()
def messages(context: typer.Context, name: Name, key: Key = False, json: Json = False) -> None:
    """Prints what was said in a session, oldest first."""
    from treadle.figures import value_name

    with access(context).client() as client:
        session = client.lookup_session(name).name if key else name
        for message in client.list_session_messages(session):
            if json:
                write_json(message)
            else:
                said = message.content.text or message.content.data_json
                typer.echo(f"{value_name(message, 'role').lower()}: {said}")


@app.command()
def delete(
    context: typer.Context,
    name: Name,
    key: Key = False,
    force: Annotated[
        bool, typer.Option("--force", help="Cancel its threads first if some have not ended.")
    ] = False,
) -> None:
    """Deletes a session, whose key is free then; its threads stay."""
    with access(context).client() as client:
        session = client.lookup_session(name).name if key else name
        client.delete_session(session, force=force)


def _row(session: Session) -> tuple[str, ...]:
    from treadle.figures import one_line

    return (
        session.display_id,
        one_line(session.session_key, 40),
        session.agent,
        session.parent_object,
        session.create_time.ToJsonString()[:19],
        session.active_thread,
        session.name,
    )
