"""Calls of ThreadService that steer, stop and copy threads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from google.rpc.status_pb2 import Status

from treadle.calls import names
from treadle.calls.call import Unary, request_id_or_new
from treadle.calls.values import input_of, json_of
from treadle.v1 import thread_service_pb2 as rpc
from treadle.v1.content_pb2 import Content, Input
from treadle.v1.thread_pb2 import Thread

# What the server may need beyond the grace of tools to make a stop durable and answer.
STOP_SECONDS = 30.0
UNKNOWN = 2  # google.rpc.Code


def pause_thread(thread: str, *, reason: str = "", request_id: str = "") -> Unary[Thread]:
    """Stops a thread at the next step boundary, until it is resumed."""
    request = rpc.PauseThreadRequest(
        name=names.thread(thread), reason=reason, request_id=request_id_or_new(request_id)
    )
    return Unary(request, Thread)


def resume_thread(thread: str, *, reason: str = "", request_id: str = "") -> Unary[Thread]:
    """Lets a paused thread go on."""
    request = rpc.ResumeThreadRequest(
        name=names.thread(thread), reason=reason, request_id=request_id_or_new(request_id)
    )
    return Unary(request, Thread)


def cancel_thread(
    thread: str, *, reason: str = "", grace: timedelta | None = None, request_id: str = ""
) -> Unary[Thread]:
    """Ends a thread as CANCELLED and answers once it has really stopped; `grace` is for running tools."""
    request = rpc.CancelThreadRequest(
        name=names.thread(thread), reason=reason, request_id=request_id_or_new(request_id)
    )
    if grace is None:
        return Unary(request, Thread)
    request.grace.FromTimedelta(grace)
    return Unary(request, Thread, grace.total_seconds() + STOP_SECONDS)


def complete_thread(
    thread: str,
    state: Thread.State.ValueType,
    *,
    output: Content | None = None,
    reason: str = "",
    request_id: str = "",
) -> Unary[Thread]:
    """Ends a thread in the state and with the output given, and answers once it has really stopped."""
    request = rpc.CompleteThreadRequest(
        name=names.thread(thread),
        state=state,
        output=output,
        reason=reason,
        request_id=request_id_or_new(request_id),
    )
    return Unary(request, Thread)


def send_thread_input(
    thread: str,
    text: str = "",
    *,
    data: Any = None,
    input: Input | None = None,
    tool_call_id: str = "",
    request_id: str = "",
) -> Unary[Thread]:
    """Answers the question `tool_call_id`, or steers the thread; the input is given as to `execute`."""
    request = rpc.SendThreadInputRequest(
        name=names.thread(thread),
        input=input_of(text, data, input),
        tool_call_id=tool_call_id,
        request_id=request_id_or_new(request_id),
    )
    return Unary(request, Thread)


def submit_tool_result(
    thread: str,
    tool_call_id: str,
    *,
    result: Any = None,
    error: str = "",
    request_id: str = "",
) -> Unary[Thread]:
    """Gives the JSON value that a client tool returned, or what went wrong with it."""
    request = rpc.SubmitToolResultRequest(
        name=names.thread(thread), tool_call_id=tool_call_id, request_id=request_id_or_new(request_id)
    )
    if error:
        request.error.CopyFrom(Status(code=UNKNOWN, message=error))
    else:
        request.result_json = json_of(result)
    return Unary(request, Thread)


def fork_thread(
    thread: str,
    *,
    sequence: int = 0,
    agent_version: str = "",
    text: str = "",
    data: Any = None,
    input: Input | None = None,
    tags: Sequence[str] = (),
    model: str = "",
    thread_id: str = "",
    request_id: str = "",
) -> Unary[Thread]:
    """Makes a thread that shares another's events up to `sequence`, or all of them, and goes on by itself.

    What is not given stays as it was; a further input is given as to `execute`.
    """
    request = rpc.ForkThreadRequest(
        name=names.thread(thread),
        sequence=sequence,
        model=model,
        thread_id=thread_id,
        request_id=request_id_or_new(request_id),
    )
    overrides = Thread(agent_version=agent_version, tags=tags)
    if text or data is not None or input is not None:
        overrides.input.CopyFrom(input_of(text, data, input))
    if overrides.ListFields():
        request.thread.CopyFrom(overrides)
    return Unary(request, Thread)


def retry_thread(thread: str, *, thread_id: str = "", request_id: str = "") -> Unary[Thread]:
    """Makes a thread with the input and settings of one that has ended."""
    request = rpc.RetryThreadRequest(
        name=names.thread(thread), thread_id=thread_id, request_id=request_id_or_new(request_id)
    )
    return Unary(request, Thread)
