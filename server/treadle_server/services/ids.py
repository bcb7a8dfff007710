"""Ids for what callers do not name."""

import uuid_utils


def new_id() -> str:
    """32 hexadecimal digits that rise with time."""
    return uuid_utils.uuid7().hex
