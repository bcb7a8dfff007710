"""Full resource names from what people type: a bare id, or the name itself."""

from __future__ import annotations


def agent(name: str) -> str:
    return _full("agents", name)


def agent_version(agent_name: str, version: int) -> str:
    return f"{agent(agent_name)}/versions/{version}"


def thread(name: str) -> str:
    return _full("threads", name)


def session(name: str) -> str:
    return _full("sessions", name)


def tenant(name: str) -> str:
    return _full("tenants", name)


def memory_namespace(name: str) -> str:
    return _full("memories", name)


def memory(namespace: str, key: str = "") -> str:
    """Without a key the first one is the whole name."""
    return f"{memory_namespace(namespace)}/items/{key}" if key else namespace


def _full(collection: str, name: str) -> str:
    # An empty one stays empty: the server then names the missing field.
    return name if not name or "/" in name else f"{collection}/{name}"
