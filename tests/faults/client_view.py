"""A thread as a client sees it who has nothing but its events."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from treadle import Thread, ThreadEvent
from treadle.v1.usage_pb2 import Usage

TOKENS = tuple(name for name in Usage.DESCRIPTOR.fields_by_name if name.endswith("_tokens"))


@dataclass(slots=True)
class ClientView:
    """Folded from a log; `differences` compares it with what GetThread says."""

    facts: dict[str, object] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOKENS, 0))
    cost_micros: int = 0
    cost_known: bool = True
    iterations: int = 0
    actions: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """Arguments, observation and status by call."""

    @classmethod
    def of(cls, log: Iterable[ThreadEvent]) -> "ClientView":
        view = cls()
        for event in log:
            view.take(event)
        return view

    def take(self, event: ThreadEvent) -> None:
        facts = self.facts
        facts["last_sequence"] = event.sequence
        match event.WhichOneof("payload"):
            case "thread_created":
                facts["state"] = Thread.PENDING
                facts["agent_version"] = event.thread_created.spec.agent_version
            case "state_changed":
                facts["state"] = event.state_changed.to
            case "iteration_started":
                self.iterations = event.iteration_started.number
            case "model_call_started":
                facts["model_used"] = event.model_call_started.model
            case "usage_recorded":
                self._count(event)
            case "tool_call_requested":
                asked = event.tool_call_requested
                self.actions[asked.tool_call_id] = (asked.arguments_json, "", 0)
            case "tool_call_completed":
                done = event.tool_call_completed
                arguments = self.actions[done.tool_call_id][0] if done.tool_call_id in self.actions else ""
                self.actions[done.tool_call_id] = (arguments, done.observation, done.status)
            case "thread_ended":
                self._end(event)

    def _count(self, event: ThreadEvent) -> None:
        recorded = event.usage_recorded
        for name in TOKENS:
            self.tokens[name] += getattr(recorded.usage, name)
        self.cost_micros += recorded.cost.cost_micros
        self.cost_known = self.cost_known and recorded.cost.known

    def _end(self, event: ThreadEvent) -> None:
        ended = event.thread_ended
        self.facts |= {
            "state": ended.state,
            "stop_reason": ended.stop_reason,
            "output": ended.output,
            "error": ended.error,
            "success": ended.state == Thread.COMPLETED,
            "pending_command": 0,
        }

    def differences(self, thread: Thread) -> list[str]:
        """Names of what GetThread says otherwise."""
        shown: dict[str, object] = {name: getattr(thread, name) for name in self.facts}
        folded = dict(self.facts)
        pairs: dict[str, tuple[object, object]] = {
            "usage": (self.tokens, {name: getattr(thread.usage, name) for name in TOKENS}),
            "cost": ((self.cost_micros, self.cost_known), (thread.cost.cost_micros, thread.cost.known)),
            "iteration_count": (self.iterations, thread.iteration_count),
            "actions_taken": (len(self.actions), thread.actions_taken),
            "iterations": (self.iterations, len(thread.iterations)),
            "actions": (self.actions, _actions(thread)),
        }
        for name in folded:
            pairs[name] = (folded[name], shown[name])
        return [name for name, (mine, theirs) in pairs.items() if mine != theirs]


def _actions(thread: Thread) -> dict[str, tuple[str, str, int]]:
    return {
        action.tool_call_id: (action.arguments_json, action.observation, action.status)
        for iteration in thread.iterations
        for action in iteration.actions
    }
