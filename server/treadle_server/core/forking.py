"""Accepting a fork: what was open where the events were cut off is settled, judged anew, or begins again."""

from treadle_server.core import children, replies
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.draft import Draft
from treadle_server.core.ending import set_out
from treadle_server.core.kinds import ApprovalKind, ThreadState
from treadle_server.core.state import Call, State


def fork(draft: Draft, ask: s.Fork) -> None:
    """Calls at most once that were in flight have an unknown outcome here too: they were made elsewhere."""
    state = draft.state
    assert state.status is not ThreadState.UNSPECIFIED, "there are events to share"
    assert not state.ended, "an end is not shared"
    shared, lost = state.sequence, _lost_calls(state)
    draft.add(e.ThreadForked(ask.forked_from, shared, ask.spec, ask.retried_from, ask.principal))
    if ask.input is not None:
        draft.add(e.InputReceived(ask.input, principal=ask.principal))
    replies.end_unknown(draft, lost, why="after a fork")
    settled = {call.call_id for call in lost}
    for call_id, proposed in ask.reviewed:
        call = draft.state.calls[call_id]
        if call.open and not call.asked and call_id not in settled:
            tool = draft.state.tool(call.name)
            replies.judge(draft, call_id, children.within_depth(draft.state, tool, proposed))
    set_out(draft)


def _lost_calls(state: State) -> list[Call]:
    """Also those about whose outcome people were asked: what they said was about the other thread's call."""
    in_flight = {call.call_id for call in replies.lost_calls(state)}
    return [call for call in state.calls.values() if call.call_id in in_flight or _in_doubt(call)]


def _in_doubt(call: Call) -> bool:
    approval = call.approval
    return call.open and approval is not None and approval.kind is ApprovalKind.TOOL_OUTCOME
