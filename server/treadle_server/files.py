"""How many files the process may have open, and how many of them connections may take."""

import sys
from contextlib import suppress

KEPT = 256
"""For the store, for models and tools, and for modules that are imported when they are first needed."""
FILES_MAX = 2**20
"""Asked for where the system sets no limit: some refuse a limit that is none."""


def connections_max() -> int | None:
    """Raises the limit as far as the system allows. None where it cannot be told."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    with suppress(ValueError, OSError):  # what the system says it allows is not always so
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised(soft, hard, unlimited), hard))
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if most == unlimited else max(most - KEPT, most // 2)


def raised(soft: int, hard: int, unlimited: int) -> int:
    """The limit to set: as high as allowed, where that is a number, and never lower than it was."""
    if soft == unlimited:
        return soft
    return max(soft, FILES_MAX if hard == unlimited else min(hard, FILES_MAX))
