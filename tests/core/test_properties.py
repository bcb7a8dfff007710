"""What holds after any sequence of asks, whether they fit or not."""

from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.asks import possible
from tests.core.histories import T0, History, created, payloads
from tests.core.test_transitions import LEGAL, pairs
from tests.core.walks import Choice, Will, choices, starts, walk, walked
from treadle_server.core import events as e
from treadle_server.core.accept import accept, advance, begin_ready
from treadle_server.core.decide import decide, wake_at
from treadle_server.core.draft import Draft
from treadle_server.core.errors import Reason, Refused
from treadle_server.core.evolve import evolve, fold
from treadle_server.core.iterations import iterations
from treadle_server.core.kinds import CallStatus, Control, Effect, StopReason, ThreadState
from treadle_server.core.state import State
from treadle_server.core.transcript import TranscriptFold
from treadle_server.core.values import Cost, Usage

Start = Callable[[], History]
walks = settings(max_examples=60, deadline=None)


@walks
@given(starts, choices)
def test_asks_are_accepted_or_refused_and_leave_the_state_before_them_alone(
    start: Start, path: list[Choice]
) -> None:
    history = start()
    shown = repr(history.state)
    for step in walk(history, path):
        assert repr(step.before) == shown
        shown = repr(history.state)


@walks
@given(starts, choices)
def test_a_draft_has_the_state_that_its_events_fold_to(start: Start, path: list[Choice]) -> None:
    history = start()
    for step in walk(history, path):
        draft = advance(step.before, step.ask)
        assert isinstance(draft, Refused) is isinstance(step.made, Refused)
        if isinstance(draft, Draft):
            assert draft.state == fold(step.before, draft.events) == history.state


@walks
@given(starts, choices)
def test_a_log_folds_to_the_same_state_at_once_and_event_by_event(start: Start, path: list[Choice]) -> None:
    history = walked(start(), path)

    state = State(history.state.spec)
    for event in history.events:
        state = evolve(state, event)
    assert state == fold(State(history.state.spec), history.events) == history.state


@walks
@given(starts, choices)
def test_events_are_numbered_without_holes_and_their_times_never_go_back(
    start: Start, path: list[Choice]
) -> None:
    history = walked(start(), path)

    assert [event.sequence for event in history.events] == [*range(1, len(history.events) + 1)]
    times = [event.time_micros for event in history.events]
    assert times == sorted(times)
    turns = [event.iteration for event in history.events]
    assert turns == sorted(turns)


@walks
@given(starts, choices)
def test_a_thread_is_created_first_and_ends_once_and_last(start: Start, path: list[Choice]) -> None:
    history = walked(start(), path)

    kinds = Counter(type(event.payload) for event in history.events)
    assert kinds[e.ThreadCreated] == 1
    assert isinstance(history.events[0].payload, e.ThreadCreated)
    assert kinds[e.ThreadEnded] == history.state.ended
    assert isinstance(history.events[-1].payload, e.ThreadEnded) is history.state.ended
    if history.state.ended:
        assert decide(history.state) == frozenset()
        assert wake_at(history.state) is None


@walks
@given(starts, choices)
def test_states_change_by_the_table(start: Start, path: list[Choice]) -> None:
    history = walked(start(), path)

    assert pairs(tuple(history.events[1:]), ThreadState.PENDING) <= LEGAL


@walks
@given(starts, choices)
def test_calls_are_requested_begun_attempt_by_attempt_and_completed_once(
    start: Start, path: list[Choice]
) -> None:
    history = walked(start(), path)

    attempts: dict[str, int] = {}
    effects: dict[str, Effect] = {}
    completed: set[str] = set()
    for event in history.events:
        match event.payload:
            case e.ToolCallRequested(tool_call_id=call_id, effect=effect):
                assert call_id not in effects
                attempts[call_id], effects[call_id] = 0, effect
            case e.ToolCallStarted(tool_call_id=call_id, attempt=attempt):
                assert call_id not in completed
                assert attempt == attempts[call_id] + 1
                assert attempt == 1 or effects[call_id] is not Effect.AT_MOST_ONCE
                attempts[call_id] = attempt
            case e.ToolAttemptFailed(tool_call_id=call_id, attempt=attempt):
                assert attempt == attempts[call_id]
            case e.ToolCallCompleted(tool_call_id=call_id):
                assert call_id not in completed
                completed.add(call_id)
    assert completed == set(effects) if history.state.ended else completed <= set(effects)


