"""Takes up what another process left: unfinished threads are driven, wait for somebody, or have a timer."""

import structlog

from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import ThreadState
from treadle_server.core.spec import Limits, Spec
from treadle_server.engine.damage import is_damage
from treadle_server.engine.embedded import EmbeddedEngine
from treadle_server.engine.specs import CachedSpecs
from treadle_server.engine.start_rates import start_rate
from treadle_server.engine.subjects import Subject
from treadle_server.ports.catalogue.threads import ThreadRow, Threads
from treadle_server.ports.log import ThreadKey

_LOG = structlog.get_logger(__name__)
_PAGE = 500
_RUNNABLE = frozenset({ThreadState.PENDING, ThreadState.RUNNING})


async def recover(engine: EmbeddedEngine, threads: Threads, specs: CachedSpecs) -> int:
    """Offers all unfinished threads to the engine, those first that had begun; returns how many there are.

    None is driven before `engine.begun`: a server answers first.
    It writes next to nothing, so it may be killed at any point: who is on trial or found guilty. That a
    damaged thread has ended is written as soon as it can be. Logs are read only as their threads are driven.
    """
    count, after = 0, 0
    queued: list[tuple[ThreadRow, Limits]] = []
    for key in await engine.begin():
        await _take_up_first(engine, threads, specs, key)
    while True:
        page = await threads.unfinished(after=after, limit=_PAGE)
        for row in page:
            count += 1
            await _take_up(engine, threads, specs, row, queued)
        if len(page) < _PAGE:
            break
        after = page[-1].key.thread
    for row, limits in queued:
        rate = start_rate(limits, row.start_time)
        engine.enqueue(row.key, subject_of(row), limits.max_concurrent_threads, row.create_time, rate)
    if count:
        _LOG.info("threads_recovered", count=count)
    return count


async def _take_up_first(
    engine: EmbeddedEngine, threads: Threads, specs: CachedSpecs, key: ThreadKey
) -> None:
    """One that is on trial. If it cannot be read, that shows again when its place among the others comes."""
    try:
        row = await threads.get_by_key(key)
    except Refused as refused:
        if refused.reason is not Reason.RECORD_CORRUPT:
            raise
        return
    if row is not None and ThreadState(row.state) in _RUNNABLE:
        await _take_up(engine, threads, specs, row, [])


async def _take_up(
    engine: EmbeddedEngine,
    threads: Threads,
    specs: CachedSpecs,
    row: ThreadRow,
    queued: list[tuple[ThreadRow, Limits]],
) -> None:
    if row.damaged:
        found = await _damaged(engine, threads, row)
        if found is None:
            return
        row = found
    if row.start_time is not None and row.session:
        engine.hold_session(row.session, row.key)
    if ThreadState(row.state) not in _RUNNABLE:
        engine.remember(row.key, subject_of(row))
        return
    try:
        spec = await _spec(specs, row)
    except Refused as refused:
        if refused.reason is not Reason.RECORD_CORRUPT:
            raise
        _LOG.error("thread_not_recovered", thread=row.id, why=refused.message)
        if is_damage(refused):
            engine.condemn(row.key, row.session, refused)
        return
    if row.start_time is None:
        queued.append((row, spec.limits))
    else:
        engine.enqueue(row.key, subject_of(row), spec.limits.max_concurrent_threads, row.create_time)


async def _damaged(engine: EmbeddedEngine, threads: Threads, row: ThreadRow) -> ThreadRow | None:
    """The thread as a second look finds it, since to condemn it is final; None if it is damaged, or gone."""
    try:
        return await threads.get_by_key(row.key)
    except Refused as refused:
        if refused.reason is not Reason.RECORD_CORRUPT:
            raise
    engine.condemn(row.key, 0, Refused(Reason.RECORD_CORRUPT, f"threads/{row.id} is damaged"))
    return None


async def _spec(specs: CachedSpecs, row: ThreadRow) -> Spec:
    """Looks twice before it raises damage."""
    try:
        return await specs.of_row(row)
    except Refused as refused:
        if not is_damage(refused):
            raise
    return await specs.of_row(row)


def subject_of(row: ThreadRow) -> Subject:
    """What admission must know of a thread, from its row."""
    session = f"sessions/{row.session_id}" if row.session_id else ""
    return Subject(row.agent, f"agents/{row.agent_id}", row.session, session)
