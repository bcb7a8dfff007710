"""A thread as the server shows it, compared with what is expected of it."""

from collections import Counter
from collections.abc import Iterator

from tests.machine.expected import ANSWER, APPROVAL, OUTCOME, RESULT, WAITING, Expected
from tests.machine.place import LedgerTail
from tests.machine.plan import TOOLS
from treadle import Action, Thread
from treadle.v1.thread_pb2 import WaitingFor

_KINDS = {APPROVAL: "APPROVAL", OUTCOME: "APPROVAL", ANSWER: "INPUT", RESULT: "CLIENT_TOOL"}


def differences(expected: Expected, shown: Thread, ledger: LedgerTail, *, copied: bool) -> list[str]:
    """Empty once the server has come to where the thread stands. `copied`: others play its script too."""
    return [
        *_facts(expected, shown),
        *_actions(expected, shown),
        *_waits(expected, shown),
        *_effects(expected, ledger, copied=copied),
    ]


def _facts(expected: Expected, shown: Thread) -> Iterator[str]:
    pending = "PAUSE" if expected.pausing else "COMMAND_UNSPECIFIED"
    pairs: dict[str, tuple[object, object]] = {
        "state": (Thread.State.Name(shown.state), expected.state),
        "stop_reason": (
            Thread.StopReason.Name(shown.stop_reason),
            expected.reason or "STOP_REASON_UNSPECIFIED",
        ),
        "pending_command": (Thread.Command.Name(shown.pending_command), pending),
        "iteration_count": (shown.iteration_count, expected.iteration),
        "success": (shown.success, expected.state == "COMPLETED"),
    }
    if expected.output is not None:
        pairs["output"] = (shown.output.text, expected.output)
    for name, (is_so, should_be) in pairs.items():
        if is_so != should_be:
            yield f"{name} is {is_so}, should be {should_be}"


def _actions(expected: Expected, shown: Thread) -> Iterator[str]:
    turns = [list(iteration.actions) for iteration in shown.iterations]
    if [len(turn) for turn in turns] != [len(turn) for turn in expected.turns]:
        yield f"calls by turn are {[len(turn) for turn in turns]}"
        return
    for actions, calls in zip(turns, expected.turns, strict=True):
        for action, call in zip(actions, calls, strict=True):
            status = Action.Status.Name(action.status)
            if status not in (call.statuses or {"STATUS_UNSPECIFIED"}):
                yield f"{call.note} is {status}, should be {sorted(call.statuses) or call.stands}"


def _waits(expected: Expected, shown: Thread) -> Iterator[str]:
    if expected.state not in WAITING:
        return
    waited = sorted(WaitingFor.Kind.Name(each.kind) for each in shown.waiting_for)
    wanted = sorted(_KINDS[call.stands] for call in expected.calls if call.open)
    if waited != wanted:
        yield f"it waits for {waited}, should for {wanted}"


def _effects(expected: Expected, ledger: LedgerTail, *, copied: bool) -> Iterator[str]:
    """Each attempt at a tool had its effect once, and no other took place."""
    for call in expected.everything:
        if call.tool not in TOOLS:
            continue
        counts = ledger.keys.get(call.effect_note, Counter())
        if not copied and len(counts) > 1:
            yield f"{call.effect_note} has {len(counts)} keys"
        if call.attempts not in (counts.values() or (0,)) and not (copied and not call.attempts):
            yield f"{call.effect_note} was done {dict(counts)}, should be {call.attempts} times"
        if call.arguments_note and ledger.keys.get(call.note):
            yield f"{call.note} was done with the arguments that a person changed"
    if expected.plan.model_held and not copied:
        for number, count in expected.model_attempts.items():
            asked = ledger.asked[f"{expected.thread}/{number}"]
            if asked != count:
                yield f"turn {number} was asked for {asked} times, should be {count}"
