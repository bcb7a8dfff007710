"""What every store refuses with the same words."""

from typing import NoReturn

from treadle_server.core.errors import Reason, Refused
from treadle_server.ports.log import Replayed, RequestRow, ThreadKey


def id_taken(kind: str, name: str) -> Refused:
    """Refuses an id that a resource has or had."""
    return Refused(
        Reason.RESOURCE_EXISTS,
        f"{name} exists already, or did",
        metadata={"resource": name},
        resource=(f"treadle.dev/{kind}", name),
    )


def revision_differs(kind: str, name: str) -> Refused:
    """Refuses a change made to an older revision of a resource."""
    return Refused(
        Reason.ETAG_MISMATCH,
        f"{name} has changed since it was read",
        metadata={"resource": name},
        resource=(f"treadle.dev/{kind}", name),
    )


def busy(session: str, thread: str) -> Refused:
    """Refuses what only a session with no thread at work allows."""
    return Refused(
        Reason.SESSION_BUSY,
        f"{thread} of {session} has not ended: wait until it has, or cancel it",
        metadata={"session": session, "thread": thread},
        resource=("treadle.dev/Session", session),
    )


def record_corrupt(what: str, **metadata: str) -> Refused:
    """Refuses to guess what a damaged row said."""
    return Refused(Reason.RECORD_CORRUPT, f"{what} is damaged in the store", metadata=metadata)


def events_corrupt(key: ThreadKey, sequence: int) -> Refused:
    """Refuses a log from its first record on that is damaged or missing."""
    return record_corrupt(
        f"event {sequence} of thread {key.thread}", thread=str(key.thread), sequence=str(sequence)
    )


def disk_full(text: str = "the disk of the store is full") -> Refused:
    """Refuses a change that found no room. It may be tried again at any time."""
    return Refused(Reason.DISK_FULL, text)


def unavailable(why: str) -> Refused:
    """Refuses a change that was not begun."""
    return Refused(
        Reason.STORE_UNAVAILABLE, f"the store is not available: {why}", retry_after_micros=1_000_000
    )


def replay(stored: RequestRow, request: RequestRow) -> NoReturn:
    """Answers a request id that was used before: Replayed for the same call, Refused for another."""
    same = (
        stored.digest == request.digest
        and stored.principal == request.principal
        and stored.method == request.method
    )
    if not same:
        raise Refused(
            Reason.REQUEST_ID_REUSED,
            f"request_id {request.request_id!r} was used for another call",
            metadata={"request_id": request.request_id},
        )
    raise Replayed(stored.resource, stored.from_sequence, stored.response)


def parent_ended() -> Refused:
    """Refuses a thread of an agent that was called by a thread that has ended."""
    return Refused(Reason.THREAD_STATE_CONFLICT, "the thread that calls the agent has ended")
