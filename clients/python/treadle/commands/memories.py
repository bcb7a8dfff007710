"""`treadle memories`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.commands.access import access, write_json, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from treadle.v1.memory_pb2 import Memory

app = typer.Typer(help="Put, list, search and delete what agents keep across sessions.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Write one memory a line, as JSON.")]
Namespace = Annotated[str, typer.Option(help="A namespace, or `-` for all.")]
Limit = Annotated[int, typer.Option(min=1, help="How many to show at most.")]
Place = Annotated[str, typer.Argument(metavar="NAMESPACE", help="Its namespace, or its whole name alone.")]
Key = Annotated[str, typer.Argument(metavar="[KEY]", help="Its key within the namespace.")]

HEADERS = ("NAMESPACE", "KEY", "CHANGED", "TEXT")


@app.command("list")
def list_memories(
    context: typer.Context, namespace: Namespace = "-", limit: Limit = 100, json: Json = False
) -> None:
    """Lists memories, newest first."""
    with access(context).client() as client:
        _write(client.list_memories(namespace, page_size=limit), limit, json)


@app.command()
def search(
    context: typer.Context,
    query: Annotated[
        str, typer.Argument(help='Words; "in quotes" if they follow each other, word* to begin.')
    ],
    namespace: Namespace = "-",
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """Finds memories by words, the best first."""
    with access(context).client() as client:
        _write(client.search_memories(query, namespace, page_size=limit), limit, json)


@app.command()
def get(context: typer.Context, namespace: Place, key: Key = "", json: Json = False) -> None:
    """Prints the text of a memory."""
    with access(context).client() as client:
        memory = client.get_memory(namespace, key)
    if json:
        write_json(memory)
    else:
        typer.echo(memory.text)


@app.command()
def put(
    context: typer.Context,
    namespace: Annotated[str, typer.Argument(metavar="NAMESPACE", help="Its namespace.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its key within the namespace.")],
    text: Annotated[str, typer.Argument(help="What to keep; `-` reads it from the standard input.")],
    new: Annotated[bool, typer.Option("--new", help="Refuse to replace one that is there.")] = False,
) -> None:
    """Makes a memory or replaces its text, and prints its name."""
    given = sys.stdin.read() if text == "-" else text
    with access(context).client() as client:
        memory = client.put_memory(namespace, key, text=given, etag="0" if new else "")
    typer.echo(memory.name)


@app.command()
def delete(context: typer.Context, namespace: Place, key: Key = "") -> None:
    """Deletes a memory for good."""
    with access(context).client() as client:
        client.delete_memory(namespace, key)


def _write(found: Iterable[Memory], limit: int, json: bool) -> None:
    from itertools import islice

    shown = islice(found, limit)
    if json:
        for memory in shown:
            write_json(memory)
    else:
        write_rows(HEADERS, (_row(memory) for memory in shown))


def _row(memory: Memory) -> tuple[str, ...]:
    namespace, _, key = memory.name.removeprefix("memories/").partition("/items/")
    return namespace, key, memory.update_time.ToJsonString()[:19], memory.text
