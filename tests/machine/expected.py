"""What a thread is by the page about the API, written down plainly and without the server's own tables.

The thread is looked at only where nothing can move by itself: what moves it is a call, a gate or a kill.
"""

from collections import Counter
from dataclasses import dataclass, field

from tests.machine.plan import AT_MOST_ONCE, CLIENT_TOOL, QUESTION, TOOLS, Plan, answer, call_gate
from tests.machine.plan import model_gate as gate_of_model
from tests.machine.plan import note as note_of

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
WAITING = frozenset({"WAITING_APPROVAL", "WAITING_INPUT"})
OK, REFUSED, DECIDED = "OK", "THREAD_STATE_CONFLICT", "APPROVAL_ALREADY_DECIDED"
"""What a call is answered with."""
FLYING, READY, DONE = "in flight", "to be begun", "done"
APPROVAL, OUTCOME, ANSWER, RESULT = "an approval", "an outcome", "an answer", "a result"
"""What a call may wait for."""
_FIRST = {"pay": APPROVAL, QUESTION: ANSWER, CLIENT_TOOL: RESULT}


@dataclass(slots=True)
class Call:
    """A tool call. `stands` is one of the words above."""

    tool: str
    note: str
    gate: str
    stands: str
    attempts: int = 0
    statuses: frozenset[str] = frozenset()
    """Any of them may be its status; empty while it is open."""
    arguments_note: str = ""
    """What it runs with, when a person changed it."""
    waits: list[str] = field(default_factory=list)
    """What it waited for from people who decide, in order."""
    decisions: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """By what was waited for: decision, edited note and result."""

    @property
    def open(self) -> bool:
        return self.stands != DONE

    def ask(self, word: str) -> None:
        self.stands = word
        if word in (APPROVAL, OUTCOME):
            self.waits.append(word)

    @property
    def effect_note(self) -> str:
        return self.arguments_note or self.note

    def end(self, *statuses: str) -> None:
        self.stands, self.statuses = DONE, frozenset(statuses)


