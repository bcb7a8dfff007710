"""How the commands reach the server, and how they write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from treadle.sync import SyncClient

# People wait at the other end: a server that is not there is reported soon.
PATIENCE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Access:
    """The options that stand before every command."""

    target: str
    api_key: str | None = None
    tenant: str | None = None
    tls: bool = False
    ca_file: Path | None = None
    insecure: bool = False

    def client(self) -> SyncClient:
        """A client with these options; it is the caller's to close."""
        import grpc

        from treadle.retry import Retry
        from treadle.sync import SyncClient

        credentials = None
        if self.tls or self.ca_file is not None:
            roots = None if self.ca_file is None else self.ca_file.read_bytes()
            credentials = grpc.ssl_channel_credentials(roots)
        try:
            return SyncClient(
                self.target,
                api_key=self.api_key,
                tenant=self.tenant,
                credentials=credentials,
                insecure=self.insecure,
                retry=Retry(call_seconds_max=PATIENCE_SECONDS),
            )
        except ValueError as error:
            raise typer.BadParameter(f"{error}".replace("insecure=True", "--insecure")) from None


def access(context: typer.Context) -> Access:
    """The access that the root command has put together."""
    found = context.find_object(Access)
    assert found is not None  # the root command's callback runs before every command
    return found


def write_rows(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere one line per row, with tabs and without headers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from treadle.figures import one_line

    console = Console(highlight=False)
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(one_line(cell, 1_000) for cell in row))
        return
    table = Table(*headers, box=None, pad_edge=False)
    for column in table.columns[:1]:
        column.no_wrap = True
    for row in rows:
        table.add_row(*(Text(one_line(cell, 200)) for cell in row))
    console.print(table)


def write_json(message: Message, *, indent: int | None = None) -> None:
    """A message as JSON, on one line or indented for people."""
    from google.protobuf.json_format import MessageToJson

    typer.echo(MessageToJson(message, indent=indent))
