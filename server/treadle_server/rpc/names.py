"""Resource names: how they are made up, and their parts."""

import re
from collections.abc import Mapping

from treadle_server.core.errors import Refused, invalid
from treadle_server.core.memory import CHARACTERS, KEY_CHARACTERS_MAX, NAMESPACE_CHARACTERS_MAX

_ID = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NUMBER = r"[1-9][0-9]{0,8}"
_NAMESPACE = rf"(?!-)[{CHARACTERS}]{{1,{NAMESPACE_CHARACTERS_MAX}}}"
_KEY = rf"(?!-)[{CHARACTERS}]{{1,{KEY_CHARACTERS_MAX}}}"
_OF_MEMORIES = "both of letters and digits of ASCII and . _ ~ % : @ -, and without a hyphen first"

PATTERNS: Mapping[str, re.Pattern[str]] = {
    "treadle.dev/Agent": re.compile(rf"agents/({_ID})\Z"),
    "treadle.dev/AgentVersion": re.compile(rf"agents/({_ID})/versions/({_NUMBER})\Z"),
    "treadle.dev/Session": re.compile(rf"sessions/({_ID})\Z"),
    "treadle.dev/Thread": re.compile(rf"threads/({_ID})\Z"),
    "treadle.dev/Approval": re.compile(rf"threads/({_ID})/approvals/({_ID})\Z"),
    "treadle.dev/ApprovalParent": re.compile(rf"threads/(-|{_ID})\Z"),
    "treadle.dev/Tenant": re.compile(rf"tenants/({_ID})\Z"),
    "treadle.dev/ApiKey": re.compile(rf"tenants/({_ID})/apiKeys/({_ID})\Z"),
    "treadle.dev/ToolGroup": re.compile(rf"toolGroups/({_ID})\Z"),
    "treadle.dev/Tool": re.compile(
        rf"(?:builtin/[a-z][a-z0-9_]{{0,62}}|toolServers/{_ID}/tools/[\w.-]{{1,128}})\Z"
    ),
    "treadle.dev/Webhook": re.compile(rf"webhooks/({_ID})\Z"),
    "treadle.dev/EventSource": re.compile(rf"eventSources/({_ID})\Z"),
    "treadle.dev/MemoryNamespace": re.compile(rf"memories/(-|{_NAMESPACE})\Z"),
    "treadle.dev/Memory": re.compile(rf"memories/({_NAMESPACE})/items/({_KEY})\Z"),
}
SHAPES: Mapping[str, str] = {
    "treadle.dev/Agent": "agents/{agent}",
    "treadle.dev/AgentVersion": "agents/{agent}/versions/{version}",
    "treadle.dev/Session": "sessions/{session}",
    "treadle.dev/Thread": "threads/{thread}",
    "treadle.dev/Approval": "threads/{thread}/approvals/{approval}",
    "treadle.dev/ApprovalParent": "threads/{thread}, or threads/- for all",
    "treadle.dev/Tenant": "tenants/{tenant}",
    "treadle.dev/ApiKey": "tenants/{tenant}/apiKeys/{api_key}",
    "treadle.dev/ToolGroup": "toolGroups/{tool_group}",
    "treadle.dev/Tool": "builtin/{tool} or toolServers/{tool_server}/tools/{tool}",
    "treadle.dev/Webhook": "webhooks/{webhook}",
    "treadle.dev/EventSource": "eventSources/{event_source}",
    "treadle.dev/MemoryNamespace": f"memories/{{namespace}}, or memories/-; {_OF_MEMORIES}",
    "treadle.dev/Memory": f"memories/{{namespace}}/items/{{key}}; {_OF_MEMORIES}",
}
PARENTS: Mapping[str, str] = {
    "treadle.dev/AgentVersion": "treadle.dev/Agent",
    "treadle.dev/ApiKey": "treadle.dev/Tenant",
    "treadle.dev/Approval": "treadle.dev/ApprovalParent",
    "treadle.dev/Memory": "treadle.dev/MemoryNamespace",
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


def memory(name: str) -> tuple[str, str]:
    """`memories/user:7/items/colour` -> `("user:7", "colour")`."""
    namespace, key = _parts("treadle.dev/Memory", name, "name")
    return namespace, key


def memory_namespace(parent: str) -> str:
    """`memories/user:7` -> `user:7`; empty for `memories/-`, which stands for all."""
    namespace = _parts("treadle.dev/MemoryNamespace", parent, "parent")[0]
    return "" if namespace == "-" else namespace


def malformed(kind: str, field: str) -> Refused:
    return invalid((field, f"must be {SHAPES[kind]}"))


def _parts(kind: str, name: str, field: str) -> tuple[str, ...]:
    match = PATTERNS[kind].match(name)
    if match is None:
        raise malformed(kind, field)
    return match.groups()
