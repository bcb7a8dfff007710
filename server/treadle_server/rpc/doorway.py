"""What every call goes through before its servicer sees it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from treadle_server.core.errors import Reason, Refused, invalid
from treadle_server.rpc.admission import Admission, Lane
from treadle_server.rpc.arrivals import Arrivals
from treadle_server.rpc.identity import Identify
from treadle_server.rpc.log_lines import LogLines
from treadle_server.rpc.stalls import Stalls
from treadle_server.rpc.validation import validate
from treadle_server.rpc.visits import Visit

STALL_SECONDS = 30.0
METADATA_BYTES_MAX = 16 * 1024
"""gRPC's own limit is per frame: a header block of many frames passes it by."""


@dataclass(slots=True)
class Doorway:
    """What all services of a server share."""

    identify: Identify
    admission: Admission = field(default_factory=Admission)
    stalls: Stalls = field(default_factory=lambda: Stalls(STALL_SECONDS))
    lines: LogLines = field(default_factory=LogLines)
    arrivals: Arrivals = field(default_factory=Arrivals)


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands for a request whose bytes are not of its message type."""

    message: str


class Admitted:
    """Within it the call counts in its lane, the caller is known and the request is valid."""

    __slots__ = ("_doorway", "_lane", "_tenant", "_visit")

    def __init__(self, doorway: Doorway, lane: Lane, visit: Visit) -> None:
        self._doorway = doorway
        self._lane = lane
        self._visit = visit
        self._tenant: int | None = None

    async def __aenter__(self) -> None:
        self._doorway.admission.check_open()
        _check_metadata(self._visit.context.invocation_metadata() or ())
        await self._visit.arrive(self._doorway.arrivals, self._doorway.identify)
        self._lane.enter()
        try:
            self._admit()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self._leave()
        if error is None:
            self._visit.answered()

    def _admit(self) -> None:
        visit = self._visit
        tenant = visit.call.identity.tenant
        self._lane.enter_tenant(tenant)
        self._tenant = tenant
        if isinstance(visit.request, Malformed):
            name = visit.request.message
            raise invalid((name, f"the request is not a {name}"))
        validate(visit.request)
        if "request_id" in visit.request.DESCRIPTOR.fields_by_name:
            self._doorway.admission.check_backlog()

    def _leave(self) -> None:
        self._lane.leave()
        if self._tenant is not None:
            self._lane.leave_tenant(self._tenant)


def _check_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Before anything is waited for: a call that is refused lets go of it."""
    if sum(len(key) + len(value) for key, value in metadata) > METADATA_BYTES_MAX:
        raise Refused(
            Reason.REQUEST_TOO_LARGE,
            f"the call's metadata has more than {METADATA_BYTES_MAX} bytes",
            metadata={"field": "metadata", "max_bytes": str(METADATA_BYTES_MAX)},
        )
