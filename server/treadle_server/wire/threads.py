"""Threads, their iterations and their events as messages."""

from collections.abc import Callable, Iterable

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.internal import encoder
from google.rpc import code_pb2

from treadle.v1 import iteration_pb2, thread_pb2
from treadle_server.core.iterations import Iteration
from treadle_server.core.kinds import CallStatus, StopReason, ThreadState
from treadle_server.core.spec import ToolSpec
from treadle_server.core.state import State
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.ports.engine import Waiting
from treadle_server.ports.feed import Item
from treadle_server.wire.messages import to_message

NO_ARGUMENTS = '{"additionalProperties":false,"properties":{},"type":"object"}'


def put_time(stamp: timestamp_pb2.Timestamp, micros: int) -> None:
    """Sets a Timestamp from microseconds since 1970."""
    seconds, rest = divmod(micros, 1_000_000)
    stamp.seconds, stamp.nanos = seconds, rest * 1000
    stamp.SetInParent()


def fill_from_state(message: thread_pb2.Thread, state: State) -> None:
    """Sets all that a thread's log tells of it, but the iterations."""
    origin = state.origin
    assert origin is not None
    agent, _, _ = origin.spec.agent_version.partition("/versions/")
    message.agent, message.agent_version = agent, origin.spec.agent_version
    message.session, message.parent_object = origin.session, origin.parent_object
    message.parent_thread, message.forked_from = origin.parent_thread, origin.forked_from
    message.retried_from = origin.retried_from
    if origin.subject is not None:
        to_message(origin.subject, message.subject)
    to_message(origin.trigger, message.trigger)
    if state.first_input is not None:
        message.input.text = state.first_input.text
        message.input.data_json = state.first_input.data_json
    for tool in state.spec.tools:
        if tool.client:
            _put_client_tool(message.client_tools.add(), tool)
    message.busy_policy = int(origin.busy_policy) or thread_pb2.Thread.ENQUEUE  # type: ignore[assignment]
    if origin.context is not None:
        to_message(origin.context, message.context)
    _fill_progress(message, state)
    _fill_end(message, state)


def _fill_progress(message: thread_pb2.Thread, state: State) -> None:
    message.state = int(state.status)  # type: ignore[assignment]
    message.iteration_count = state.iteration
    message.actions_taken = state.tool_call_count
    message.tools_used.extend(state.tools_used)
    for task in state.tasks:
        to_message(task, message.tasks.add())
    message.model_used = state.model_used
    message.last_sequence = state.sequence
    to_message(state.usage, message.usage)
    message.usage.SetInParent()
    for part, cost in (
        (message.cost, state.cost),
        (message.tree_cost, state.cost.plus(state.children_cost)),
    ):
        to_message(cost, part)
        part.SetInParent()
    put_time(message.create_time, state.create_time)
    put_time(message.update_time, state.state_time)
    if state.start_time:
        put_time(message.start_time, state.start_time)
    if state.pending is not None:
        message.pending_command = int(state.pending.command)  # type: ignore[assignment]
    _fill_runtime(message, state)
    _fill_waiting(message, state)


def _fill_runtime(message: thread_pb2.Thread, state: State) -> None:
    """How it went, in counts."""
    if not state.start_time:
        return
    counts = message.extra_metadata.get_or_create_struct("runtime")
    for what, count in state.tally.items():
        if not isinstance(what, CallStatus):
            counts[what] = count
    if state.recoveries:
        counts["recoveries"] = state.recoveries
    statuses = {what.name: count for what, count in state.tally.items() if isinstance(what, CallStatus)}
    if statuses:
        counts["tool_calls"] = statuses


def _fill_waiting(message: thread_pb2.Thread, state: State) -> None:
    for call in state.calls.values():
        if not call.open or call.runnable:
            continue
        waiting = message.waiting_for.add()
        if call.approval is not None and call.gated:
            waiting.kind = thread_pb2.WaitingFor.APPROVAL
            waiting.resource = call.approval.approval_id
        elif call.delegated:
            waiting.kind = thread_pb2.WaitingFor.CHILDREN
            waiting.resource = call.child_thread
        else:
            waiting.kind = thread_pb2.WaitingFor.INPUT if call.asked else thread_pb2.WaitingFor.CLIENT_TOOL
            waiting.resource = call.call_id
        put_time(waiting.since, call.since)


