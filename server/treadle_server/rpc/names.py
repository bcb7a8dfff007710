"""Resource names: how they are made up, and their parts."""

import re
from collections.abc import Mapping

from treadle_server.core.errors import Refused, invalid

_ID = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NUMBER = r"[1-9][0-9]{0,8}"

PATTERNS: Mapping[str, re.Pattern[str]] = {
    "treadle.dev/Agent": re.compile(rf"agents/({_ID})\Z"),
    "treadle.dev/AgentVersion": re.compile(rf"agents/({_ID})/versions/({_NUMBER})\Z"),
    "treadle.dev/Session": re.compile(rf"sessions/({_ID})\Z"),
    "treadle.dev/Thread": re.compile(rf"threads/({_ID})\Z"),
    "treadle.dev/Tenant": re.compile(rf"tenants/({_ID})\Z"),
    "treadle.dev/ApiKey": re.compile(rf"tenants/({_ID})/apiKeys/({_ID})\Z"),
    "treadle.dev/ToolGroup": re.compile(rf"toolGroups/({_ID})\Z"),
    "treadle.dev/Tool": re.compile(
        rf"(?:builtin/[a-z][a-z0-9_]{{0,62}}|toolServers/{_ID}/tools/[\w.-]{{1,128}})\Z"
    ),
    "treadle.dev/Webhook": re.compile(rf"webhooks/({_ID})\Z"),
    "treadle.dev/EventSource": re.compile(rf"eventSources/({_ID})\Z"),
}
SHAPES: Mapping[str, str] = {
    "treadle.dev/Agent": "agents/{agent}",
    "treadle.dev/AgentVersion": "agents/{agent}/versions/{version}",
    "treadle.dev/Session": "sessions/{session}",
    "treadle.dev/Thread": "threads/{thread}",
    "treadle.dev/Tenant": "tenants/{tenant}",
    "treadle.dev/ApiKey": "tenants/{tenant}/apiKeys/{api_key}",
    "treadle.dev/ToolGroup": "toolGroups/{tool_group}",
    "treadle.dev/Tool": "builtin/{tool} or toolServers/{tool_server}/tools/{tool}",
    "treadle.dev/Webhook": "webhooks/{webhook}",
    "treadle.dev/EventSource": "eventSources/{event_source}",
}
PARENTS: Mapping[str, str] = {
    "treadle.dev/AgentVersion": "treadle.dev/Agent",
    "treadle.dev/ApiKey": "treadle.dev/Tenant",
}
"""Type of the resource that a type's names begin with."""


def agent_id(name: str) -> str:
    """`agents/helper` -> `helper`. Here and below: raises Refused(FIELD_INVALID) for another form."""
    return _parts("treadle.dev/Agent", name, "name")[0]


def agent_version(name: str) -> tuple[str, int]:
    """`agents/helper/versions/3` -> `("helper", 3)`."""
    agent, version = _parts("treadle.dev/AgentVersion", name, "name")
    return agent, int(version)


def thread_id(name: str) -> str:
    """`threads/t1` -> `t1`."""
    return _parts("treadle.dev/Thread", name, "name")[0]


def session_id(name: str) -> str:
    """`sessions/s1` -> `s1`."""
    return _parts("treadle.dev/Session", name, "name")[0]


def tenant_id(name: str) -> str:
    """`tenants/acme` -> `acme`."""
    return _parts("treadle.dev/Tenant", name, "name")[0]


def api_key_id(name: str) -> tuple[str, str]:
    """`tenants/acme/apiKeys/k1` -> `("acme", "k1")`."""
    tenant, key = _parts("treadle.dev/ApiKey", name, "name")
    return tenant, key


def malformed(kind: str, field: str) -> Refused:
    return invalid((field, f"must be {SHAPES[kind]}"))


def _parts(kind: str, name: str, field: str) -> tuple[str, ...]:
    match = PATTERNS[kind].match(name)
    if match is None:
        raise malformed(kind, field)
    return match.groups()
