"""ThreadService: start agents, follow them, find and stop what they do."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from google.protobuf import empty_pb2

from treadle.v1 import thread_pb2, thread_service_pb2
from treadle_server.core.errors import invalid
from treadle_server.core.events import Subject, Trigger
from treadle_server.core.kinds import BusyPolicy, TriggerType
from treadle_server.core.values import Content, Context
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.ports.codec import Codec
from treadle_server.ports.feed import Item, Subscription, Watch
from treadle_server.ports.log import ThreadKey
from treadle_server.rpc import masks
from treadle_server.rpc.calls import Call, StreamChunk
from treadle_server.rpc.cursors import cursor_of, place_of
from treadle_server.rpc.digests import asked
from treadle_server.rpc.event_streams import batch_response, kinds_of, told
from treadle_server.rpc.paging import PAGE_BYTES_MAX, page_size, position_of, token_of
from treadle_server.rpc.thread_controls import ThreadControls
from treadle_server.rpc.thread_filters import ThreadFilters
from treadle_server.rpc.thread_forks import ForkMethods
from treadle_server.rpc.thread_messages import take, thread_message
from treadle_server.services.controls import Controls
from treadle_server.services.requests import Asked
from treadle_server.services.tenant_stream import Place, TenantBatch, TenantStream, Unreadable
from treadle_server.services.thread_forks import ThreadForks
from treadle_server.services.thread_reads import EventQuery, ThreadReads, about
from treadle_server.services.thread_starts import Started, ThreadStarts, ThreadTemplate, Wish
from treadle_server.services.threads import ThreadChanges, Threads
from treadle_server.services.tree_stream import TreeStream
from treadle_server.wire import threads as wire

_START = "/treadle.v1.ThreadService/CreateThread"
_WATCH = "/treadle.v1.ThreadService/WatchThread"
_CANCEL = thread_service_pb2.ExecuteAgentRequest.CANCEL
_UPDATABLE = frozenset({"tags", "labels", "client_metadata"})


class ThreadServicer(ThreadControls, ForkMethods):
    """Reads, calls, answers."""

    def __init__(
        self,
        *,
        starts: ThreadStarts,
        reads: ThreadReads,
        threads: Threads,
        controls: Controls,
        forks: ThreadForks,
        tenants: TenantStream,
        trees: TreeStream,
        filters: ThreadFilters,
        codec: Codec,
    ) -> None:
        ThreadControls.__init__(self, controls)
        ForkMethods.__init__(self, forks, reads)
        self._starts = starts
        self._reads = reads
        self._threads = threads
        self._tenants = tenants
        self._trees = trees
        self._filters = filters
        self._codec = codec

    # Start

    async def ExecuteAgent(
        self, request: thread_service_pb2.ExecuteAgentRequest, call: Call
    ) -> thread_pb2.Thread:
        started = await self._start(request, call, cancels=request.on_deadline == _CANCEL)
        try:
            await _send_name(started, call)
            await self._starts.resting(started)
            return await self._get(call, f"threads/{started.id}", full=True)
        except asyncio.CancelledError:
            self._abandon(request.on_deadline, call, started)
            raise

    async def ExecuteAgentStream(
        self, request: thread_service_pb2.ExecuteAgentStreamRequest, call: Call
    ) -> AsyncGenerator[StreamChunk, None]:
        if request.include_children:
            async with aclosing(self._execute_tree(request, call)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        watch = self._watch(request, call)
        started = await self._starts.prior(call.identity, _repeatable(request, call), watch.after)
        if started is None and watch.after:
            raise invalid(("after_sequence", "must be 0 for a thread that is about to be made"))
        place = None
        try:
            if started is None:
                key = self._starts.allocate(call.identity)
                place = self._threads.follow_fresh(replace(watch, key=key, fresh=True))
                started = await self._start(request, call, key, cancels=request.on_deadline == _CANCEL)
            await _send_name(started, call)
            if not started.made:
                _close(place)
                place = await self._threads.follow(call.identity, f"threads/{started.id}", watch)
            async with aclosing(_chunks(f"threads/{started.id}", place, watch.after)) as chunks:
                async for chunk in chunks:
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
        await _send_name(started, call)
        return await self._get(call, f"threads/{started.id}", full=False)

    async def _start(
        self, request: Any, call: Call, key: ThreadKey | None = None, *, cancels: bool = False
    ) -> Started:
        wish = Wish(
            call.identity,
            _template(request.thread),
            request.thread_id,
            _repeatable(request, call),
            key or self._starts.allocate(call.identity),
        )
        return await self._starts.start(wish, cancelled_with_caller=cancels)

    def _abandon(self, on_deadline: int, call: Call, started: Started) -> None:
        """A reader who was let go because it stayed behind is asked to come again: its thread goes on."""
        if on_deadline == _CANCEL and not call.stalled:
            self._starts.cancel_later(call.identity, started)

    # Watch

    async def WatchThread(
        self, request: thread_service_pb2.WatchThreadRequest, call: Call
    ) -> AsyncGenerator[StreamChunk, None]:
        if request.include_children:
            async with aclosing(self._watch_tree(request, call)) as tree:
                async for chunk in tree:
                    yield chunk
            return
        watch = self._watch(request, call)
        place = await self._threads.follow(call.identity, request.name, watch)
        try:
            await call.send_metadata((("treadle-thread", request.name),))
            if request.snapshot:
                yield await self._snapshot(call, request.name)
            async with aclosing(_chunks(request.name, place, watch.after)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            _close(place)

    async def _execute_tree(
        self, request: thread_service_pb2.ExecuteAgentStreamRequest, call: Call
    ) -> AsyncGenerator[StreamChunk, None]:
        started = await self._start(request, call, cancels=request.on_deadline == _CANCEL)
        try:
            await _send_name(started, call)
            name = f"threads/{started.id}"
            async with aclosing(self._tree_chunks(name, None, request, call)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except (asyncio.CancelledError, GeneratorExit):
            self._abandon(request.on_deadline, call, started)
            raise

    async def _watch_tree(
        self, request: thread_service_pb2.WatchThreadRequest, call: Call
    ) -> AsyncGenerator[StreamChunk, None]:
        after = place_of(request.after_cursor, request.name, call)
        await self._reads.row(call.identity, request.name)
        await call.send_metadata((("treadle-thread", request.name),))
        if request.snapshot:
            yield await self._snapshot(call, request.name)
        async with aclosing(self._tree_chunks(request.name, after, request, call)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _tree_chunks(
        self, name: str, after: Place | None, request: Any, call: Call
    ) -> AsyncGenerator[StreamChunk, None]:
        """A thread's events and those of its descendants; the cursors are for WatchThread."""
        kinds = self._kinds(request.event_types)

        def cursor(place: Place) -> str:
            return cursor_of(place, name, call, _WATCH)

        try:
            async with aclosing(self._trees.follow(call.identity, name, after, kinds)) as batches:
                async for batch in batches:
                    at = cursor(batch.place)
                    yield StreamChunk(self._tenant_response(batch, at), cursor=at)
        except Unreadable as damage:
            raise told(damage, cursor(damage.place)) from damage

    def _watch(self, request: Any, call: Call) -> Watch:
        """What is to be streamed; of a thread whose key is not known yet."""
        kinds = self._kinds(request.event_types)
        deltas = request.include_deltas and (not kinds or self._codec.kind("message_delta") in kinds)
        return Watch(ThreadKey(call.tenant, 0), request.after_sequence, kinds, deltas)

    async def _snapshot(self, call: Call, name: str) -> StreamChunk:
        response = thread_service_pb2.WatchThreadResponse()
        event = response.events.add()
        event.thread = name
        event.snapshot.CopyFrom(await self._get(call, name, full=True))
        return StreamChunk(response)

    def _kinds(self, event_types: Any) -> frozenset[int]:
        return kinds_of(self._codec, event_types)

    async def WatchThreads(
        self, request: thread_service_pb2.WatchThreadsRequest, call: Call
    ) -> AsyncGenerator[StreamChunk, None]:
        wanted = await self._filters.wanted(request.filter, call)
        kinds = self._kinds(request.event_types)
        after = place_of(request.after_cursor, request.filter, call)
        try:
            async with aclosing(self._tenants.follow(call.tenant, after, wanted, kinds)) as batches:
                async for batch in batches:
                    cursor = cursor_of(batch.place, request.filter, call)
                    yield StreamChunk(self._tenant_response(batch, cursor), cursor=cursor)
        except Unreadable as damage:
            raise told(damage, cursor_of(damage.place, request.filter, call)) from damage

    def _tenant_response(self, batch: TenantBatch, cursor: str) -> bytes:
        return batch_response(self._codec, batch, cursor)

    async def ListThreadEvents(
        self, request: thread_service_pb2.ListThreadEventsRequest, call: Call
    ) -> bytes:
        kinds = self._kinds(request.event_types)
        place = position_of(request, call)
        after = request.after_sequence if place is None else place[0]
        query = EventQuery(after, page_size(request.page_size), PAGE_BYTES_MAX, kinds)
        page = await self._reads.events(call.identity, request.parent, query)
        items = [Item(found.sequence, found.record.body) for found in page.records]
        token = token_of(None if page.next is None else (page.next, 0), request, call)
        return wire.spliced_events(wire.thread_prefix(request.parent), items, token)

    async def ListIterations(
        self, request: thread_service_pb2.ListIterationsRequest, call: Call
    ) -> thread_service_pb2.ListIterationsResponse:
        place = position_of(request, call)
        begin = 0 if place is None else place[0]
        iterations = await self._reads.iterations(call.identity, request.parent)
        page = iterations[begin : begin + page_size(request.page_size)]
        taken = take(page, PAGE_BYTES_MAX) or [wire.iteration(value) for value in page[:1]]
        end = begin + len(taken)
        return thread_service_pb2.ListIterationsResponse(
            iterations=taken,
            next_page_token=token_of((end, 0) if end < len(iterations) else None, request, call),
            total_size=len(iterations),
        )

    # Manage

    async def GetThread(self, request: thread_service_pb2.GetThreadRequest, call: Call) -> thread_pb2.Thread:
        return await self._get(call, request.name, full=request.view == thread_pb2.Thread.FULL)

    async def _get(self, call: Call, name: str, *, full: bool) -> thread_pb2.Thread:
        return thread_message(await self._reads.get(call.identity, name, full=full))

    async def ListThreads(
        self, request: thread_service_pb2.ListThreadsRequest, call: Call
    ) -> thread_service_pb2.ListThreadsResponse:
        query = await self._filters.query(request, call)
        response = thread_service_pb2.ListThreadsResponse()
        room, following = PAGE_BYTES_MAX, None
        full = request.view == thread_pb2.Thread.FULL
        async with aclosing(self._reads.page(query, full=full)) as views:
            async for view, after in views:
                if view is None:
                    following = after
                    continue
                message = thread_message(view)
                room -= message.ByteSize()
                if room < 0 and response.threads:
                    break
                response.threads.append(message)
                following = after
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


def _repeatable(request: Any, call: Call) -> Asked:
    """The three ways to start attach to each other: what differs is only how the answer is given."""
    return replace(asked(request, call), method=_START)


async def _send_name(started: Started, call: Call) -> None:
    """Tells the caller what to ask for if the call breaks off."""
    await call.send_metadata((("treadle-thread", f"threads/{started.id}"),))


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
        client_tools=tuple(wire.client_tool(tool) for tool in thread.client_tools),
        parent_object=thread.parent_object,
        context=Context(thread.context.initial, thread.context.additional),
        busy_policy=BusyPolicy(thread.busy_policy or BusyPolicy.ENQUEUE),
    )


def _metadata(thread: thread_pb2.Thread) -> bytes:
    return thread.client_metadata.SerializeToString(deterministic=True)


async def _chunks(name: str, place: Subscription | None, after: int) -> AsyncGenerator[StreamChunk, None]:
    """What a place in a thread's stream gives, spliced from stored bytes."""
    if place is None:
        return
    prefix = wire.thread_prefix(name)
    with about(name):
        async for items in place:
            after = max(after, items[-1].sequence)
            yield StreamChunk(wire.spliced_events(prefix, items), after)


def _close(place: Subscription | None) -> None:
    if place is not None:
        place.close()