@walks
@given(starts, choices)
def test_a_gated_call_begins_only_when_it_was_approved_with_the_arguments_that_were(
    start: Start, path: list[Choice]
) -> None:
    history = start()
    asked = {payload.tool_call_id: payload for payload in payloads(history, e.ApprovalRequested)}
    for step in walk(history, path):
        if isinstance(step.made, Refused):
            continue
        for event in step.made:
            if isinstance(event.payload, e.ApprovalRequested):
                asked[event.payload.tool_call_id] = event.payload
            elif isinstance(event.payload, e.ToolCallStarted) and event.payload.tool_call_id in asked:
                request = asked[event.payload.tool_call_id]
                (decided,) = (
                    payload
                    for payload in payloads(history, e.ApprovalDecided)
                    if payload.approval_id == request.approval_id
                )
                assert decided.state.name == "APPROVED"
                call = step.before.calls[event.payload.tool_call_id]
                assert call.arguments_json == (decided.edited_arguments_json or request.arguments_json)


@walks
@given(starts, choices)
def test_an_approval_is_decided_once_and_by_the_end(start: Start, path: list[Choice]) -> None:
    history = walked(start(), path)

    asked = {payload.approval_id for payload in payloads(history, e.ApprovalRequested)}
    decided = [payload.approval_id for payload in payloads(history, e.ApprovalDecided)]
    assert len(decided) == len(set(decided))
    assert set(decided) == asked if history.state.ended else set(decided) <= asked


@walks
@given(starts, choices)
def test_nothing_begins_after_an_end_was_asked_for(start: Start, path: list[Choice]) -> None:
    history = walked(start(), path)

    asked = False
    for event in history.events:
        payload = event.payload
        if isinstance(payload, e.ControlRequested):
            asked = asked or payload.command in (Control.CANCEL, Control.COMPLETE)
        begins = isinstance(payload, e.IterationStarted | e.ModelCallStarted | e.ToolCallStarted)
        assert not (asked and begins)
        assert not (asked and isinstance(payload, e.StateChanged))


@walks
@given(starts, choices)
def test_nothing_begins_while_a_thread_is_paused(start: Start, path: list[Choice]) -> None:
    state = created().state
    for event in walked(start(), path).events[2:]:
        begins = isinstance(event.payload, e.IterationStarted | e.ModelCallStarted | e.ToolCallStarted)
        assert not begins or state.status is ThreadState.RUNNING
        state = evolve(state, event)


@walks
@given(starts, choices)
def test_every_attempt_at_a_model_call_gives_a_turn_or_is_lost_and_is_paid_once(
    start: Start, path: list[Choice]
) -> None:
    history = walked(start(), path)

    begun = [(payload.call_id, payload.attempt) for payload in payloads(history, e.ModelCallStarted)]
    paid = [(payload.call_id, payload.attempt) for payload in payloads(history, e.UsageRecorded)]
    failed = [(payload.call_id, payload.attempt) for payload in payloads(history, e.ModelCallFailed)]
    assert len(set(begun)) == len(begun)
    assert len(set(paid)) == len(paid)
    assert len(set(failed)) == len(failed)
    in_flight = history.state.model_call is not None and history.state.model_call.in_flight
    assert len(set(paid) | set(failed)) == len(begun) - in_flight
    usage, cost = Usage(), Cost()
    for payload in payloads(history, e.UsageRecorded):
        usage, cost = usage.plus(payload.usage), cost.plus(payload.cost)
    assert (history.state.usage, history.state.cost) == (usage, cost)


