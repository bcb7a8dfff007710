"""Port: what the end of a server's life says about the threads that it drove."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from treadle_server.ports.log import ThreadKey


class Phase(IntEnum):
    """Who was in flight of those that are suspected of bringing servers down."""

    NONE = 0
    """Nobody in particular."""
    AMONG_OTHERS = 1
    """The threads on trial, and others."""
    ALONE = 2
    """The one on trial, and nothing else."""
    WITHOUT = 3
    """None of the suspects: the server is to show that it lives without the one on trial."""
    AGAIN = 4
    """The one on trial and no other suspect, after the server had lived without it."""
    SOLE = 5
    """The one on trial, and no other thread of the server had anything to do."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Who is on trial, and how."""

    phase: Phase = Phase.NONE
    threads: tuple[ThreadKey, ...] = ()


@dataclass(frozen=True, slots=True)
class LastLife:
    """How the server before this one ended."""

    trial: Trial
    """That was on when it ended."""
    drained: bool
    """It was stopped in order."""


class Trials(Protocol):
    """One record of the store. What was saved last is what the next server finds."""

    async def last_life(self) -> LastLife:
        """Of the server that had the file before this one."""
        ...

    async def save(self, trial: Trial) -> None:
        """Durable on return. Raises what a unit raises."""
        ...

    async def drained(self) -> None:
        """This server stops in order: nobody is on trial, and no crash will be counted. Durable on return."""
        ...
