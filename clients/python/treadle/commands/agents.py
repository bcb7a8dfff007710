"""`treadle agents`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.commands.access import access, write_json, write_rows

if TYPE_CHECKING:
    from treadle.calls.agents import AgentFields
    from treadle.v1.agent_pb2 import MemoryRule
    from treadle.v1.approval_pb2 import ApprovalPolicy

app = typer.Typer(help="Make, change and list agents.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="AGENT", help="Its id or `agents/{agent}`.")]
Limit = Annotated[int, typer.Option(min=1, help="Most items to list.")]
Json = Annotated[bool, typer.Option("--json", help="Write one item a line, as JSON.")]
Instructions = Annotated[str | None, typer.Option(help="What the model is told before everything else.")]
Tools = Annotated[
    list[str] | None,
    typer.Option(
        help="What it may call: `builtin/calculator`, `builtin` for all of these, or `toolGroups/{group}`."
        " Repeat it, or separate by commas."
    ),
]
Approve = Annotated[
    list[str] | None,
    typer.Option(
        help="Tools whose calls one person must approve: `*`, `pay*`, `builtin/remember`. Repeat it, or"
        " separate by commas; empty for none."
    ),
]
Subagents = Annotated[
    list[str] | None,
    typer.Option(
        "--subagent",
        metavar="AGENT",
        help="An agent that it may call, its id or `agents/{agent}`. Repeat it, or separate by commas; empty"
        " for none.",
    ),
]
Memories = Annotated[
    list[str] | None,
    typer.Option(
        "--memory",
        metavar="[ALIAS=]NAMESPACE[:read|:write]",
        help="Memories that it searches and, unless `:read`, saves: `notes`, `user=user:{subject.id}:read`."
        " Repeat it; empty for none.",
    ),
]
DisplayName = Annotated[str | None, typer.Option(help="Name to show to people.")]
Description = Annotated[str | None, typer.Option(help="What the agent is for.")]


@app.command("list")
def list_agents(
    context: typer.Context,
    filter: Annotated[str, typer.Option(help='As in `model = "demo:react"`.')] = "",
    show_deleted: Annotated[bool, typer.Option("--show-deleted", help="Deleted ones too.")] = False,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Lists agents, newest first."""
    with access(context).client() as client:
        agents = client.list_agents(filter=filter, show_deleted=show_deleted, page_size=limit)
        found = islice(agents, limit)
        if json:
            for agent in found:
                write_json(agent)
        else:
            rows = ((each.name, str(each.version), each.model, each.display_name) for each in found)
            write_rows(("NAME", "VERSION", "MODEL", "DISPLAY NAME"), rows)


@app.command()
def get(context: typer.Context, name: Name) -> None:
    """Prints an agent as JSON."""
    with access(context).client() as client:
        write_json(client.get_agent(name), indent=2)


@app.command()
def create(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="`provider:model`, as in `demo:react`.")],
    id: Annotated[str, typer.Option(help="Last part of its name; the server makes one if not given.")] = "",
    instructions: Instructions = None,
    tools: Tools = None,
    approve: Approve = None,
    subagents: Subagents = None,
    memories: Memories = None,
    display_name: DisplayName = None,
    description: Description = None,
) -> None:
    """Makes an agent and prints its name."""
    fields = fields_of(instructions, tools, display_name, description, approve, subagents, memories)
    with access(context).client() as client:
        typer.echo(client.create_agent(id, model=model, **fields).name)


@app.command()
def update(
    context: typer.Context,
    name: Name,
    model: Annotated[str | None, typer.Option(help="`provider:model`, as in `demo:react`.")] = None,
    instructions: Instructions = None,
    tools: Tools = None,
    approve: Approve = None,
    subagents: Subagents = None,
    memories: Memories = None,
    display_name: DisplayName = None,
    description: Description = None,
    disabled: Annotated[
        bool | None, typer.Option("--disable/--enable", help="Whether it starts threads.")
    ] = None,
    etag: Annotated[str, typer.Option(help="Refuse if it has changed since it had this etag.")] = "",
) -> None:
    """Changes what is given and prints the agent's version."""
    fields = fields_of(instructions, tools, display_name, description, approve, subagents, memories)
    if disabled is not None:
        fields["disabled"] = disabled
    if not fields and model is None:
        raise typer.BadParameter("nothing to change was given")
    with access(context).client() as client:
        agent = client.update_agent(name, model=model, etag=etag, **fields)
    typer.echo(f"{agent.name}/versions/{agent.version}")


