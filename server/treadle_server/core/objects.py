"""Objects of callers that threads are about, `type/id`, and the patterns of who may reach them."""

from collections.abc import Sequence


def fits(pattern: str, parent_object: str) -> bool:
    """`account/*` fits every account, anything else itself alone."""
    if pattern.endswith("/*"):
        return parent_object.startswith(pattern[:-1])
    return parent_object == pattern


def reaches(patterns: Sequence[str], parent_object: str) -> bool:
    """Whether a credential with these patterns reaches an object; without any it reaches everything."""
    return not patterns or any(fits(pattern, parent_object) for pattern in patterns)
