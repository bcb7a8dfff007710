"""Threads in every situation, brought there by asks alone."""

from collections.abc import Callable
from typing import Any

from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.accept import Ask, accept, advance, begin_ready
from treadle_server.core.commands import CallTool, Command
from treadle_server.core.decide import decide, wake_at
from treadle_server.core.draft import Draft
from treadle_server.core.errors import Refused
from treadle_server.core.events import Event, SpecReference
from treadle_server.core.evolve import fold
from treadle_server.core.kinds import CallStatus, Decision, Effect, ThreadState
from treadle_server.core.policy import arguments_digest
from treadle_server.core.spec import SECOND_MICROS, Limits, Spec, ToolSpec
from treadle_server.core.state import State
from treadle_server.core.values import Content, Cost, ProposedCall, Usage

SECOND = SECOND_MICROS
T0 = 1_750_000_000 * SECOND
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
MODEL = "scripted:tests"
REFERENCE = SpecReference("agents/a/versions/1", "sha256:00", MODEL)
USAGE = Usage(10, 2, 5, 1, 15)
COST = Cost(100)


def tool(name: str, effect: Effect = Effect.READ_ONLY, **fields: Any) -> ToolSpec:
    return ToolSpec(name, f"builtin/{name}", f"{name} something", "{}", effect, **fields)


TOOLS = (
    tool("look", attempts_max=3),
    tool("save", Effect.IDEMPOTENT, attempts_max=2),
    tool("send", Effect.AT_MOST_ONCE, attempts_max=3),
    tool("pay", Effect.AT_MOST_ONCE, approvers_needed=1, approval_lifetime_micros=HOUR),
    tool("sign", Effect.AT_MOST_ONCE, approvers_needed=2),
    tool("ask", asks=True),
    tool("open_file", client=True),
    tool("ask_boss", asks=True, approvers_needed=1),
    tool("delete_file", client=True, approvers_needed=1),
    tool("finish", finishes=True),
)


def spec(**fields: Any) -> Spec:
    return Spec(**{"agent_version": "agents/a/versions/1", "model": MODEL, "tools": TOOLS, **fields})


def limited(**limits: Any) -> Spec:
    return spec(limits=Limits(**limits))


def proposed(*names: str) -> tuple[ProposedCall, ...]:
    """One call for each tool, with arguments that tell them apart."""
    return tuple(ProposedCall(name, f'{{"n":{number}}}') for number, name in enumerate(names, start=1))


class History:
    """A thread that is asked one thing after another, a second apart. A refusal is raised."""

    def __init__(self, its_spec: Spec | None = None) -> None:
        self.state = State(its_spec or spec())
        self.events: list[Event] = []
        self.now = T0

    def ask(self, kind: Callable[..., Ask], /, **fields: Any) -> tuple[Event, ...]:
        self.now += SECOND
        return self.take(kind(self.now, **fields))

    def take(self, ask: Ask) -> tuple[Event, ...]:
        made = accept(self.state, ask)
        if isinstance(made, Refused):
            raise made
        return self._append(made)

    def at(self, now: int) -> "History":
        """The next ask comes at this time."""
        self.now = now - SECOND
        return self

    def _append(self, made: tuple[Event, ...]) -> tuple[Event, ...]:
        self.events.extend(made)
        self.state = fold(self.state, made)
        return made

    def refusal(self, kind: Callable[..., Ask], /, **fields: Any) -> Refused:
        """What refuses an ask, which changes nothing."""
        before = repr(self.state)
        refused = accept(self.state, kind(self.now + SECOND, **fields))
        assert isinstance(refused, Refused), refused
        assert repr(self.state) == before
        return refused

    def create(self, text: str = "hello") -> "History":
        self.ask(s.Create, spec=REFERENCE, input=Content(text), principal="users/ann")
        return self

    def begin(self, *call_ids: str) -> "History":
        """Begins what is wanted: all of it, or the calls named."""
        commands = [c for c in self.wanted if not c.begun and (not call_ids or c.call_id in call_ids)]
        assert commands
        self.ask(s.Begin, commands=tuple(sorted(commands, key=lambda command: command.call_id)))
        return self

    def reply(self, text: str = "", *names: str, **fields: Any) -> "History":
        """The model's turn: a text, and calls of the tools named."""
        call = self.state.model_call
        assert call is not None
        given = {"calls": proposed(*names), "usage": USAGE, "cost": COST, **fields}
        self.ask(o.ModelReplied, call_id=call.call_id, attempt=call.attempt, text=text, **given)
        return self

    def turn(self, text: str = "", *names: str, **fields: Any) -> "History":
        """Begins an iteration, and the model gives its turn."""
        return self.begin().reply(text, *names, **fields)

    def tool(self, call_id: str, observation: str = "done", **fields: Any) -> "History":
        """A tool call in flight has its result."""
        given = {"status": CallStatus.SUCCEEDED, **fields}
        attempt = self.state.calls[call_id].attempt
        self.ask(o.ToolReturned, call_id=call_id, attempt=attempt, observation=observation, **given)
        return self

    def tool_fails(self, call_id: str, *, retryable: bool = True) -> "History":
        attempt, status = self.state.calls[call_id].attempt, CallStatus.FAILED
        self.ask(
            o.ToolFailed,
            call_id=call_id,
            attempt=attempt,
            status=status,
            message="no line",
            retryable=retryable,
        )
        return self

    def model_fails(self, *, retryable: bool = True, **fields: Any) -> "History":
        call = self.state.model_call
        assert call is not None
        given = {"code": 14, "message": "overloaded", **fields}
        self.ask(o.ModelFailed, call_id=call.call_id, attempt=call.attempt, retryable=retryable, **given)
        return self

    def approve(self, call_id: str, principal: str = "users/bob", **fields: Any) -> "History":
        digest = arguments_digest(argument_text(self, call_id))
        self.ask(
            s.Decide,
            approval_id=f"approval-{call_id}",
            decision=Decision.APPROVE,
            principal=principal,
            **{"arguments_digest": digest, **fields},
        )
        return self

    def reject(self, call_id: str, principal: str = "users/bob", **fields: Any) -> "History":
        decision = Decision.REJECT
        self.ask(
            s.Decide, approval_id=f"approval-{call_id}", decision=decision, principal=principal, **fields
        )
        return self

    def answer(self, call_id: str, text: str = "yes") -> "History":
        self.ask(s.SendInput, content=Content(text), tool_call_id=call_id)
        return self

    def steer(self, text: str = "shorter, please") -> "History":
        self.ask(s.SendInput, content=Content(text))
        return self

    def submit(self, call_id: str, observation: str = "text of the file", **fields: Any) -> "History":
        self.ask(s.SubmitToolResult, tool_call_id=call_id, observation=observation, **fields)
        return self

    def crash(self) -> "History":
        """A server finds the thread with calls in flight."""
        self.ask(o.Recovered, epoch=2)
        return self

    def due(self) -> "History":
        """The clock strikes the hour that the thread named."""
        time = wake_at(self.state)
        assert time is not None
        self.at(time).ask(s.Due)
        return self

    def drafted(self, kind: Callable[..., Ask], /, **fields: Any) -> Draft:
        """An ask and what can begin after it, as one append."""
        self.now += SECOND
        draft = advance(self.state, kind(self.now, **fields))
        assert isinstance(draft, Draft)
        begin_ready(draft, self.now)
        self._append(tuple(draft.events))
        return draft

    @property
    def wanted(self) -> frozenset[Command]:
        return decide(self.state)

    @property
    def in_flight(self) -> list[str]:
        return sorted(command.call_id for command in self.wanted if command.begun)

    @property
    def startable(self) -> list[str]:
        return sorted(command.call_id for command in self.wanted if not command.begun)

    def tool_command(self, call_id: str) -> CallTool:
        (command,) = (command for command in self.wanted if command.call_id == call_id)
        assert isinstance(command, CallTool)
        return command


