"""The state machine: random calls, gates and kills on threads of a real server, each step compared with what
is expected of it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.faults.history import History
from tests.faults.watching import Seen, watch, watching
from tests.machine.checks import faults
from tests.machine.expected import ANSWER, APPROVAL, FLYING, OK, OUTCOME, RESULT, Call, Expected
from tests.machine.observed import differences
from tests.machine.place import Place, holder_gate, holder_note
from tests.machine.plan import PLANS, STEERS_MAX, Plan, arguments
from tests.waiting import eventually
from treadle import Approval, Thread, ThreadEvent, TreadleError
from treadle.v1.content_pb2 import Content
from treadle.v1.thread_service_pb2 import WatchThreadResponse

THREADS_MAX = 3
"""Of one sequence."""
KILLS_MAX = 2
ENDS = ("COMPLETED", "FAILED", "CANCELLED")
"""That a caller may give. TIMED_OUT is the runtime's own."""
STALE = "sha256:" + "0" * 64
PICKS = st.integers(0, 11)


@dataclass(slots=True)
class Subject:
    """One thread of a sequence."""

    expected: Expected
    watched: "asyncio.Task[Seen]"
    ids: dict[str, str] = field(default_factory=dict)
    """Of calls, by their notes, once they were seen."""
    copies: list[str] = field(default_factory=list)
    """Forks and retries that were made of it."""
    shown: Thread = field(default_factory=Thread)

    @property
    def name(self) -> str:
        return f"threads/{self.expected.thread}"


