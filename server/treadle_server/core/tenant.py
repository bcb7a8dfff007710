"""Tenants as they are shown. Field names equal those of the proto message."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tenant:
    """One of those who share a server."""

    name: str
    display_name: str
    thread_retention_micros: int | None
    """None: as long as the server says."""
    create_time_micros: int
    update_time_micros: int
    etag: str
