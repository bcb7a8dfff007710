"""`treadle backup`."""

from __future__ import annotations

from typing import Annotated

import typer

from treadle.commands.access import access, write_json, write_rows


def backup(
    context: typer.Context,
    id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Last part of its name and the file's; else the time.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Write it as JSON.")] = False,
) -> None:
    """Copies the whole store, as an admin, while it is in use. The file is on the server's machine."""
    with access(context).client() as client:
        made = client.create_backup(id)
    if json:
        write_json(made)
    else:
        write_rows(("PATH", "BYTES", "SHA-256"), [(made.path, str(made.size_bytes), made.sha256)])
