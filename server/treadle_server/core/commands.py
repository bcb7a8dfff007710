"""What should be in flight."""

from dataclasses import dataclass

from treadle_server.core.kinds import Effect


@dataclass(frozen=True, slots=True)
class CallModel:
    """Ask the model for the next turn."""

    call_id: str
    attempt: int
    begun: bool
    """The intent is recorded."""
    not_before: int = 0
    """Do not begin before this time, micros since 1970."""


@dataclass(frozen=True, slots=True)
class CallTool:
    """Run a tool."""

    call_id: str
    name: str
    arguments_json: str
    effect: Effect
    attempt: int
    begun: bool
    not_before: int = 0


@dataclass(frozen=True, slots=True)
class CallAgent:
    """Make the thread of an agent that is called. May be repeated: the thread is made once."""

    call_id: str
    name: str
    agent_version: str
    arguments_json: str
    attempt: int
    begun: bool
    not_before: int = 0


Command = CallModel | CallTool | CallAgent