def _fill_end(message: thread_pb2.Thread, state: State) -> None:
    duration = state.running_micros
    if state.running_since:
        duration += max(0, state.update_time - state.running_since)
    message.execution_duration.FromMicroseconds(duration)
    if state.output is not None:
        to_message(state.output, message.output)
        message.output.SetInParent()
    if not state.ended:
        return
    message.stop_reason = int(state.stop_reason)  # type: ignore[assignment]
    message.success = state.status is ThreadState.COMPLETED
    put_time(message.end_time, state.end_time)
    if state.error is not None:
        message.error.code, message.error.message = state.error.code, state.error.message


def fill_condemned(message: thread_pb2.Thread, row: ThreadRow) -> None:
    """Sets what the row alone tells of a thread without a summary; of a damaged row only that it is lost."""
    message.state = thread_pb2.Thread.FAILED
    message.stop_reason = thread_pb2.Thread.DATA_LOSS
    message.error.code = code_pb2.DATA_LOSS
    message.error.message = "what is stored of the thread is damaged"
    if row.damaged:
        return
    message.stop_reason = row.stop_reason  # type: ignore[assignment]
    if row.stop_reason != StopReason.DATA_LOSS:
        message.error.code, message.error.message = code_pb2.INTERNAL, "the thread could not be driven"
    message.agent = f"agents/{row.agent_id}"
    message.agent_version = f"agents/{row.agent_id}/versions/{row.version}"
    message.session = f"sessions/{row.session_id}" if row.session_id else ""
    message.parent_object = row.parent_object
    message.last_sequence = row.sequence
    put_time(message.create_time, row.create_time)
    put_time(message.update_time, row.state_time)
    if row.start_time is not None:
        put_time(message.start_time, row.start_time)
    if row.end_time is not None:
        put_time(message.end_time, row.end_time)


def client_tool(message: thread_pb2.ClientTool) -> ToolSpec:
    """A caller's tool as a thread is pinned to it."""
    return ToolSpec(
        name=message.name,
        tool="",
        description=message.description,
        parameters_schema_json=message.parameters_schema_json or NO_ARGUMENTS,
        client=True,
        result_schema_json=message.result_schema_json,
    )


def _put_client_tool(message: thread_pb2.ClientTool, tool: ToolSpec) -> None:
    message.name, message.description = tool.name, tool.description
    if tool.parameters_schema_json != NO_ARGUMENTS:
        message.parameters_schema_json = tool.parameters_schema_json
    message.result_schema_json = tool.result_schema_json


def fill_waiting(message: thread_pb2.Thread, waiting: Waiting) -> None:
    """Says what keeps a queued thread from running."""
    part = message.waiting_for.add()
    part.kind = thread_pb2.WaitingFor.Kind.Value(waiting.kind)
    part.resource = waiting.resource
    put_time(part.since, waiting.since)


def iteration(value: Iteration) -> iteration_pb2.Iteration:
    """An iteration as it is served."""
    message = iteration_pb2.Iteration()
    message.number, message.thought = value.number, value.thought
    put_time(message.start_time, value.start_time_micros)
    if value.end_time_micros:
        put_time(message.end_time, value.end_time_micros)
    to_message(value.usage, message.usage)
    message.usage.SetInParent()
    to_message(value.cost, message.cost)
    message.cost.SetInParent()
    for action in value.actions:
        to_message(action, message.actions.add())
    return message


def struct(data: bytes) -> struct_pb2.Struct:
    """A stored Struct."""
    return struct_pb2.Struct.FromString(data)


# Streams are spliced: an event is encoded once, whoever reads it.

_EVENTS_TAG = b"\x0a"
_THREAD_TAG = b"\x0a"
_SEQUENCE_TAG = b"\x10"
_CURSOR_TAG = b"\x12"
# protobuf has no public varint encoder
_varint: Callable[[int], bytes] = encoder._VarintBytes  # type: ignore[attr-defined]


def thread_prefix(name: str) -> bytes:
    """Field `thread` of an event, encoded."""
    data = name.encode()
    return _THREAD_TAG + _varint(len(data)) + data


def spliced_event(prefix: bytes, sequence: int, body: bytes) -> bytes:
    """A whole event from its stored body: fields may come in any order, so the two just follow each other."""
    if not sequence:
        return prefix + body
    return prefix + _SEQUENCE_TAG + _varint(sequence) + body


def spliced_events(prefix: bytes, items: Iterable[Item], cursor: str = "") -> bytes:
    """A WatchThreadResponse, or any message whose field 1 is `repeated ThreadEvent events`."""
    parts = []
    for item in items:
        event = spliced_event(prefix, item.sequence, item.body)
        parts.append(_EVENTS_TAG + _varint(len(event)) + event)
    if cursor:
        data = cursor.encode()
        parts.append(_CURSOR_TAG + _varint(len(data)) + data)
    return b"".join(parts)
