"""ThreadService: start agents, follow them, find and stop what they do."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import empty_pb2

from treadle.v1 import iteration_pb2, thread_pb2, thread_service_pb2
from treadle_server.core.errors import invalid
from treadle_server.core.events import Subject, Trigger
from treadle_server.core.kinds import TriggerType
from treadle_server.core.signals import GRACE_MICROS
from treadle_server.core.values import Content
from treadle_server.ports.catalogue import ThreadRow
from treadle_server.ports.codec import Codec
from treadle_server.ports.feed import Item, Subscription, Watch
from treadle_server.ports.log import ThreadKey
from treadle_server.rpc import masks
from treadle_server.rpc.calls import Call, StreamChunk
from treadle_server.rpc.cursors import cursor_of, position_of
from treadle_server.rpc.digests import asked
from treadle_server.rpc.paging import page_size, place_of, token_of
from treadle_server.rpc.thread_filters import ThreadFilters
from treadle_server.services.requests import Asked
from treadle_server.services.tenant_stream import TenantBatch, TenantStream
from treadle_server.services.threads import (
    Started,
    ThreadChanges,
    ThreadService,
    ThreadTemplate,
    ThreadView,
    etag_of,
)
from treadle_server.wire import threads as wire

_START = "/treadle.v1.ThreadService/CreateThread"
_CANCEL = thread_service_pb2.ExecuteAgentRequest.CANCEL
_PAGE_BYTES_MAX = 1024 * 1024
_UPDATABLE = frozenset({"tags", "labels", "client_metadata"})


class ThreadServicer:
    """Reads, calls, answers."""

    def __init__(
        self, threads: ThreadService, tenants: TenantStream, filters: ThreadFilters, codec: Codec
    ) -> None:
        self._threads = threads
        self._tenants = tenants
        self._filters = filters
        self._codec = codec

    # Start

    async def ExecuteAgent(
        self, request: thread_service_pb2.ExecuteAgentRequest, call: Call
    ) -> thread_pb2.Thread:
        started = await self._start(request, call)
        await call.send_metadata((("treadle-thread", f"threads/{started.id}"),))
        try:
            await self._threads.resting(started.key)
        except asyncio.CancelledError:
            self._abandon(request.on_deadline, call, started)
            raise
        return await self._get(call, f"threads/{started.id}", full=True)

    async def ExecuteAgentStream(
        self, request: thread_service_pb2.ExecuteAgentStreamRequest, call: Call
    ) -> AsyncIterator[StreamChunk]:
        kinds = self._kinds(request.event_types)
        after = request.after_sequence
        prior = await self._threads.prior(call.identity, _started(request, call))
        if prior is None and after:
            raise invalid(("after_sequence", "must be 0 for a thread that is about to be made"))
        key = prior.key if prior is not None else self._threads.allocate(call.identity)
        watch = Watch(key, after, kinds, request.include_deltas, fresh=prior is None)
        place = self._threads.follow_fresh(watch) if prior is None else None
        started = prior
        try:
            started = prior or await self._start(request, call, key)
            name = f"threads/{started.id}"
            await call.send_metadata((("treadle-thread", name),))
            if not started.made:
                _close(place)
                place = await self._threads.follow(call.identity, name, watch)
            async for chunk in _chunks(name, place, after):
                yield chunk
        except (asyncio.CancelledError, GeneratorExit):
            if started is not None:
                self._abandon(request.on_deadline, call, started)
            raise
        finally:
            _close(place)

    async def CreateThread(
        self, request: thread_service_pb2.CreateThreadRequest, call: Call
    ) -> thread_pb2.Thread:
        started = await self._start(request, call)
        return await self._get(call, f"threads/{started.id}", full=False)

    async def _start(self, request: Any, call: Call, key: ThreadKey | None = None) -> Started:
        request_id = _started(request, call)
        if key is None:
            prior = await self._threads.prior(call.identity, request_id)
            if prior is not None:
                return prior
            key = self._threads.allocate(call.identity)
        template = _template(request.thread)
        return await self._threads.start(call.identity, template, request.thread_id, request_id, key)

    def _abandon(self, on_deadline: int, call: Call, started: Started) -> None:
        if on_deadline == _CANCEL:
            self._threads.cancel_later(
                call.identity, started.key, "the caller's deadline or connection ended"
            )

    # Watch

    async def WatchThread(
        self, request: thread_service_pb2.WatchThreadRequest, call: Call
    ) -> AsyncIterator[StreamChunk]:
        kinds = self._kinds(request.event_types)
        watch = Watch(ThreadKey(call.tenant, 0), request.after_sequence, kinds, request.include_deltas)
        place = await self._threads.follow(call.identity, request.name, watch)
        try:
            await call.send_metadata((("treadle-thread", request.name),))
            if request.snapshot:
                yield await self._snapshot(call, request.name)
            async for chunk in _chunks(request.name, place, request.after_sequence):
                yield chunk
        finally:
            _close(place)

    async def _snapshot(self, call: Call, name: str) -> StreamChunk:
        response = thread_service_pb2.WatchThreadResponse()
        event = response.events.add()
        event.thread = name
        event.snapshot.CopyFrom(await self._get(call, name, full=False))
        return StreamChunk(response)

    def _kinds(self, event_types: Any) -> frozenset[int]:
        kinds = []
        for index, name in enumerate(event_types):
            kind = self._codec.kind(name)
            if kind is None:
                raise invalid((f"event_types[{index}]", "is not an event type"))
            kinds.append(kind)
        return frozenset(kinds)

    async def WatchThreads(
        self, request: thread_service_pb2.WatchThreadsRequest, call: Call
    ) -> AsyncIterator[StreamChunk]:
        wanted = await self._filters.wanted(request.filter, call)
        kinds = self._kinds(request.event_types)
        after = position_of(request.after_cursor, request.filter, call)
        async for batch in self._tenants.follow(call.tenant, after, wanted, kinds):
            yield StreamChunk(self._tenant_response(batch, request.filter, call))

    def _tenant_response(self, batch: TenantBatch, filter_text: str, call: Call) -> bytes:
        cursor = cursor_of(batch.position, filter_text, call)
        if not batch.threads:
            beat = Item(0, self._codec.heartbeat(0))
            return wire.spliced_events(b"", [beat], cursor)
        parts = [
            wire.spliced_events(wire.thread_prefix(f"threads/{thread_id}"), items)
            for thread_id, items in batch.threads
        ]
        return b"".join([*parts, wire.spliced_events(b"", (), cursor)])

    async def ListThreadEvents(
        self, request: thread_service_pb2.ListThreadEventsRequest, call: Call
    ) -> bytes:
        kinds = self._kinds(request.event_types)
        place = place_of(request, call)
        after = int(place[0]) if place is not None else request.after_sequence
        row, stored = await self._threads.events(
            call.identity, request.parent, after, page_size(request.page_size)
        )
        items, total = [], 0
        for found in stored:
            total += len(found.record.body)
            if total > _PAGE_BYTES_MAX and found is not stored[0]:
                break
            after = found.sequence
            if not kinds or found.record.kind in kinds:
                items.append(Item(found.sequence, found.record.body))
        token = token_of((after, 0) if after < row.sequence else None, request, call)
        return wire.spliced_events(wire.thread_prefix(request.parent), items, token)

    async def ListIterations(
        self, request: thread_service_pb2.ListIterationsRequest, call: Call
    ) -> thread_service_pb2.ListIterationsResponse:
        place = place_of(request, call)
        begin = int(place[0]) if place is not None else 0
        iterations = await self._threads.iterations(call.identity, request.parent)
        response = thread_service_pb2.ListIterationsResponse(total_size=len(iterations))
        page = iterations[begin : begin + page_size(request.page_size)]
        taken = _take([wire.iteration(value) for value in page])
        response.iterations.extend(taken)
        end = begin + len(taken)
        response.next_page_token = token_of((end, 0) if end < len(iterations) else None, request, call)
        return response

    # Manage

    async def GetThread(self, request: thread_service_pb2.GetThreadRequest, call: Call) -> thread_pb2.Thread:
        return await self._get(call, request.name, full=request.view == thread_pb2.Thread.FULL)

    async def _get(self, call: Call, name: str, *, full: bool) -> thread_pb2.Thread:
        return thread_message(await self._threads.get(call.identity, name, full=full))

    async def ListThreads(
        self, request: thread_service_pb2.ListThreadsRequest, call: Call
    ) -> thread_service_pb2.ListThreadsResponse:
        query = await self._filters.query(request, call)
        response = thread_service_pb2.ListThreadsResponse()
        total, following = 0, None
        full = request.view == thread_pb2.Thread.FULL
        async for view, after_view in self._threads.page(query, full=full):
            following = after_view
            message = thread_message(view)
            total += message.ByteSize()
            response.threads.append(message)
            if total > _PAGE_BYTES_MAX:
                break
        response.next_page_token = token_of(following, request, call)
        return response

    async def UpdateThread(
        self, request: thread_service_pb2.UpdateThreadRequest, call: Call
    ) -> thread_pb2.Thread:
        def wanted(row: ThreadRow) -> ThreadChanges:
            present = thread_pb2.Thread(tags=row.tags, labels=row.labels)
            present.client_metadata.MergeFromString(row.client_metadata)
            masks.apply(request.update_mask, request.thread, present, _UPDATABLE)
            return ThreadChanges(tuple(present.tags), dict(present.labels), _metadata(present))

        thread = request.thread
        view = await self._threads.update(
            call.identity, thread.name, thread.etag, wanted, asked(request, call)
        )
        return thread_message(view)

    async def DeleteThread(
        self, request: thread_service_pb2.DeleteThreadRequest, call: Call
    ) -> empty_pb2.Empty:
        await self._threads.delete(
            call.identity,
            request.name,
            etag=request.etag,
            force=request.force,
            asked=asked(request, call),
        )
        return empty_pb2.Empty()

    # Control

    async def CancelThread(
        self, request: thread_service_pb2.CancelThreadRequest, call: Call
    ) -> thread_pb2.Thread:
        grace = request.grace.ToMicroseconds() if request.HasField("grace") else GRACE_MICROS
        view = await self._threads.cancel(
            call.identity, request.name, request.reason, grace, asked(request, call)
        )
        return thread_message(view)


def thread_message(view: ThreadView) -> thread_pb2.Thread:
    """A thread as it is served: what its log says and what only its row knows."""
    message = thread_pb2.Thread.FromString(view.summary)
    row = view.row
    message.name = f"threads/{row.id}"
    message.session_key = view.session_key
    message.tags.extend(row.tags)
    message.labels.update(row.labels)
    if row.client_metadata:
        message.client_metadata.CopyFrom(wire.struct(row.client_metadata))
    message.etag = etag_of(row)
    if view.waiting is not None:
        wire.fill_waiting(message, view.waiting)
    if view.iterations is not None:
        taken = _take([wire.iteration(value) for value in view.iterations])
        message.iterations.extend(taken)
        message.iterations_truncated = len(taken) < len(view.iterations)
    return message


def _take(iterations: list[iteration_pb2.Iteration]) -> list[iteration_pb2.Iteration]:
    """As many as fit into 1 MiB, the first of them in any case."""
    total = 0
    for index, iteration in enumerate(iterations):
        total += iteration.ByteSize()
        if total > _PAGE_BYTES_MAX and index:
            return iterations[:index]
    return iterations


def _started(request: Any, call: Call) -> Asked:
    """The three ways to start attach to each other: what differs is only how the answer is given."""
    repeated = asked(request, call)
    return Asked(repeated.principal, _START, repeated.request_id, repeated.digest)


def _template(thread: thread_pb2.Thread) -> ThreadTemplate:
    subject = Subject(thread.subject.type, thread.subject.id) if thread.HasField("subject") else None
    trigger = Trigger(TriggerType(thread.trigger.type or TriggerType.API), thread.trigger.triggered_by)
    return ThreadTemplate(
        agent=thread.agent,
        agent_version=thread.agent_version,
        session=thread.session,
        session_key=thread.session_key,
        input=Content(thread.input.text, thread.input.data_json),
        subject=subject,
        trigger=trigger,
        tags=tuple(thread.tags),
        labels=dict(thread.labels),
        client_metadata=_metadata(thread),
    )


def _metadata(thread: thread_pb2.Thread) -> bytes:
    return thread.client_metadata.SerializeToString(deterministic=True)


async def _chunks(name: str, place: Subscription | None, after: int) -> AsyncIterator[StreamChunk]:
    """What a place in a thread's stream gives, spliced from stored bytes."""
    prefix = wire.thread_prefix(name)
    if place is None:
        return
    async for items in place:
        after = max(after, items[-1].sequence)
        yield StreamChunk(wire.spliced_events(prefix, items), after)


def _close(place: Subscription | None) -> None:
    if place is not None:
        place.close()
