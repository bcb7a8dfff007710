"""The root command: finds the commands of other distributions, and reports errors in one line."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
import typer.core
import typer.main

PLUGINS = "treadle.commands"


class RootGroup(typer.core.TyperGroup):
    """The client's own commands and those of entry points, which are loaded when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *sorted(each.name for each in _plugins() if each.name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        found = next((each for each in _plugins() if each.name == cmd_name), None)
        return None if found is None else _command(found)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            told = _explanation(error, ctx)
            if told is None:
                raise
            typer.echo(f"treadle: {told}", err=True)
            raise typer.Exit(1) from None


def _plugins() -> list[EntryPoint]:
    return list(entry_points(group=PLUGINS))


def _command(plugin: EntryPoint) -> Any:
    """The command that an entry point holds: a function, or a Typer of its own."""
    try:
        loaded = plugin.load()
    except ImportError as error:
        loaded = _missing(plugin.name, str(error))
    if isinstance(loaded, typer.Typer):
        return typer.main.get_command(loaded)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(plugin.name)(loaded)
    return typer.main.get_command(alone)


def _missing(name: str, problem: str) -> Any:
    def command() -> None:
        typer.echo(
            f"`treadle {name}` needs the server ({problem}): install treadle with its extra `server`",
            err=True,
        )
        raise typer.Exit(1)

    command.__doc__ = "Needs the server: install treadle with its extra `server`."
    return command


def _explanation(error: Exception, ctx: Any) -> str | None:
    """One line for what the user can cause or cure; None for what is a fault of ours."""
    from treadle.errors import TreadleError, Unavailable
    from treadle.figures import one_line

    if not isinstance(error, TreadleError):
        return None
    where = f" ({ctx.obj.target})" if isinstance(error, Unavailable) and not error.reason else ""
    return one_line(f"{error}{where}", 4_000)
