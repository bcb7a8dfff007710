"""How many files the process may have open, and how many of them connections may take."""

import sys

KEPT = 256
"""For the store, for models and tools, and for modules that are imported when they are first needed."""


def connections_max() -> int | None:
    """Raises the limit as far as the system allows. None where it cannot be told."""
    if sys.platform == "win32":
        return None
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return None
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return max(most - KEPT, most // 2)
