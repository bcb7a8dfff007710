"""Port: what drives threads."""

from dataclasses import dataclass
from typing import Protocol

from treadle_server.core.accept import Ask
from treadle_server.core.mail import Letter
from treadle_server.core.signals import Create, Fork
from treadle_server.core.spec import Spec
from treadle_server.core.state import State
from treadle_server.core.transcript import TranscriptFold
from treadle_server.ports.log import NewThread, RequestRow, Shared, ThreadKey


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first events of another thread, folded under the spec of the thread that is to share them."""

    shared: Shared
    state: State
    fold: TranscriptFold
    """Becomes the new thread's own: not to be folded on by anybody else."""


@dataclass(frozen=True, slots=True)
class Start:
    """A thread to begin."""

    key: ThreadKey
    spec: Spec
    ask: Create | Fork
    row: NewThread
    request: RequestRow | None
    prefix: Prefix | None = None
    """What a fork begins with."""
    mail: tuple[Letter, ...] = ()
    """What making it tells other threads."""

    @property
    def session(self) -> str:
        """Its name; empty for none, as of every fork."""
        return self.ask.session if isinstance(self.ask, Create) else ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What keeps a PENDING thread from running. `kind` is a name of `treadle.v1.WaitingFor.Kind`."""

    kind: str
    resource: str
    since: int


class Engine(Protocol):
    """Brings every acknowledged thread to its end, through crashes too."""

    async def start(self, start: Start) -> None:
        """Makes the thread; durable on return. Raises Replayed, or Refused, and then nothing was made."""
        ...

    async def ask(self, key: ThreadKey, ask: Ask, request: RequestRow | None = None) -> State:
        """Records what a caller asked, and the call with it; durable on return.

        Raises Refused or Replayed, and then nothing changed, unless `may_take_effect` is in the metadata.
        """
        ...

    async def resting(self, key: ThreadKey) -> None:
        """Returns once the thread has ended, waits for something outside, or is paused."""
        ...

    async def ended(self, key: ThreadKey) -> None:
        """Returns once the thread has ended. Raises Refused when nothing can be written meanwhile."""
        ...

    def waiting(self, key: ThreadKey) -> Waiting | None:
        """Why a PENDING thread does not run yet; None when it is not held back."""
        ...
