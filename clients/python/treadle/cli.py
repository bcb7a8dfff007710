"""The command line of Treadle: `treadle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from treadle._version import __version__
from treadle.commands import agents, approvals, backup, keys, memories, running, sessions, tenants, threads
from treadle.commands.access import Access
from treadle.commands.group import RootGroup

app = typer.Typer(
    cls=RootGroup,
    help="Run durable AI agents: talks to a Treadle server, and is one with `treadle serve`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(running.run)
app.command()(running.watch)
app.add_typer(threads.app, name="threads")
app.add_typer(sessions.app, name="sessions")
app.add_typer(agents.app, name="agents")
app.add_typer(approvals.app, name="approvals")
app.add_typer(memories.app, name="memories")
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.command()(backup.backup)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def connect(
    context: typer.Context,
    target: Annotated[
        str, typer.Option(envvar="TREADLE_TARGET", help="HOST:PORT of the server.")
    ] = "127.0.0.1:50051",
    api_key: Annotated[
        str | None,
        typer.Option(envvar="TREADLE_API_KEY", help="Better set by the variable: others can see arguments."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Act for this tenant, as an admin.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Connect by TLS, with the system's roots.")] = False,
    ca_file: Annotated[Path | None, typer.Option(help="Connect by TLS, with the roots of this file.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Send the key unencrypted to another machine.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj = Access(target, api_key, tenant, tls, ca_file, insecure)


def main() -> None:
    """Runs the command that the arguments name."""
    app()
