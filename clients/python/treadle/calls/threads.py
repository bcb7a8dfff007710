"""Calls of ThreadService that start threads, read them and change what callers may change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from treadle.calls import names
from treadle.calls.call import Pages, Unary, request_id_or_new
from treadle.calls.values import input_of, struct_of
from treadle.v1 import thread_service_pb2 as rpc
from treadle.v1.content_pb2 import Input
from treadle.v1.event_pb2 import ThreadEvent
from treadle.v1.iteration_pb2 import Iteration
from treadle.v1.thread_pb2 import ClientTool, Subject, Thread, ThreadContext, Trigger

OnDeadline = rpc.ExecuteAgentRequest.OnDeadline


class ThreadFields(TypedDict, total=False):
    """Fields of a thread that a caller may set when making it, named as in `Thread`."""

    agent_version: str
    session: str
    session_key: str
    parent_object: str
    context: ThreadContext
    subject: Subject
    client_metadata: Mapping[str, Any]
    tags: Sequence[str]
    labels: Mapping[str, str]
    trigger: Trigger
    busy_policy: Thread.BusyPolicy.ValueType
    client_tools: Sequence[ClientTool]
    webhook_targets: Sequence[str]
    event_source_targets: Sequence[str]


def thread_of(agent: str, input: Input, fields: ThreadFields) -> Thread:
    """The thread that a caller wants to have."""
    plain = dict(fields)
    unknown = sorted(plain.keys() - ThreadFields.__optional_keys__)
    if unknown:
        hint = "; watch_tree follows a thread and its children" if "include_children" in unknown else ""
        raise TypeError(f"a new thread takes no argument {', '.join(unknown)}{hint}")
    metadata = plain.pop("client_metadata", None)
    if metadata is not None:
        plain["client_metadata"] = struct_of(fields["client_metadata"])
    return Thread(agent=names.agent(agent), input=input, **plain)  # type: ignore[arg-type]


def execute(
    agent: str,
    text: str = "",
    *,
    data: Any = None,
    input: Input | None = None,
    thread_id: str = "",
    request_id: str = "",
    on_deadline: OnDeadline.ValueType = OnDeadline.ON_DEADLINE_UNSPECIFIED,
    timeout: float | None = None,
    **fields: Unpack[ThreadFields],
) -> Unary[Thread]:
    """Makes a thread and answers it in full once it has ended, is PAUSED or waits for people.

    The input is `text`, any JSON value as `data`, or an `Input`. Without a timeout it waits as long as the
    thread takes; after a disconnect it goes on waiting for the same thread.
    """
    request = rpc.ExecuteAgentRequest(
        thread=thread_of(agent, input_of(text, data, input), fields),
        thread_id=thread_id,
        request_id=request_id_or_new(request_id),
        on_deadline=on_deadline,
    )
    return Unary(request, Thread, math.inf if timeout is None else timeout, lasting=True)


def create_thread(
    agent: str,
    text: str = "",
    *,
    data: Any = None,
    input: Input | None = None,
    thread_id: str = "",
    request_id: str = "",
    **fields: Unpack[ThreadFields],
) -> Unary[Thread]:
    """Makes a thread and answers it at once; the input is given as to `execute`."""
    request = rpc.CreateThreadRequest(
        thread=thread_of(agent, input_of(text, data, input), fields),
        thread_id=thread_id,
        request_id=request_id_or_new(request_id),
    )
    return Unary(request, Thread)


def get_thread(thread: str, *, view: Thread.View.ValueType = Thread.BASIC) -> Unary[Thread]:
    """Answers a thread as it is now; `Thread.FULL` adds its iterations."""
    return Unary(rpc.GetThreadRequest(name=names.thread(thread), view=view), Thread)


def list_threads(
    *,
    filter: str = "",
    order_by: str = "",
    view: Thread.View.ValueType = Thread.BASIC,
    page_size: int = 0,
) -> Pages[Thread]:
    """Lists threads, newest first unless asked otherwise, and fetches pages as they are needed."""
    request = rpc.ListThreadsRequest(filter=filter, order_by=order_by, view=view, page_size=page_size)
    return Pages(request, rpc.ListThreadsResponse, lambda page: page.threads)


def list_events(
    thread: str, *, after_sequence: int = 0, event_types: Sequence[str] = (), page_size: int = 0
) -> Pages[ThreadEvent]:
    """Lists the events that there are, and does not wait for more."""
    request = rpc.ListThreadEventsRequest(
        parent=names.thread(thread),
        after_sequence=after_sequence,
        event_types=event_types,
        page_size=page_size,
    )
    return Pages(request, rpc.ListThreadEventsResponse, lambda page: page.events)


def list_iterations(thread: str, *, page_size: int = 0) -> Pages[Iteration]:
    """Lists the turns of a thread's loop."""
    request = rpc.ListIterationsRequest(parent=names.thread(thread), page_size=page_size)
    return Pages(request, rpc.ListIterationsResponse, lambda page: page.iterations)


def update_thread(
    thread: str,
    *,
    tags: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    client_metadata: Mapping[str, Any] | None = None,
    etag: str = "",
    request_id: str = "",
) -> Unary[Thread]:
    """Replaces exactly what is given, also by an empty value."""
    changed = Thread(name=names.thread(thread), etag=etag, tags=tags, labels=labels)
    if client_metadata is not None:
        changed.client_metadata.CopyFrom(struct_of(client_metadata))
    given = {"tags": tags, "labels": labels, "client_metadata": client_metadata}
    request = rpc.UpdateThreadRequest(
        thread=changed,
        update_mask=FieldMask(paths=[path for path, value in given.items() if value is not None]),
        request_id=request_id_or_new(request_id),
    )
    return Unary(request, Thread)


def delete_thread(thread: str, *, force: bool = False, etag: str = "", request_id: str = "") -> Unary[Empty]:
    """Deletes a thread that has ended, with its log; with `force` it is cancelled first."""
    request = rpc.DeleteThreadRequest(
        name=names.thread(thread), force=force, etag=etag, request_id=request_id_or_new(request_id)
    )
    return Unary(request, Empty)
