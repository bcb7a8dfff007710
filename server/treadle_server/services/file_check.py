"""Checks a whole file: every row, every log, and whether what rows say is what their logs say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from treadle_server.core.decide import wake_at
from treadle_server.core.events import Event, ThreadForked
from treadle_server.core.evolve import apply
from treadle_server.core.kinds import ThreadState
from treadle_server.core.state import State
from treadle_server.ports.catalogue.approvals import ApprovalRow
from treadle_server.ports.catalogue.threads import ThreadRow
from treadle_server.ports.codec import Codec
from treadle_server.ports.inspection import Inspection
from treadle_server.ports.log import ApprovalChange
from treadle_server.services.thread_reads import is_condemned


@dataclass(slots=True)
class FileCheck:
    """One pass over a file."""

    inspection: Inspection
    codec: Codec
    problem_count: int = 0

    def problems(self) -> Iterator[str]:
        """Everything that is wrong, a line each, that of a thread by its name."""
        for problem in self._all():
            self.problem_count += 1
            yield problem

    def _all(self) -> Iterator[str]:
        yield from self.inspection.structure()
        yield from self.inspection.rows()
        name = ""
        for found in self.inspection.threads():
            if isinstance(found, str):
                yield f"{name}: {found}" if name else found
                continue
            name = f"threads/{found.id}"
            for problem in self._thread(found):
                yield f"{name}: {problem}"

    def _thread(self, row: ThreadRow) -> Iterator[str]:
        """One that this release cannot make sense of is told, and keeps no other from being looked at."""
        if row.damaged:
            yield "its row is not as it was written"
        data = self.inspection.spec(row) if not row.damaged else None
        state: State | None = None
        if data is not None:
            try:
                state = State(self.codec.decode_spec(data))
            except Exception as error:
                yield f"its spec cannot be read: {error}"
        elif not row.damaged:
            yield "its spec is missing or damaged"
        yield from self._log(row, state)

    def _log(self, row: ThreadRow, state: State | None) -> Iterator[str]:
        sequence, whole, approvals = 0, True, ApprovalFold(self.codec)
        for stored in self.inspection.records(row):
            if isinstance(stored, str):
                yield stored
                whole = False
                break
            sequence = stored.sequence
            try:
                event = self.codec.decode(stored)
            except Exception as error:
                yield f"event {sequence} cannot be decoded: {error}"
                whole = False
                break
            try:
                approvals.apply(event)
                if state is not None:
                    apply(state, event)
            except Exception as error:
                yield f"event {sequence} does not follow from those before it: {error!r}"
                state = None
        if whole and not row.damaged:
            if sequence != row.sequence:
                yield f"its row counts {row.sequence} events, its log has {sequence}"
            elif state is not None:
                try:
                    yield from list(differences(row, state))
                    if not is_condemned(row):
                        yield from list(approvals.differences(self.inspection.approvals(row)))
                except Exception as error:
                    yield f"its row cannot be compared with its log: {error!r}"


class ApprovalFold:
    """The rows of a thread's approvals as its log makes them."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._rows: dict[str, list[ApprovalChange]] = {}

    def apply(self, event: Event) -> None:
        if isinstance(event.payload, ThreadForked):  # what came before is another thread's
            self._rows.clear()
        change = self._codec.approval(event)
        if change is None:
            return
        if change.kind:
            self._rows[change.approval_id] = [change]
        elif change.approval_id in self._rows:
            self._rows[change.approval_id].append(change)

    def differences(self, found: Mapping[str, ApprovalRow]) -> Iterator[str]:
        for name in sorted(self._rows.keys() | found.keys()):
            changes, row = self._rows.get(name), found.get(name)
            if row is None or changes is None:
                what = "there is no row of it" if row is None else "its log has none such"
                yield f"approvals/{name}: {what}"
                continue
            state = [change.state for change in changes if change.state][-1]
            wanted = (int(state), int(changes[0].kind), b"".join(change.body for change in changes))
            if not row.damaged and (row.state, row.kind, row.body) != wanted:
                yield f"approvals/{name}: its row is not what its log makes of it"


def differences(row: ThreadRow, state: State) -> Iterator[str]:
    """Where a row is not what the log of its thread makes of it."""
    if state.unreadable:
        yield "its log has events that this release does not know"
        return
    if is_condemned(row):
        yield f"it was ended as {ThreadState(row.state).name} without its log"
        return
    if (row.summary is None) is state.ended:
        yield "it has ended without a summary" if state.ended else "it has a summary and has not ended"
    wanted = {
        "state": int(state.status),
        "stop_reason": int(state.stop_reason),
        "iteration_count": state.iteration,
        "tool_call_count": state.tool_call_count,
        "total_tokens": state.usage.total_tokens,
        "cost_micros": state.cost.cost_micros,
        "wake_at": wake_at(state),
        "state_time": state.state_time,
        "start_time": state.start_time or None,
        "end_time": state.end_time or None,
    }
    for name, value in wanted.items():
        found = getattr(row, name)
        if found != value:
            yield f"its row says {name} {found}, its log {value}"