def argument_text(history: History, call_id: str) -> str:
    """The arguments that the model gave."""
    for event in history.events:
        payload = event.payload
        if names(event) == "ApprovalRequested" and getattr(payload, "tool_call_id", "") == call_id:
            return str(getattr(payload, "arguments_json", ""))
    return ""


def names(*events: Event) -> str:
    """The kinds of some events, as one text."""
    return " ".join(type(event.payload).__name__ for event in events)


def payloads(history: History, kind: type[Any]) -> list[Any]:
    """All payloads of a kind in a history, in order."""
    return [event.payload for event in history.events if isinstance(event.payload, kind)]


def created(its_spec: Spec | None = None) -> History:
    return History(its_spec).create()


def model_in_flight() -> History:
    return created().begin()


def model_waits_to_retry() -> History:
    return model_in_flight().model_fails()


def tools_in_flight() -> History:
    """Two calls run beside an open approval, a question and a client's call."""
    return created().turn("on it", "look", "send", "pay", "ask", "open_file").begin()


def between_steps() -> History:
    return model_in_flight().crash()


def pausing() -> History:
    history = model_in_flight()
    history.ask(s.Pause)
    return history


def cancelling() -> History:
    history = tools_in_flight()
    history.ask(s.Cancel)
    return history


def waiting_approval() -> History:
    return created().turn("may I?", "pay")


def waiting_approval_and_input() -> History:
    return created().turn("may I?", "pay", "ask")


def waiting_question() -> History:
    return created().turn("", "ask")


def waiting_client() -> History:
    return created().turn("", "open_file")


def paused(history: History) -> History:
    history.ask(s.Pause)
    assert history.state.status is ThreadState.PAUSED
    return history


def completed() -> History:
    return created().turn("the answer")


def failed() -> History:
    return model_in_flight().model_fails(retryable=False)


def cancelled() -> History:
    history = waiting_approval()
    history.ask(s.Cancel)
    return history


def timed_out() -> History:
    return tools_in_flight().due().due()  # the first time is when an approval is said to expire soon


SITUATIONS: dict[str, Callable[[], History]] = {
    "pending": created,
    "model in flight": model_in_flight,
    "model waits to retry": model_waits_to_retry,
    "tools in flight": tools_in_flight,
    "between steps": between_steps,
    "pausing": pausing,
    "cancelling": cancelling,
    "waits for approval": waiting_approval,
    "waits for both": waiting_approval_and_input,
    "waits for an answer": waiting_question,
    "waits for the client": waiting_client,
    "paused at first": lambda: paused(created()),
    "paused between steps": lambda: paused(between_steps()),
    "paused for approval": lambda: paused(waiting_approval()),
    "paused for an answer": lambda: paused(waiting_question()),
    "paused for the client": lambda: paused(waiting_client()),
    "completed": completed,
    "failed": failed,
    "cancelled": cancelled,
    "timed out": timed_out,
}
"""Every state, and what differs within a state."""
