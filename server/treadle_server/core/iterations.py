"""The complete record of a thread's turns: a view of its events."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from treadle_server.core import events as e
from treadle_server.core.kinds import CallStatus
from treadle_server.core.values import Cost, Usage


@dataclass(frozen=True, slots=True)
class Action:
    """One tool call of an iteration and what it gave."""

    tool_call_id: str
    tool: str
    arguments_json: str
    observation: str = ""
    status: CallStatus = CallStatus.UNSPECIFIED
    """UNSPECIFIED while it is open."""
    duration_micros: int = 0


@dataclass(frozen=True, slots=True)
class Iteration:
    """Think, act, observe: once."""

    number: int
    start_time_micros: int
    end_time_micros: int = 0
    """When the last of its calls had ended; 0 while one is open."""
    thought: str = ""
    text: str = ""
    actions: tuple[Action, ...] = ()
    usage: Usage = Usage()
    cost: Cost = Cost()


class IterationFold:
    """Builds iterations from events; `iterations` is complete up to the last event applied."""

    __slots__ = ("_actions", "_current", "_done")

    def __init__(self) -> None:
        self._done: list[Iteration] = []
        self._current: Iteration | None = None
        self._actions: dict[str, Action] = {}

    @property
    def iterations(self) -> tuple[Iteration, ...]:
        if self._current is None:
            return tuple(self._done)
        return (*self._done, replace(self._current, actions=tuple(self._actions.values())))

    def apply(self, event: e.Event) -> None:
        payload = event.payload
        if isinstance(payload, e.IterationStarted):
            self._close(event.time_micros)
            self._current = Iteration(payload.number, event.time_micros)
        elif isinstance(payload, e.ThreadEnded):
            self._close(event.time_micros)
        elif self._current is not None:
            self._current = self._with(self._current, payload)
            if isinstance(payload, e.MessageCompleted | e.ToolCallRequested | e.ToolCallCompleted):
                still = any(action.status is CallStatus.UNSPECIFIED for action in self._actions.values())
                self._current = replace(self._current, end_time_micros=0 if still else event.time_micros)

    def _with(self, current: Iteration, payload: e.Payload) -> Iteration:
        match payload:
            case e.ThoughtRecorded():
                return replace(current, thought=payload.text)
            case e.MessageCompleted():
                return replace(current, text=payload.text)
            case e.UsageRecorded():
                usage, cost = current.usage.plus(payload.usage), current.cost.plus(payload.cost)
                return replace(current, usage=usage, cost=cost)
            case e.ToolCallRequested():
                call_id = payload.tool_call_id
                self._actions[call_id] = Action(call_id, payload.tool, payload.arguments_json)
            case e.ToolCallCompleted() if payload.tool_call_id in self._actions:
                self._actions[payload.tool_call_id] = replace(
                    self._actions[payload.tool_call_id],
                    observation=payload.observation,
                    status=payload.status,
                    duration_micros=payload.duration_micros,
                )
        return current

    def _close(self, now: int) -> None:
        if self._current is None:
            return
        actions = tuple(self._actions.values())
        end = self._current.end_time_micros or now
        self._done.append(replace(self._current, end_time_micros=end, actions=actions))
        self._current, self._actions = None, {}


def iterations(events: Iterable[e.Event]) -> tuple[Iteration, ...]:
    """All iterations of a log, in order."""
    fold = IterationFold()
    for event in events:
        fold.apply(event)
    return fold.iterations
