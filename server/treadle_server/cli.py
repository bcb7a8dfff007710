"""The commands that need the server: `treadle serve`, `treadle demo` and `treadle check`."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle_server import config as configuration
from treadle_server import logs


def serve(
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT (127.0.0.1:50051); port 0 takes a free one.")
    ] = None,
    db: Annotated[
        Path | None, typer.Option(help="Database file (treadle.db), made if it is not there.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with settings; those given here and in the environment come first."),
    ] = None,
    take_over: Annotated[
        bool | None,
        typer.Option(
            "--take-over", help="Take the file from a server that is frozen, which then ends with code 75."
        ),
    ] = None,
    durability: Annotated[
        str | None, typer.Option(help="full, or relaxed: the newest changes may go at a loss of power.")
    ] = None,
    require_keys: Annotated[
        bool | None, typer.Option("--require-keys", help="Refuse calls without an API key.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key, PEM.")] = None,
    insecure_no_tls: Annotated[
        bool | None, typer.Option("--insecure-no-tls", help="Serve other machines without TLS.")
    ] = None,
    insecure_no_keys: Annotated[
        bool | None, typer.Option("--insecure-no-keys", help="Serve other machines without keys.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="console (the default) or json, on standard error.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info (the default), warning or error.")
    ] = None,
) -> None:
    """Serves agents until SIGTERM or Ctrl-C.

    Every setting also as TREADLE_... in the environment or in the file; some only there: README has all.
    """
    try:
        settings = configuration.load(
            listen=listen,
            db=db,
            config=config,
            take_over=take_over,
            durability=durability,
            require_keys=require_keys,
            tls_cert=tls_cert,
            tls_key=tls_key,
            insecure_no_tls=insecure_no_tls,
            insecure_no_keys=insecure_no_keys,
            log_format=log_format,
            log_level=log_level,
        )
    except ValueError as error:
        typer.echo(f"treadle serve: {error}", err=True)
        raise typer.Exit(2) from None
    logs.configure(settings.log_format, settings.log_level)
    from treadle_server import app

    raise typer.Exit(_run(app.serve(settings)))


def _run(main: Coroutine[Any, Any, int]) -> int:
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)


def demo() -> None:
    """Shows an agent at work: streams a run, kills the server in its middle, and the run goes on."""
    from treadle_server import demo as show

    raise typer.Exit(asyncio.run(show.run()))


def check(
    file: Annotated[Path, typer.Argument(help="Database file, also one that a server has open.")],
) -> None:
    """Looks through a whole database file and says what is wrong with it, a line each. Changes nothing.

    Exit code 0: sound; 1: damaged, or no file that this release can check; 2: there is no such file.
    """
    from treadle_server import check as checking

    raise typer.Exit(checking.run(file))


def main() -> None:
    """`python -m treadle_server`: `serve` alone."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve)
    app()