class ThreadMachine(RuleBasedStateMachine):
    """Needs `place`, a server that runs; see `machine_on`."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.subjects: list[Subject] = []
        self.story: list[str] = []
        """What was done, for a failure to tell."""
        self.kills = 0
        self.asked = 0
        self.broken = False

    # Threads come, and are killed with their server.

    @initialize(plan=PLANS, deadly=st.sampled_from((False, False, True)))
    def begin(self, plan: Plan, deadly: bool) -> None:
        self.kills = 0 if deadly else KILLS_MAX
        self._start(plan)

    @precondition(lambda self: len(self.subjects) < THREADS_MAX)
    @rule(plan=PLANS)
    def start(self, plan: Plan) -> None:
        self._start(plan)

    @precondition(lambda self: self.kills < KILLS_MAX and not any(map(_was_hit, self.subjects)))
    @rule()
    def kill(self) -> None:
        self.kills += 1
        self._tell("kill")
        self._run(self.place.kill())
        for subject in self.subjects:
            subject.expected.kill()
            self._come(subject)

    @precondition(lambda self: self._queued)
    @rule(pick=PICKS)
    def release(self, pick: int) -> None:
        """The thread that held the session ends."""
        subject = _picked(self._queued, pick)
        self._tell(f"release {subject.name}")
        self.place.site.open_gate(holder_gate(subject.expected.thread))
        subject.expected.queued = False
        self._come(subject)

    @precondition(lambda self: self._closed)
    @rule(pick=PICKS)
    def open_gate(self, pick: int) -> None:
        subject, gate = _picked(self._closed, pick)
        self._tell(f"open {gate}")
        self._open(subject, gate)
        self._come(subject)

    # Controls.

    @rule(pick=PICKS, twice=st.booleans())
    def pause(self, pick: int, twice: bool) -> None:
        subject, reason = self._subject(pick), self._new("pause")
        wanted = subject.expected.pause
        client = self.place.client
        self._ask(
            subject,
            lambda: wanted(reason),
            lambda request: client.pause_thread(subject.name, reason=reason, request_id=request),
            twice,
        )

    @rule(pick=PICKS, twice=st.booleans())
    def resume(self, pick: int, twice: bool) -> None:
        subject, reason = self._subject(pick), self._new("resume")
        client = self.place.client
        self._ask(
            subject,
            lambda: subject.expected.resume(reason),
            lambda request: client.resume_thread(subject.name, reason=reason, request_id=request),
            twice,
        )

    @precondition(lambda self: self.asked > 3)
    @rule(pick=PICKS, twice=st.booleans())
    def cancel(self, pick: int, twice: bool) -> None:
        subject, reason = self._subject(pick), self._new("cancel")
        client = self.place.client
        self._ask(
            subject,
            lambda: subject.expected.cancel(reason),
            lambda request: client.cancel_thread(subject.name, reason=reason, request_id=request),
            twice,
        )

    @precondition(lambda self: self.asked > 3)
    @rule(pick=PICKS, state=st.sampled_from(ENDS), output=st.sampled_from(("one", "two")))
    def complete(self, pick: int, state: str, output: str) -> None:
        subject, reason = self._subject(pick), self._new("complete")
        client, ended = self.place.client, Thread.State.Value(state)
        self._ask(
            subject,
            lambda: subject.expected.complete(reason, state, output),
            lambda request: client.complete_thread(
                subject.name, ended, output=Content(text=output), reason=reason, request_id=request
            ),
        )

    # What people and callers give.

    @rule(pick=PICKS, twice=st.booleans())
    def steer(self, pick: int, twice: bool) -> None:
        subject, text = self._subject(pick), self._new("steer")
        if len(subject.expected.steered) == STEERS_MAX:
            return
        client = self.place.client
        self._ask(
            subject,
            lambda: subject.expected.steer(text),
            lambda request: client.send_thread_input(subject.name, text, request_id=request),
            twice,
        )

    @precondition(lambda self: self._calls(ANSWER))
    @rule(pick=PICKS, twice=st.booleans())
    def answer(self, pick: int, twice: bool) -> None:
        (subject, call), text = _picked(self._calls(ANSWER), pick), self._new("answer")
        client = self.place.client
        self._ask(
            subject,
            lambda: subject.expected.answer(call, text),
            lambda request: client.send_thread_input(
                subject.name, text, tool_call_id=subject.ids[call.note], request_id=request
            ),
            twice,
        )

    @precondition(lambda self: self._calls(RESULT))
    @rule(pick=PICKS, ok=st.booleans(), twice=st.booleans())
    def submit(self, pick: int, ok: bool, twice: bool) -> None:
        (subject, call), text = _picked(self._calls(RESULT), pick), self._new("result")
        client, given = self.place.client, {"result": text} if ok else {"error": text}
        self._ask(
            subject,
            lambda: subject.expected.submit(call, text, ok=ok),
            lambda request: client.submit_tool_result(
                subject.name, subject.ids[call.note], request_id=request, **given
            ),
            twice,
        )

    @precondition(lambda self: self._calls())
    @rule(pick=PICKS, how=st.sampled_from(("answer", "submit")))
    def give_what_nobody_asked_for(self, pick: int, how: str) -> None:
        """To a call that waits for something else, or for nothing any more."""
        subject, call = _picked(self._calls(), pick)
        client, call_id = self.place.client, subject.ids[call.note]
        if call.stands == (ANSWER if how == "answer" else RESULT):
            return
        text = self._new("nothing")
        if how == "answer":
            self._ask(
                subject,
                lambda: subject.expected.answer(call, text),
                lambda request: client.send_thread_input(
                    subject.name, text, tool_call_id=call_id, request_id=request
                ),
            )
        else:
            self._ask(
                subject,
                lambda: subject.expected.submit(call, text, ok=True),
                lambda request: client.submit_tool_result(
                    subject.name, call_id, result=text, request_id=request
                ),
            )

    # Decisions.

    @precondition(lambda self: self._calls(APPROVAL, OUTCOME))
    @rule(pick=PICKS, how=st.sampled_from(("approve", "edit", "reject", "result", "stale", "misfit")))
    def decide(self, pick: int, how: str) -> None:
        subject, call = _picked(self._calls(APPROVAL, OUTCOME), pick)
        self._decide(subject, call, call.waits[-1], how, twice=False)

    @precondition(lambda self: self._asked_before)
    @rule(pick=PICKS, how=st.sampled_from(("approve", "edit", "reject")), twice=st.booleans())
    def decide_again(self, pick: int, how: str, twice: bool) -> None:
        """Also of approvals that are long settled."""
        subject, call, kind = _picked(self._asked_before, pick)
        self._decide(subject, call, kind, how, twice=twice)

    def _decide(self, subject: Subject, call: Call, kind: str, how: str, *, twice: bool) -> None:
        if (how == "result" and kind == APPROVAL) or (how == "edit" and kind == OUTCOME):
            how = "approve"
        edited = f"{call.note}-edited" if how == "edit" else ""
        result = json.dumps(self._new("outcome")) if how == "result" else ""
        decision = "REJECT" if how == "reject" else "APPROVE"
        approval = self._run(self._approval(subject, call, kind))
        given: dict[str, Any] = {"arguments_digest": STALE if how == "stale" else approval.arguments_digest}
        if edited:
            held = bool(call.gate)
            given["arguments"] = {**arguments(call.tool, call.note, held=held), "note": edited}
        if how == "misfit" and kind == APPROVAL:
            given["arguments"] = {"price": 1}
        if result:
            given["result"] = json.loads(result)

        def wanted() -> str:
            if how == "stale":
                return "APPROVAL_STALE"
            if how == "misfit" and kind == APPROVAL:
                return "FIELD_INVALID"
            return subject.expected.decide(call, kind, decision, edited, result)

        self._ask(
            subject,
            wanted,
            lambda request: self.place.client.decide_approval(
                approval.name, Approval.Decision.Value(decision), request_id=request, **given
            ),
            twice,
        )

    async def _approval(self, subject: Subject, call: Call, kind: str) -> Approval:
        kinds = {APPROVAL: Approval.TOOL_CALL, OUTCOME: Approval.TOOL_OUTCOME}
        async for approval in self.place.client.list_approvals(subject.name):
            if approval.tool_call_id == subject.ids[call.note] and approval.kind == kinds[kind]:
                return approval
        raise AssertionError(f"{call.note} of {subject.name} has no approval")

    # Readers and copies.

    @rule(pick=PICKS, share=st.floats(0, 1))
    def read(self, pick: int, share: float) -> None:
        """A watcher who begins in the middle is sent what the log holds after it."""
        subject = self._subject(pick)
        self._tell(f"watch {subject.name}")
        self._run(self._read(subject, int(share * subject.shown.last_sequence)))

    async def _read(self, subject: Subject, after: int) -> None:
        log = [event async for event in self.place.client.list_events(subject.name, page_size=1000)]
        stream = watching(self.place.channel, subject.name)(after)
        seen: list[ThreadEvent] = []
        async with asyncio.timeout(20):
            while after + len(seen) < len(log):
                response = await stream.read()
                assert isinstance(response, WatchThreadResponse), (
                    f"it ends after {len(seen)} of {len(log) - after}"
                )
                seen += [event for event in response.events if event.sequence]
        stream.cancel()
        assert seen[: len(log) - after] == log[after:], f"after {after}: {seen}"

    @precondition(lambda self: self.asked > 1 and sum(len(each.copies) for each in self.subjects) < 2)
    @rule(pick=PICKS, share=st.floats(0, 1), how=st.sampled_from(("fork", "retry")))
    def copy(self, pick: int, share: float, how: str) -> None:
        """A thread's copy goes its own way, here to an end at once; the thread itself is untouched."""
        subject = self._subject(pick)
        name, client = f"{subject.expected.thread}-copy-{len(subject.copies)}", self.place.client
        if how == "fork" or subject.expected.ended:
            subject.copies.append(name)
        sequence = 2 + int(share * (subject.shown.last_sequence - 2))

        async def make(request: str) -> None:
            if how == "fork":
                await client.fork_thread(subject.name, sequence=sequence, thread_id=name, request_id=request)
            else:
                await client.retry_thread(subject.name, thread_id=name, request_id=request)
            await client.delete_thread(name, force=True)

        refused = how == "retry" and not subject.expected.ended
        self._ask(subject, lambda: "THREAD_STATE_CONFLICT" if refused else OK, make)

    # What the rules are made of.

    def _start(self, plan: Plan) -> None:
        thread = f"m-{self.place.threads}"
        self._tell(f"start {thread}: {plan}")
        self._run(self.place.create(thread, plan))
        watched = self._run(self._watch(thread))
        subject = Subject(Expected(thread, plan, plan.queued), watched)
        self.subjects.append(subject)
        if plan.queued:
            note = holder_note(thread)
            self._run(eventually(lambda: note in self.place.ledger.keys, what=note))
        self._come(subject)

    async def _watch(self, thread: str) -> "asyncio.Task[Seen]":
        name = f"threads/{thread}"
        return asyncio.create_task(
            watch(Seen(f"the watcher of {name}", name), watching(self.place.channel, name))
        )

    def _ask(
        self,
        subject: Subject,
        wanted: Callable[[], str],
        call: Callable[[str], Awaitable[object]],
        twice: bool = False,
    ) -> None:
        """One call, perhaps repeated with its request id, and what the thread is after it."""
        before, request = repr(subject.expected), self._new("request")
        outcome = wanted()
        changed = repr(subject.expected) != before
        self._tell(f"ask {call.__qualname__.split('.')[1]} of {subject.name}, {request}: {outcome}")
        last = subject.shown.last_sequence
        for _ in range(1 + twice):
            found = self._run(_outcome(call(request)))
            self._hold(found == outcome, f"answered {found}, should be {outcome}")
        if not changed:
            self._run(self._unchanged(subject, last))
        self._come(subject)

    async def _unchanged(self, subject: Subject, last: int) -> None:
        """Intents may be shown a little later than what they lead to, where nothing waits for them."""
        async for event in self.place.client.list_events(subject.name, after_sequence=last):
            kind = str(event.WhichOneof("payload"))
            self._hold(kind.endswith("_started"), f"it changed nothing, and made {kind}")

    def _come(self, subject: Subject) -> None:
        subject.expected.settle()
        self._run(self._arrive(subject))
        for iteration, calls in zip(subject.shown.iterations, subject.expected.turns, strict=True):
            for action, call in zip(iteration.actions, calls, strict=True):
                subject.ids[call.note] = action.tool_call_id

    async def _arrive(self, subject: Subject) -> None:
        found: list[str] = []

        async def there() -> bool:
            subject.shown = await self.place.client.get_thread(subject.name, view=Thread.FULL)
            found[:] = differences(
                subject.expected, subject.shown, self.place.ledger, copied=bool(subject.copies)
            )
            return not found

        try:
            await eventually(there, seconds=20)
        except AssertionError:
            self._hold(False, f"{subject.name}: {'; '.join(found)}\n{subject.expected}")

    def teardown(self) -> None:
        """Lets every thread go as far as it can, ends those that wait, and looks through their logs."""
        if self.broken:
            self.place.run(self._abandon())
            return
        for subject in self.subjects:
            self.place.site.open_gate(holder_gate(subject.expected.thread))
            subject.expected.queued = False
            self._come(subject)
            while closed := subject.expected.closed_gates:
                self._open(subject, closed[0])
                self._come(subject)
            if not subject.expected.ended:
                self._run(self.place.client.cancel_thread(subject.name, reason="last"))
                subject.expected.cancel("last")
                self._come(subject)
            self._run(self._check(subject))
            for gate in subject.expected.plan.gates(subject.expected.thread):
                self.place.site.open_gate(gate)

    async def _check(self, subject: Subject) -> None:
        history = History(seen=[await subject.watched], threads={subject.name: subject.shown})
        log = [event async for event in self.place.client.list_events(subject.name, page_size=1000)]
        history.logs[subject.name] = log
        found = faults(subject.expected, history)
        self._hold(not found, "\n".join(found))
        self.place.ledger.forget(subject.expected.thread)

    async def _abandon(self) -> None:
        for subject in self.subjects:
            subject.watched.cancel()
        await asyncio.gather(*(each.watched for each in self.subjects), return_exceptions=True)

    def _open(self, subject: Subject, gate: str) -> None:
        self.place.site.open_gate(gate)
        subject.expected.gates.add(gate)

    @property
    def _queued(self) -> list[Subject]:
        return [subject for subject in self.subjects if subject.expected.queued]

    @property
    def _closed(self) -> list[tuple[Subject, str]]:
        return [(subject, gate) for subject in self.subjects for gate in subject.expected.closed_gates]

    @property
    def _asked_before(self) -> list[tuple[Subject, Call, str]]:
        return [
            (subject, call, kind)
            for subject in self.subjects
            for call in subject.expected.everything
            for kind in call.waits
        ]

    def _calls(self, *words: str) -> list[tuple[Subject, Call]]:
        """That wait for one of these things; without any, all that were seen."""
        return [
            (subject, call)
            for subject in self.subjects
            for call in subject.expected.everything
            if not words or call.stands in words
        ]

    def _subject(self, pick: int) -> Subject:
        return self.subjects[pick % len(self.subjects)]

    def _new(self, word: str) -> str:
        self.asked += word == "request"
        return f"{word}-{self.subjects[0].expected.thread}-{self.asked}"

    def _tell(self, what: str) -> None:
        self.story.append(what)

    def _hold(self, holds: bool, what: str) -> None:
        if not holds:
            self.broken = True
            raise AssertionError(what + "\n" + "\n".join(self.story))

    def _run(self, act: Any) -> Any:
        try:
            return self.place.run(act)
        except BaseException:
            self.broken = True
            raise


def machine_on(place: Place) -> type[ThreadMachine]:
    """The machine for a server that runs."""
    return type("Machine", (ThreadMachine,), {"place": place})


async def _outcome(answer: Awaitable[object]) -> str:
    try:
        await answer
    except TreadleError as refused:
        return refused.reason
    return OK


def _was_hit(subject: Subject) -> bool:
    """Another crash during the same step would make it a suspect, which is not what this is about."""
    expected = subject.expected
    again = expected.flying and expected.model_attempts[expected.iteration] > 1
    return again or any(call.stands == FLYING and call.attempts > 1 for call in expected.calls)


def _picked(among: Any, pick: int) -> Any:
    return among[pick % len(among)]