@dataclass(slots=True)
class Expected:
    thread: str
    plan: Plan
    queued: bool
    state: str = "PENDING"
    reason: str = ""
    output: str | None = None
    """None when it is not promised."""
    pausing: bool = False
    asking: bool = False
    """The model was asked in this iteration and has not answered."""
    flying: bool = False
    """That call is in flight."""
    turns: list[list[Call]] = field(default_factory=list)
    final: bool = False
    stored: list[str] = field(default_factory=list)
    taken: dict[int, list[str]] = field(default_factory=dict)
    controls: list[str] = field(default_factory=list)
    """Reasons of those that changed something, in their order."""
    steered: list[str] = field(default_factory=list)
    answered: dict[str, str] = field(default_factory=dict)
    submitted: dict[str, str] = field(default_factory=dict)
    model_attempts: Counter[int] = field(default_factory=Counter)
    gates: set[str] = field(default_factory=set)
    """Those that are open."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def iteration(self) -> int:
        return len(self.turns)

    @property
    def calls(self) -> list[Call]:
        """Of the present iteration."""
        return self.turns[-1] if self.turns else []

    @property
    def everything(self) -> list[Call]:
        return [call for turn in self.turns for call in turn]

    def waiting(self, *words: str) -> list[Call]:
        return [call for call in self.calls if call.stands in words]

    @property
    def in_flight(self) -> bool:
        return self.flying or bool(self.waiting(FLYING))

    @property
    def closed_gates(self) -> list[str]:
        """That something in flight waits for."""
        named = [call.gate for call in self.waiting(FLYING)]
        if self.flying:
            named.append(gate_of_model(self.thread, self.iteration))
        return [name for name in named if name not in self.gates]

    # What callers ask.

    def pause(self, reason: str) -> str:
        if self.ended:
            return REFUSED
        if self.state == "PAUSED" or self.pausing:
            return OK
        self.controls.append(reason)
        if self.state == "RUNNING":
            self.pausing = True
        else:
            self.state = "PAUSED"
        return OK

    def resume(self, reason: str) -> str:
        if self.ended:
            return REFUSED
        if self.state == "PAUSED":
            self.controls.append(reason)
            self.state = "PENDING" if not self.iteration else "RUNNING"
        elif self.pausing:
            self.controls.append(reason)
            self.pausing = False
        return OK

    def cancel(self, reason: str) -> str:
        if self.ended:
            return OK if self.state == "CANCELLED" else REFUSED
        self.controls.append(reason)
        self.end("CANCELLED", "CANCELLED_BY_CALLER")
        return OK

    def complete(self, reason: str, state: str, output: str) -> str:
        if self.ended:
            return OK if (self.state, self.output) == (state, output) else REFUSED
        self.controls.append(reason)
        self.end(state, "COMPLETED_BY_CALLER", output)
        return OK

    def steer(self, text: str) -> str:
        if self.ended:
            return REFUSED
        self.stored.append(text)
        self.steered.append(text)
        return OK

    def answer(self, call: Call, text: str) -> str:
        if self.ended or call.stands != ANSWER:
            return REFUSED
        self.answered[call.note] = text
        call.end("SUCCEEDED")
        return OK

    def submit(self, call: Call, result: str, *, ok: bool) -> str:
        if self.ended or call.stands != RESULT:
            return REFUSED
        self.submitted[call.note] = result
        call.end("SUCCEEDED" if ok else "FAILED")
        return OK

    def decide(self, call: Call, kind: str, decision: str, edited: str, result: str) -> str:
        if self.ended:
            return DECIDED
        given = (decision, edited, result)
        if kind in call.decisions:
            return OK if call.decisions[kind] == given else DECIDED
        call.decisions[kind] = given
        if decision == "REJECT":
            call.end("UNKNOWN" if kind == OUTCOME else "REJECTED")
        elif result:
            call.end("SUCCEEDED")
        else:
            call.stands, call.arguments_note = READY, edited or call.arguments_note
        return OK

    # What happens.

    def kill(self) -> None:
        """The server is killed and started again."""
        lost = [call for call in self.waiting(FLYING) if call.tool in AT_MOST_ONCE]
        for call in self.waiting(FLYING):
            call.stands = READY
        self.flying = False
        for call in lost:
            if self.plan.policy == "ASK":
                call.ask(OUTCOME)
            else:
                call.end("UNKNOWN")
        if lost and self.plan.policy == "FAIL":
            self.end("FAILED", "TOOL_OUTCOME_UNKNOWN")

    def settle(self) -> None:
        """Goes on until nothing moves by itself."""
        while not self.ended and self._step():
            pass

    def _step(self) -> bool:
        if self.state == "PAUSED" or (self.state == "PENDING" and self.queued):
            return False
        if self.flying:
            if self.plan.model_held and gate_of_model(self.thread, self.iteration) not in self.gates:
                return False
            self._reply()
            return True
        passed = [call for call in self.waiting(FLYING) if not call.gate or call.gate in self.gates]
        for call in passed:
            call.end("SUCCEEDED")
        if passed:
            return True
        if self.waiting(FLYING) and (self.pausing or not self.waiting(READY)):
            return False
        return self._rest() if self.pausing else self._go_on()

    def _rest(self) -> bool:
        """A pause that was asked for takes effect, unless there is nothing left to pause."""
        self.pausing = False
        if self.final and not self.stored:
            self.end("COMPLETED", "FINISHED", answer(self.iteration))
        else:
            self.state = "PAUSED"
        return True

    def _go_on(self) -> bool:
        if ready := self.waiting(READY):
            for call in ready:
                call.stands, call.attempts = FLYING, call.attempts + 1
            self.state = "RUNNING"
            return True
        if any(call.open for call in self.calls):
            for_people = self.waiting(APPROVAL, OUTCOME)
            self.state = "WAITING_APPROVAL" if for_people else "WAITING_INPUT"
            return False
        if self.final and not self.stored:
            self.end("COMPLETED", "FINISHED", answer(self.iteration))
            return False
        self._ask_model()
        return True

    def _ask_model(self) -> None:
        self.state, self.flying = "RUNNING", True
        if not self.asking:
            self.turns.append([])
            self.taken[self.iteration], self.stored = self.stored, []
        self.asking, self.final = True, False
        self.model_attempts[self.iteration] += 1

    def _reply(self) -> None:
        self.flying = self.asking = False
        number = self.iteration
        if number > len(self.plan.turns):
            self.final = True
            return
        for place, planned in enumerate(self.plan.turns[number - 1], start=1):
            its_note = note_of(self.thread, number, place)
            gate = call_gate(its_note) if planned.held and planned.tool in TOOLS else ""
            call = Call(planned.tool, its_note, gate, READY)
            call.ask(_FIRST.get(planned.tool, READY))
            self.calls.append(call)

    def end(self, state: str, reason: str, output: str | None = None) -> None:
        for call in self.calls:
            if not call.open:
                continue
            if not call.attempts:
                call.end("CANCELLED")
            elif call.tool in AT_MOST_ONCE:
                call.end("UNKNOWN")
            else:
                call.end("CANCELLED", "ABANDONED")
        self.state, self.reason, self.output = state, reason, output
        self.flying = self.pausing = False