@app.command()
def delete(
    context: typer.Context,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Cancel its threads that have not ended.")] = False,
) -> None:
    """Marks an agent as deleted."""
    with access(context).client() as client:
        client.delete_agent(name, force=force)


@app.command()
def undelete(context: typer.Context, name: Name) -> None:
    """Takes a deletion back."""
    with access(context).client() as client:
        client.undelete_agent(name)


@app.command()
def versions(context: typer.Context, name: Name, limit: Limit = 50, json: Json = False) -> None:
    """Lists an agent's versions, newest first."""
    with access(context).client() as client:
        found = islice(client.list_agent_versions(name, page_size=limit), limit)
        if json:
            for version in found:
                write_json(version)
        else:
            rows = (
                (
                    each.name,
                    each.create_time.ToJsonString()[:19],
                    each.snapshot.model,
                    each.snapshot.instructions,
                )
                for each in found
            )
            write_rows(("NAME", "CREATED", "MODEL", "INSTRUCTIONS"), rows)


@app.command()
def rollback(
    context: typer.Context,
    name: Name,
    version: Annotated[int, typer.Argument(min=1, help="Number of the version to behave like.")],
) -> None:
    """Makes a new version that behaves like an older one, and prints it."""
    with access(context).client() as client:
        agent = client.rollback_agent(name, version)
    typer.echo(f"{agent.name}/versions/{agent.version}")


def fields_of(
    instructions: str | None,
    tools: list[str] | None,
    display_name: str | None,
    description: str | None,
    approve: list[str] | None = None,
    subagents: list[str] | None = None,
    memories: list[str] | None = None,
) -> AgentFields:
    """The fields that were given on the command line, and no others."""
    fields: AgentFields = {}
    if instructions is not None:
        fields["instructions"] = instructions
    if tools is not None:
        fields["tool_groups"], fields["enabled_tools"] = tools_of(tools)
    if display_name is not None:
        fields["display_name"] = display_name
    if description is not None:
        fields["description"] = description
    if approve is not None:
        fields["approval_policy"] = _policy(approve)
    if subagents is not None:
        fields["subagents"] = _agents(subagents)
    if memories is not None:
        fields["memory_rules"] = [_memory_rule(each) for each in memories if each]
    return fields


def _policy(given: list[str]) -> ApprovalPolicy:
    """One rule for each pattern, in their order."""
    from treadle.v1.approval_pb2 import ApprovalPolicy, ApprovalRule

    rules = [ApprovalRule(tool_pattern=each, approvers_needed=1) for each in _separate(given)]
    return ApprovalPolicy(rules=rules)


def _agents(given: list[str]) -> list[str]:
    from treadle.calls import names

    return [names.agent(each) for each in _separate(given)]


def _memory_rule(given: str) -> MemoryRule:
    """A rule from its short form; only the last `:read` or `:write` is not of the namespace."""
    from treadle.v1.agent_pb2 import MemoryRule

    alias, _, place = given.rpartition("=")  # a namespace holds none
    namespace, _, access = place.rpartition(":")
    known = {"read": MemoryRule.READ, "write": MemoryRule.READ_WRITE}
    if namespace and access in known:
        return MemoryRule(alias=alias, namespace=namespace, access=known[access])
    return MemoryRule(alias=alias, namespace=place)


def tools_of(given: list[str]) -> tuple[list[str], list[str]]:
    """Tool groups, and the tools that they are narrowed down to."""
    wanted = _separate(given)
    groups = [name for name in wanted if name.startswith("toolGroups/")]
    if any(name.partition("/")[0] == "builtin" for name in wanted):
        groups.append("toolGroups/builtin")
    tools = [name for name in wanted if name != "builtin" and not name.startswith("toolGroups/")]
    return list(dict.fromkeys(groups)), list(dict.fromkeys(tools))


def _separate(given: list[str]) -> list[str]:
    return [name.strip() for names in given for name in names.split(",") if name.strip()]