@walks
@given(starts, choices)
def test_inputs_are_consumed_once_in_order_and_all_of_them_before_a_thread_finishes(
    start: Start, path: list[Choice]
) -> None:
    history = walked(start(), path)

    received = [
        event.sequence
        for event in history.events
        if isinstance(event.payload, e.InputReceived) and not event.payload.tool_call_id
    ]
    consumed = [
        sequence for payload in payloads(history, e.IterationStarted) for sequence in payload.consumed_inputs
    ]
    assert [*consumed, *history.state.inputs] == received
    if history.state.stop_reason is StopReason.FINISHED:
        assert history.state.inputs == ()


@walks
@given(starts, choices)
def test_the_time_spent_running_is_that_between_the_changes_of_state(
    start: Start, path: list[Choice]
) -> None:
    history = walked(start(), path)

    running, since = 0, 0
    for event in history.events:
        if isinstance(event.payload, e.StateChanged | e.ThreadEnded) and since:
            running, since = running + event.time_micros - since, 0
        if isinstance(event.payload, e.StateChanged) and event.payload.to_state is ThreadState.RUNNING:
            since = event.time_micros
    assert (history.state.running_micros, history.state.running_since) == (running, since)


@walks
@given(starts, choices)
def test_what_a_thread_shows_fits_what_it_can_do(start: Start, path: list[Choice]) -> None:
    state = walked(start(), path).state

    open_calls = [call for call in state.calls.values() if call.open]
    match state.status:
        case ThreadState.RUNNING:
            assert decide(state) or state.ending
        case ThreadState.WAITING_APPROVAL:
            assert any(call.gated for call in open_calls)
        case ThreadState.WAITING_INPUT:
            assert open_calls
            assert not any(call.gated for call in open_calls)
        case _ if state.ended:
            assert not open_calls
    if state.status is not ThreadState.RUNNING:
        assert not state.in_flight
        assert state.pending is None


@walks
@given(starts, choices)
def test_a_living_thread_always_has_a_time_at_which_it_ends_by_itself(
    start: Start, path: list[Choice]
) -> None:
    history = walked(start(), path)

    for _ in range(20):
        if history.state.ended:
            return
        history.due()
    raise AssertionError(history.state)


@walks
@given(starts, choices)
def test_all_that_is_wanted_can_begin_and_then_nothing_more_is_wanted_but_its_outcome(
    start: Start, path: list[Choice]
) -> None:
    history = walked(start(), path)

    draft = Draft(history.state, history.now)
    far = max((command.not_before for command in history.wanted), default=0)
    begin_ready(draft, max(history.now, far))

    pausing = history.state.pending is not None
    assert pausing or all(command.begun for command in decide(draft.state))
    assert {command.call_id for command in decide(draft.state)} == {
        command.call_id for command in history.wanted
    }


@walks
@given(starts, choices)
def test_the_views_of_a_log_can_be_made_at_any_time(start: Start, path: list[Choice]) -> None:
    history = walked(start(), path)

    view = TranscriptFold()
    for event in history.events:
        view.apply(event)
    record = iterations(history.events)
    assert len(record) == history.state.iteration
    assert sum(len(iteration.actions) for iteration in record) == history.state.tool_call_count
    if history.state.ended:
        statuses = [action.status for iteration in record for action in iteration.actions]
        assert CallStatus.UNSPECIFIED not in statuses


@walks
@given(starts, choices, st.integers(10, 60))
def test_a_thread_with_an_event_of_a_newer_release_is_left_alone(
    start: Start, path: list[Choice], kind: int
) -> None:
    history = walked(start(), path)
    event = e.Event(history.state.sequence + 1, history.now, 0, e.Unknown(kind))

    state = evolve(history.state, event)

    assert state.unreadable
    assert decide(state) == frozenset()
    assert wake_at(state) is None
    for ask in possible(state, history.now)[:40]:
        refused = accept(state, ask)
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.RECORD_CORRUPT


@given(st.permutations(walked(created(), [Choice(1, n, Will.DRIVE) for n in range(40)]).events))
@settings(max_examples=50, deadline=None)
def test_folding_never_fails_whatever_the_order(events: list[e.Event]) -> None:
    state = fold(created().state, events)

    assert state.update_time >= T0
