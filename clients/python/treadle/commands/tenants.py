"""`treadle tenants`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.commands.access import access, write_json, write_rows

if TYPE_CHECKING:
    from treadle.v1.tenant_pb2 import Tenant

app = typer.Typer(help="Make, list and change tenants, as an admin.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Write one tenant a line, as JSON.")]
Name = Annotated[str, typer.Argument(metavar="TENANT", help="Its id or `tenants/{tenant}`.")]
DisplayName = Annotated[str | None, typer.Option(help="Name to show to people.")]
Days = Annotated[
    float | None,
    typer.Option(help="How long ended threads are kept; if not given, as long as the server says."),
]

HEADERS = ("NAME", "THREADS KEPT", "DISPLAY NAME")


@app.command("list")
def list_tenants(context: typer.Context, json: Json = False) -> None:
    """Lists the tenants, newest first."""
    with access(context).client() as client:
        found = client.list_tenants()
        if json:
            for tenant in found:
                write_json(tenant)
        else:
            write_rows(HEADERS, (_row(tenant) for tenant in found))


@app.command()
def get(context: typer.Context, name: Name) -> None:
    """Prints a tenant, as JSON."""
    with access(context).client() as client:
        write_json(client.get_tenant(name), indent=2)


@app.command()
def create(
    context: typer.Context,
    id: Annotated[str, typer.Argument(metavar="[ID]", help="Last part of its name; else one is made.")] = "",
    display_name: DisplayName = None,
    thread_retention_days: Days = None,
) -> None:
    """Makes a tenant and prints its name."""
    with access(context).client() as client:
        tenant = client.create_tenant(
            id, display_name=display_name or "", thread_retention=_span(thread_retention_days)
        )
    typer.echo(tenant.name)


@app.command()
def update(
    context: typer.Context,
    name: Name,
    display_name: DisplayName = None,
    thread_retention_days: Days = None,
    clear_thread_retention: Annotated[
        bool, typer.Option("--clear-thread-retention", help="Keep threads as long as the server says.")
    ] = False,
) -> None:
    """Changes what is given. A shorter retention also takes threads that have ended already."""
    if thread_retention_days is not None and clear_thread_retention:
        raise typer.BadParameter("give --thread-retention-days or --clear-thread-retention, not both")
    with access(context).client() as client:
        tenant = client.update_tenant(
            name,
            display_name=display_name,
            thread_retention=_span(thread_retention_days),
            clear_thread_retention=clear_thread_retention,
        )
    write_json(tenant, indent=2)


def _span(days: float | None) -> timedelta | None:
    try:
        return None if days is None else timedelta(days=days)
    except (OverflowError, ValueError):
        raise typer.BadParameter(f"{days} days are no span of time") from None


def _row(tenant: Tenant) -> tuple[str, ...]:
    from treadle import figures

    kept = "as the server says"
    if tenant.HasField("thread_retention"):
        span = tenant.thread_retention.ToTimedelta()
        kept = f"{span / timedelta(days=1):g} days" if span >= timedelta(days=1) else figures.duration(span)
    return tenant.name, kept, tenant.display_name
