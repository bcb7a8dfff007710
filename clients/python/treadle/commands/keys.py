"""`treadle keys`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from treadle.commands.access import access, write_json, write_rows

app = typer.Typer(help="Make, list and delete API keys, as an admin.", no_args_is_help=True)

DEFAULT_TENANT = "default"
Tenant = Annotated[str, typer.Option(help="Whose keys; --tenant before the command, or `default`.")]
Json = Annotated[bool, typer.Option("--json", help="Write one key a line, as JSON.")]


@app.command()
def create(
    context: typer.Context,
    tenant: Tenant = "",
    principal: Annotated[str, typer.Option(help="Who acts with it; its id if not given.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="It may manage keys and act for tenants.")] = False,
    id: Annotated[str, typer.Option(help="Last part of its name; the server makes one if not given.")] = "",
    display_name: Annotated[str, typer.Option(help="Name to show to people.")] = "",
    expire_time: Annotated[datetime | None, typer.Option(help="When it stops working, in UTC.")] = None,
    object: Annotated[
        list[str] | None,
        typer.Option(help="An object that it reaches, `type/id` or `type/*`; several times for several."),
    ] = None,
    json: Json = False,
) -> None:
    """Makes a key. Its secret, which is shown this once, is all that goes to the output."""
    with access(context).client() as client:
        key = client.create_api_key(
            _tenant(context, tenant),
            api_key_id=id,
            display_name=display_name,
            principal=principal,
            admin=admin,
            expire_time=expire_time,
            object_patterns=object or (),
        )
    if json:
        write_json(key)
    elif key.secret:
        typer.echo(f"made {key.name}", err=True)
        typer.echo(key.secret)
    if not key.secret:  # the first answer was lost on its way, and the server keeps only a hash
        typer.echo(f"the secret of {key.name} was lost: delete the key and make another", err=True)
        raise typer.Exit(1)


@app.command("list")
def list_keys(context: typer.Context, tenant: Tenant = "", json: Json = False) -> None:
    """Lists a tenant's keys, newest first."""
    with access(context).client() as client:
        found = client.list_api_keys(_tenant(context, tenant))
        if json:
            for key in found:
                write_json(key)
        else:
            rows = (
                (
                    key.name,
                    key.principal,
                    "admin" if key.admin else "",
                    key.expire_time.ToJsonString() if key.HasField("expire_time") else "never",
                )
                for key in found
            )
            write_rows(("NAME", "PRINCIPAL", "ROLE", "EXPIRES"), rows)


@app.command()
def delete(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="KEY", help="Its id or `tenants/{tenant}/apiKeys/{key}`.")],
    tenant: Tenant = "",
) -> None:
    """Deletes a key, which stops working at once."""
    full = name if "/" in name else f"tenants/{_tenant(context, tenant)}/apiKeys/{name}"
    with access(context).client() as client:
        client.delete_api_key(full)


def _tenant(context: typer.Context, given: str) -> str:
    return given or access(context).tenant or DEFAULT_TENANT
