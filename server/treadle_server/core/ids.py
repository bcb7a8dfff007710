"""Names and keys that follow from other names, so that nobody needs to invent them twice."""

import hashlib
import re

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")


def is_resource_id(text: str) -> bool:
    """1 to 63 lower case letters, digits and hyphens; no hyphen at either end."""
    return _ID.match(text) is not None


def child_id(tenant: int, thread: int, call_id: str) -> str:
    """Of the thread that does a call of an agent: the same for every attempt, so that it is made once."""
    return "child-" + hashlib.sha256(f"child/{tenant}/{thread}/{call_id}".encode()).hexdigest()[:32]


def idempotency_key(tenant: int, thread: int, call_id: str) -> str:
    """The same for every attempt at one call, different for every other call of any thread and fork."""
    return hashlib.sha256(f"{tenant}/{thread}/{call_id}".encode()).hexdigest()[:32]
