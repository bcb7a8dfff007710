"""Accepting what becomes of the agents that a thread calls."""

from dataclasses import replace

from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core.draft import Draft
from treadle_server.core.kinds import CallStatus, ThreadState
from treadle_server.core.spec import ToolSpec
from treadle_server.core.state import State
from treadle_server.core.text import bounded
from treadle_server.core.values import ProposedCall

_STATUS = {
    ThreadState.COMPLETED: CallStatus.SUCCEEDED,
    ThreadState.FAILED: CallStatus.FAILED,
    ThreadState.CANCELLED: CallStatus.CANCELLED,
    ThreadState.TIMED_OUT: CallStatus.TIMED_OUT,
}


def depth(state: State) -> int:
    """How many threads are above this one in its tree."""
    origin = state.origin
    return 0 if origin is None or origin.parent_call is None else origin.parent_call.depth


def within_depth(state: State, tool: ToolSpec | None, call: ProposedCall) -> ProposedCall:
    """The call, with why it cannot be made if it is for an agent and the tree of threads is deep enough."""
    if tool is None or not tool.agent_version or call.problem:
        return call
    most = state.spec.limits.max_depth
    if depth(state) < most:
        return call
    problem = f"agents are called at most {most} deep, and this is as deep: do it without {call.name}"
    return replace(call, problem=problem)


def answers_open_call(state: State, ended: o.ChildEnded) -> bool:
    """The child is that of a call which waits for it, whether or not its beginning was recorded."""
    call = state.calls.get(ended.call_id)
    if call is None or not call.open or not call.agent_version or not call.attempt:
        return False
    return call.child_thread in ("", ended.child_thread)


def child_started(draft: Draft, started: o.ChildStarted) -> None:
    draft.add(e.ChildThreadStarted(started.call_id, started.child_thread, started.agent_version))


def child_ended(draft: Draft, ended: o.ChildEnded) -> None:
    """The call has its result. A child may have ended before it was recorded that it began."""
    call = draft.state.calls[ended.call_id]
    if not call.child_thread:
        draft.add(e.ChildThreadStarted(ended.call_id, ended.child_thread, ended.agent_version))
    draft.add(
        e.ChildThreadEnded(
            ended.call_id,
            ended.child_thread,
            ended.state,
            ended.stop_reason,
            ended.output,
            ended.error,
            ended.usage,
            ended.cost,
        )
    )
    tool = draft.state.tool(call.name)
    text = _observation(ended)
    if tool is not None:
        text, _ = bounded(text, tool.output_bytes_max)
    duration = max(0, draft.now - draft.state.calls[ended.call_id].since)
    draft.add(e.ToolCallCompleted(ended.call_id, _STATUS[ended.state], text, duration))


def _observation(ended: o.ChildEnded) -> str:
    """What the model of the calling thread reads."""
    answer = (ended.output.data_json or ended.output.text) if ended.output is not None else ""
    if ended.state is ThreadState.COMPLETED:
        return answer
    why = f": {ended.error.message}" if ended.error is not None and ended.error.message else ""
    text = f"The agent ended {ended.state.name} ({ended.stop_reason.name}){why}."
    return f"{text} What there was of its answer: {answer}" if answer else text
