"""Threads as they are served."""

from collections.abc import Sequence

from treadle.v1 import iteration_pb2, thread_pb2
from treadle_server.core.iterations import Iteration
from treadle_server.services.thread_reads import ThreadView
from treadle_server.services.threads import etag_of
from treadle_server.wire import threads as wire

MESSAGE_BYTES_MAX = 1024 * 1024


def thread_message(view: ThreadView) -> thread_pb2.Thread:
    """A thread as it is served: what its log says and what only its row knows."""
    message = thread_pb2.Thread.FromString(view.summary)
    row = view.row
    if view.condemned:
        wire.fill_condemned(message, row)
    message.name = f"threads/{row.id}"
    message.session_key = view.session_key
    message.tags.extend(row.tags)
    message.labels.update(row.labels)
    if row.client_metadata:
        message.client_metadata.CopyFrom(wire.struct(row.client_metadata))
    message.etag = etag_of(row)
    for waiting in message.waiting_for:
        if waiting.kind == thread_pb2.WaitingFor.APPROVAL:  # a summary does not know its thread's name
            waiting.resource = f"{message.name}/approvals/{waiting.resource}"
    if view.waiting is not None:
        wire.fill_waiting(message, view.waiting)
    if view.iterations is not None:
        taken = take(view.iterations, MESSAGE_BYTES_MAX - message.ByteSize())
        message.iterations.extend(taken)
        message.iterations_truncated = view.condemned or len(taken) < len(view.iterations)
    return message


def take(iterations: Sequence[Iteration], room: int) -> list[iteration_pb2.Iteration]:
    """The first of them, as many as there is room for."""
    taken = []
    for value in iterations:
        message = wire.iteration(value)
        room -= message.ByteSize()
        if room < 0:
            break
        taken.append(message)
    return taken
