"""Events of a run as a server would send them."""

from __future__ import annotations

from google.rpc.status_pb2 import Status

from treadle.v1 import event_pb2 as events
from treadle.v1.content_pb2 import Content
from treadle.v1.event_pb2 import ThreadEvent
from treadle.v1.iteration_pb2 import Action
from treadle.v1.thread_pb2 import Thread
from treadle.v1.usage_pb2 import Cost, Usage

THREAD = "threads/t1"


def numbered(*happened: ThreadEvent) -> list[ThreadEvent]:
    """Gives each event the thread, its sequence and a time, half a second apart."""
    for number, event in enumerate(happened, start=1):
        event.thread, event.sequence = THREAD, number
        event.event_time.FromMilliseconds(1_700_000_000_000 + 500 * number)
    return list(happened)


def ended(
    state: Thread.State.ValueType = Thread.COMPLETED,
    reason: Thread.StopReason.ValueType = Thread.FINISHED,
    *,
    text: str = "",
    data_json: str = "",
    error: str = "",
) -> ThreadEvent:
    end = events.ThreadEnded(
        state=state,
        stop_reason=reason,
        usage=Usage(input_tokens=1_234, output_tokens=56),
        cost=Cost(cost_micros=1_500, currency_code="USD", known=True),
    )
    if text or data_json:
        end.output.CopyFrom(Content(text=text, data_json=data_json))
    if error:
        end.error.CopyFrom(Status(code=2, message=error))
    return ThreadEvent(thread_ended=end)


def created() -> ThreadEvent:
    spec = events.SpecReference(agent_version="agents/helper/versions/1", model="demo:react")
    return ThreadEvent(thread_created=events.ThreadCreated(spec=spec))


def calculation() -> list[ThreadEvent]:
    """Two iterations: a calculator's call, then the answer."""
    call = events.ToolCallRequested(
        tool_call_id="call-1",
        tool="calculator",
        arguments_json='{"expression":"2+2"}',
        verdict=events.ToolCallRequested.ALLOWED,
    )
    done = events.ToolCallCompleted(tool_call_id="call-1", status=Action.SUCCEEDED, observation="4")
    done.duration.FromMilliseconds(12)
    used = events.UsageRecorded(
        call_id="model-1",
        attempt=1,
        usage=Usage(input_tokens=100, cached_input_tokens=40, output_tokens=20, reasoning_tokens=5),
        cost=Cost(cost_micros=250, currency_code="USD", known=True),
    )
    return numbered(
        created(),
        ThreadEvent(input_received=events.InputReceived(content=Content(text="What is 2+2?"))),
        ThreadEvent(state_changed=events.StateChanged(to=Thread.RUNNING)),
        ThreadEvent(iteration_started=events.IterationStarted(number=1)),
        ThreadEvent(model_call_started=events.ModelCallStarted(call_id="model-1", attempt=1)),
        ThreadEvent(thought_recorded=events.ThoughtRecorded(call_id="model-1", text="I must add.")),
        ThreadEvent(message_completed=events.MessageCompleted(call_id="model-1")),
        ThreadEvent(usage_recorded=used),
        ThreadEvent(tool_call_requested=call),
        ThreadEvent(tool_call_started=events.ToolCallStarted(tool_call_id="call-1", attempt=1)),
        ThreadEvent(tool_call_completed=done),
        ThreadEvent(iteration_started=events.IterationStarted(number=2)),
        ThreadEvent(
            message_completed=events.MessageCompleted(call_id="model-2", text="It is 4.", final=True)
        ),
        ended(text="It is 4."),
    )


def piece(
    text: str,
    offset: int,
    *,
    attempt: int = 1,
    kind: events.MessageDelta.Kind.ValueType = events.MessageDelta.TEXT,
) -> ThreadEvent:
    delta = events.MessageDelta(call_id="model-1", attempt=attempt, kind=kind, offset=offset, text=text)
    return ThreadEvent(thread=THREAD, message_delta=delta)
