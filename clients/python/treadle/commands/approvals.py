"""`treadle approvals`: the inbox of what waits for people."""

from __future__ import annotations

import sys
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from treadle.commands.access import access, write_json, write_rows
from treadle.commands.interrupts import insisted

if TYPE_CHECKING:
    from treadle.sync import SyncClient
    from treadle.v1.approval_pb2 import Approval

app = typer.Typer(
    help="See what waits for people, and decide it. Without a command: list.", no_args_is_help=False
)

Thread = Annotated[str, typer.Option(help="Only of this thread, its id or `threads/{thread}`.")]
All = Annotated[bool, typer.Option("--all", help="Also what is settled.")]
Limit = Annotated[int, typer.Option(min=1, help="Most approvals to list.")]
Json = Annotated[bool, typer.Option("--json", help="Write one approval a line, as JSON.")]
Name = Annotated[str, typer.Argument(metavar="APPROVAL", help="`threads/{thread}/approvals/{approval}`.")]
Message = Annotated[str, typer.Option(help="Why; the model reads it when the call is rejected.")]

HEADERS = ("NAME", "STATE", "KIND", "EXPIRES", "APPROVED BY", "CALL")


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context, thread: Thread = "-", all: All = False, limit: Limit = 50, json: Json = False
) -> None:
    if context.invoked_subcommand is None:
        list_approvals(context, thread, all, limit, json)


@app.command("list")
def list_approvals(
    context: typer.Context, thread: Thread = "-", all: All = False, limit: Limit = 50, json: Json = False
) -> None:
    """Lists what waits for people, newest first."""
    chosen = "" if all else "state = PENDING"
    with access(context).client() as client:
        found = islice(client.list_approvals(thread, filter=chosen, page_size=limit), limit)
        if json:
            for approval in found:
                write_json(approval)
        else:
            write_rows(HEADERS, (_row(approval) for approval in found))


@app.command()
def watch(
    context: typer.Context,
    decide: Annotated[
        bool, typer.Option("--decide", help="Ask about each as it comes: approve, reject or leave it.")
    ] = False,
    json: Json = False,
) -> None:
    """Shows what waits for people, and every change, until Ctrl-C."""
    with access(context).client() as client, insisted(), closing(client.watch_approvals()) as batches:
        shown: dict[str, Approval] = {}
        for batch in batches:
            for approval in batch.approvals:
                if shown.get(approval.name) == approval:  # the same may come again
                    continue
                shown[approval.name] = approval
                _show(client, approval, decide=decide, json=json)
                if not _waits(approval):
                    del shown[approval.name]


@app.command()
def get(context: typer.Context, name: Name) -> None:
    """Prints an approval with its arguments and decisions, as JSON."""
    with access(context).client() as client:
        write_json(client.get_approval(name), indent=2)


@app.command()
def approve(
    context: typer.Context,
    name: Name,
    arguments: Annotated[str, typer.Option(help="JSON object to run the call with instead.")] = "",
    result: Annotated[str, typer.Option(help="JSON that a call gave whose outcome is unknown.")] = "",
    message: Message = "",
    digest: Annotated[
        str, typer.Option(help="Digest of the arguments that were seen: approves them without asking.")
    ] = "",
) -> None:
    """Approves a call, after showing what it is."""
    given = {"arguments": _json(arguments, "--arguments"), "result": _json(result, "--result")}
    with access(context).client() as client:
        if not digest:
            approval = client.get_approval(name)
            typer.echo(_told(approval), err=True)
            typer.echo("Approve? [y/N] ", err=True, nl=False)
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                typer.echo(
                    f"left as it is; --digest {approval.arguments_digest} approves it unasked", err=True
                )
                raise typer.Exit(1)
            digest = approval.arguments_digest
        _decide(client, name, "APPROVE", digest=digest, message=message, **given)


@app.command()
def reject(context: typer.Context, name: Name, message: Message = "") -> None:
    """Rejects a call: it does not run, and the model is told."""
    with access(context).client() as client:
        _decide(client, name, "REJECT", message=message)


def _decide(
    client: SyncClient,
    name: str,
    decision: str,
    *,
    digest: str = "",
    message: str = "",
    arguments: Any = None,
    result: Any = None,
) -> None:
    from treadle.figures import value_name
    from treadle.v1.approval_pb2 import Approval

    decided = client.decide_approval(
        name,
        Approval.Decision.Value(decision),
        arguments_digest=digest,
        arguments=arguments,
        result=result,
        message=message,
    )
    still = f", {len(decided.decisions)} of {decided.approvers_needed} approved" if _waits(decided) else ""
    typer.echo(f"{decided.name} is {value_name(decided, 'state')}{still}")


def _show(client: SyncClient, approval: Approval, *, decide: bool, json: bool) -> None:
    if json:
        write_json(approval)
        return
    typer.echo(_told(approval))
    if not decide or not _waits(approval):
        return
    answer = typer.prompt("[a]pprove, [r]eject or [l]eave it", default="l").strip().lower()[:1]
    if answer == "a":
        _attempt(client, approval, "APPROVE")
    elif answer == "r":
        _attempt(client, approval, "REJECT", typer.prompt("Why", default=""))


def _attempt(client: SyncClient, approval: Approval, decision: str, message: str = "") -> None:
    """Somebody may have been faster, or more may be wanted than a yes: the next one is shown all the same."""
    from treadle.errors import TreadleError

    try:
        _decide(client, approval.name, decision, digest=approval.arguments_digest, message=message)
    except TreadleError as refused:
        typer.echo(str(refused), err=True)


def _waits(approval: Approval) -> bool:
    from treadle.v1.approval_pb2 import Approval

    return approval.state == Approval.PENDING


def _told(approval: Approval) -> str:
    """An approval on a few lines, with all of its arguments."""
    from treadle.figures import printable, shortened, value_name

    kind, state = value_name(approval, "kind"), value_name(approval, "state")
    lines = [f"{approval.name}  {kind}  {state}", f"  {_call(approval)}"]
    if approval.edited_arguments_json:
        lines.append(f"  edited: {approval.edited_arguments_json}")
    lines += [
        f"  {value_name(vote, 'decision')} by {vote.principal}{f': {vote.message}' if vote.message else ''}"
        for vote in approval.decisions
    ]
    if _waits(approval) and approval.HasField("expire_time"):
        lines.append(f"  expires {approval.expire_time.ToJsonString()[:19]}")
    return "\n".join(shortened(printable(line), 8_000) for line in lines)


def _call(approval: Approval) -> str:
    return f"{approval.tool} {approval.arguments_json}"


def _row(approval: Approval) -> tuple[str, ...]:
    from treadle.figures import value_name
    from treadle.v1.approval_pb2 import Approval

    expires = approval.expire_time.ToJsonString()[:19] if approval.HasField("expire_time") else "-"
    approved = sum(vote.decision == Approval.APPROVE for vote in approval.decisions)
    return (
        approval.name,
        value_name(approval, "state"),
        value_name(approval, "kind"),
        expires,
        f"{approved} of {approval.approvers_needed}",
        _call(approval),
    )


def _json(text: str, option: str) -> Any:
    import json

    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} is no JSON: {error}") from None
