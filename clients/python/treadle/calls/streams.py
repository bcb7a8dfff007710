"""Calls of ThreadService whose answers go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from treadle.calls import names
from treadle.calls.call import Stream, request_id_or_new
from treadle.calls.threads import OnDeadline, ThreadFields, thread_of
from treadle.calls.values import input_of
from treadle.followers import TenantFollower, ThreadFollower
from treadle.v1 import thread_service_pb2 as rpc
from treadle.v1.content_pb2 import Input
from treadle.v1.event_pb2 import ThreadEvent


def stream(
    agent: str,
    text: str = "",
    *,
    data: Any = None,
    input: Input | None = None,
    thread_id: str = "",
    request_id: str = "",
    after_sequence: int = 0,
    include_deltas: bool = False,
    include_heartbeats: bool = False,
    event_types: Sequence[str] = (),
    on_deadline: OnDeadline.ValueType = OnDeadline.ON_DEADLINE_UNSPECIFIED,
    timeout: float | None = None,
    **fields: Unpack[ThreadFields],
) -> Stream[ThreadEvent]:
    """Makes a thread and gives its events until it has ended, each once, however often the connection breaks.

    The input is given as to `execute`. Leaving the iteration ends the stream and not the thread, unless
    `on_deadline` is CANCEL; that holds only until the first disconnect.
    """
    request = rpc.ExecuteAgentStreamRequest(
        thread=thread_of(agent, input_of(text, data, input), fields),
        thread_id=thread_id,
        request_id=request_id_or_new(request_id),
        include_deltas=include_deltas,
        event_types=event_types,
        after_sequence=after_sequence,
        on_deadline=on_deadline,
    )
    return Stream(rpc.WatchThreadResponse, lambda: ThreadFollower(request, include_heartbeats), timeout)


def watch(
    thread: str,
    *,
    after_sequence: int = 0,
    include_deltas: bool = False,
    include_heartbeats: bool = False,
    event_types: Sequence[str] = (),
    snapshot: bool = False,
    timeout: float | None = None,
) -> Stream[ThreadEvent]:
    """Gives the events of a thread after a sequence until it has ended, each once, across disconnects.

    With `include_deltas` a piece never repeats text that was given before; one whose offset leaves a gap
    follows pieces that were lost, and `message_completed` has the whole text.
    """
    request = rpc.WatchThreadRequest(
        name=names.thread(thread),
        after_sequence=after_sequence,
        include_deltas=include_deltas,
        event_types=event_types,
        snapshot=snapshot,
    )
    return Stream(rpc.WatchThreadResponse, lambda: ThreadFollower(request, include_heartbeats), timeout)


def watch_tree(
    thread: str,
    *,
    after_cursor: str = "",
    include_heartbeats: bool = False,
    event_types: Sequence[str] = (),
    timeout: float | None = None,
) -> Stream[rpc.WatchThreadResponse]:
    """Gives the events of a thread and of all threads that it makes by calling agents, in batches, until the
    last of them has ended, across disconnects.

    The `cursor` of a batch is where another watch of the same thread goes on after it.
    """
    request = rpc.WatchThreadRequest(
        name=names.thread(thread), after_cursor=after_cursor, event_types=event_types, include_children=True
    )
    return Stream(rpc.WatchThreadResponse, lambda: TenantFollower(request, include_heartbeats), timeout)


def watch_threads(
    filter: str = "",
    *,
    after_cursor: str = "",
    include_heartbeats: bool = False,
    event_types: Sequence[str] = (),
    timeout: float | None = None,
) -> Stream[rpc.WatchThreadResponse]:
    """Gives the events of the tenant's threads in batches, without an end, across disconnects.

    The `cursor` of a batch is where another watch with the same filter goes on after it.
    """
    request = rpc.WatchThreadsRequest(filter=filter, after_cursor=after_cursor, event_types=event_types)
    return Stream(rpc.WatchThreadResponse, lambda: TenantFollower(request, include_heartbeats), timeout)
