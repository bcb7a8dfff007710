"""Units of the log for tests: what is not the point of a test has a default."""

from collections.abc import Sequence
from typing import Protocol

from treadle_server.ports.log import (
    Log,
    NewThread,
    Projection,
    Record,
    RequestRow,
    Shared,
    ThreadKey,
    Unit,
)

DAY_MICROS = 86_400_000_000
NOW = 1_700_000_000_000_000
RUNNING = 2
COMPLETED = 6


class AllocatingLog(Log, Protocol):
    """A log whose store gives out the keys of new threads."""

    def allocate_thread(self) -> int: ...


def record(text: str, private: bytes | None = None) -> Record:
    return Record(kind=3, body=text.encode(), private=private)


def records(*texts: str) -> list[Record]:
    return [record(text) for text in texts]


def projection(
    state: int = RUNNING, *, wake_at: int | None = None, frees_session: bool = False
) -> Projection:
    return Projection(
        state=state,
        stop_reason=0,
        iteration_count=1,
        tool_call_count=2,
        total_tokens=30,
        cost_micros=4,
        wake_at=wake_at,
        state_time=NOW,
        frees_session=frees_session,
    )


def new_thread(
    thread_id: str,
    *,
    agent: int = 1,
    session: int = 0,
    create_time: int = NOW,
    tags: Sequence[str] = (),
    labels: dict[str, str] | None = None,
    client_metadata: bytes = b"",
) -> NewThread:
    return NewThread(
        id=thread_id,
        agent=agent,
        version=1,
        session=session,
        spec_digest=b"digest",
        spec=b"spec",
        create_time=create_time,
        tags=tuple(tags),
        labels=labels or {},
        client_metadata=client_metadata,
    )


def creation(
    key: ThreadKey,
    *texts: str,
    thread_id: str = "",
    session: int = 0,
    request: RequestRow | None = None,
    state: int = RUNNING,
) -> Unit:
    return Unit(
        key,
        expected=0,
        records=records(*texts),
        projection=projection(state),
        new_thread=new_thread(thread_id or f"thread-{key.thread}", session=session),
        request=request,
        enters_session=session,
    )


def request(
    request_id: str = "r1",
    *,
    digest: bytes = b"d",
    principal: str = "someone",
    expire_time: int = NOW + DAY_MICROS,
) -> RequestRow:
    return RequestRow(
        request_id=request_id,
        principal=principal,
        method="CreateThread",
        digest=digest,
        resource="threads/first",
        from_sequence=1,
        response=b"answer",
        expire_time=expire_time,
    )


async def create(log: AllocatingLog, *texts: str, tenant: int = 1) -> ThreadKey:
    """Makes a thread with these records."""
    key = ThreadKey(tenant, log.allocate_thread())
    await log.submit(creation(key, *texts)).wait()
    return key


async def bodies(log: Log, key: ThreadKey, after: int = 0, limit: int = 1000) -> list[str]:
    return [stored.record.body.decode() for stored in await log.read(key, after, limit)]


def fork(key: ThreadKey, shared: Shared, *texts: str, thread_id: str = "") -> Unit:
    """A thread that begins with records of another."""
    return Unit(
        key,
        expected=shared.through,
        records=records(*texts),
        projection=projection(),
        new_thread=new_thread(thread_id or f"thread-{key.thread}"),
        shared=shared,
    )
