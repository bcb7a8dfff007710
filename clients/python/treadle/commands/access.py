"""How the commands reach the server, and how they write."""

from __future__ import annotations

import shutil
import sys
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
CELL_MAX = 1_000
LAST_COLUMN_MIN = 20


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
            told = str(error).replace("give credentials, or insecure=True", "give --tls, or --insecure")
            raise typer.BadParameter(told) from None


def access(context: typer.Context) -> Access:
    """The access that the root command has put together."""
    found = context.find_object(Access)
    assert found is not None  # the root command's callback runs before every command
    return found


def write_rows(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns on a terminal, the last cut to fit; elsewhere tabs, one line per row and no headers."""
    from rich.cells import cell_len, set_cell_size

    from treadle.figures import one_line

    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(one_line(cell, CELL_MAX) for cell in row))
        return
    table = [tuple(headers), *(tuple(one_line(cell, CELL_MAX) for cell in row) for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    left = shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * len(widths[:-1])
    widths[-1] = min(widths[-1], max(left, LAST_COLUMN_MIN))
    for line in table:
        cells = (set_cell_size(cell, width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def write_json(message: Message, *, indent: int | None = None) -> None:
    """A message as JSON, on one line or indented for people."""
    from google.protobuf.json_format import MessageToJson

    typer.echo(MessageToJson(message, indent=indent))
