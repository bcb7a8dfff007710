"""Threads that are suspected of bringing servers down: they have their turns apart, and on the record.

A thread is suspected when servers died twice in a row during the same step of it. What a server that dies
leaves on the record is who had the turn then; the next server draws the conclusion:

- AMONG_OTHERS: those who had it come first, before anything else is driven.
- ALONE: that may have been the thread, or an operator's kill. The server must first live without it
  (WITHOUT), and then it has one more turn (AGAIN).
- AGAIN: it is guilty. WITHOUT: it is not, for the server died without it.
- SOLE: it is guilty if that was the third crash without a sign of progress, else as ALONE.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import ceil

import structlog

from treadle_server.core import suspicion
from treadle_server.core.outcomes import Recovered
from treadle_server.core.state import State
from treadle_server.engine.admission import Candidate
from treadle_server.ports.log import Fenced, ThreadKey
from treadle_server.ports.trials import Phase, Trial, Trials

_LOG = structlog.get_logger(__name__)
TURNS = 16
"""Into how many turns the suspects of one server are divided, however many they are."""

_DRAINED_SECONDS = 1.0
"""A store that takes longer to write one row will not be waited for."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long suspects, and the others because of them, are kept waiting."""

    gather_seconds: float = 1.0
    """For suspects to be found before the first turn."""
    turn_seconds: float = 5.0
    """Of a turn at most, doubled with each further crash."""
    turn_seconds_max: float = 20.0
    without_seconds: float = 15.0
    """That a server must live without the one on trial."""


PACE = Pace()


@dataclass(frozen=True, slots=True)
class _Suspect:
    candidate: Candidate
    crashes: int
    runs_tools: bool


class Quarantine:
    """Who of the suspects may be driven now. `again` offers one that has its turn to the admission."""

    def __init__(
        self,
        trials: Trials,
        *,
        epoch: int,
        again: Callable[[Candidate], None],
        nothing_runs: Callable[[], bool],
        nothing_waits: Callable[[], bool],
        pace: Pace,
    ) -> None:
        self._trials = trials
        self._epoch = epoch
        self._again = again
        self._nothing_runs = nothing_runs
        self._nothing_waits = nothing_waits
        self._pace = pace
        self._blameless = False
        self._last = Trial()
        """What the server before left."""
        self._waiting: dict[ThreadKey, _Suspect] = {}
        self._turn: set[ThreadKey] = set()
        """Those whose turn it is, until an outcome clears them."""
        self._driven: set[ThreadKey] = set()
        self._late: set[ThreadKey] = set()
        """Those whose turn was over before there was room to drive them: they have had it."""
        self._turn_over = asyncio.Event()
        self._gate = asyncio.Event()
        self._gate.set()
        self._apart = False
        """One turn was had with everything else waiting. There is no second in a server's life."""
        self._task: asyncio.Task[None] | None = None

    async def begin(self, state_of: Callable[[ThreadKey], Awaitable[State | None]]) -> ThreadKey | None:
        """Draws the conclusion from the last server's end, before anything is driven; says who is guilty."""
        last = await self._trials.last_life()
        trial = last.trial
        guilty = trial.phase is Phase.AGAIN
        if trial.phase is Phase.SOLE:
            state = await state_of(trial.threads[0])
            guilty = state is not None and suspicion.proven_alone(state, self._epoch)
            trial = Trial(Phase.AGAIN if guilty else Phase.ALONE, trial.threads)
        self._blameless, self._last = last.drained, trial
        if trial.phase is Phase.ALONE:
            await self._save(Trial(Phase.WITHOUT, trial.threads))
        if trial.phase is Phase.AMONG_OTHERS:
            self._gate.clear()
        if not guilty:
            return None
        self._blameless = True  # of the others, that is: what the last server died of is known
        return trial.threads[0]

    @property
    def first(self) -> tuple[ThreadKey, ...]:
        """Who is to be taken up before the others."""
        return self._last.threads if self._last.phase in (Phase.AMONG_OTHERS, Phase.ALONE) else ()

    def begun(self) -> None:
        """All that the last server left was offered."""
        if self._last.phase is not Phase.NONE:
            self._start()

    def recovered(self, now: int, *, guilty: bool = False) -> Recovered:
        """What to record of a thread that is taken up."""
        return Recovered(now, self._epoch, self._blameless and not guilty, guilty)

    async def pass_gate(self, key: ThreadKey) -> None:
        """Returns when the thread may be driven as far as a turn of others is concerned."""
        while not self._gate.is_set() and key not in self._turn:
            await self._gate.wait()

    def takes(self, candidate: Candidate, state: State) -> bool:
        """Whether the thread must wait for a turn of its own."""
        key = candidate.key
        if key in self._turn:
            self._driven.add(key)
            return False
        if key in self._late:
            self._late.discard(key)
            return False
        crashes = suspicion.crashes(state, self._epoch, blameless=self._blameless)
        if crashes < suspicion.SUSPECT_FROM:
            return False
        if key not in self._waiting:
            _LOG.warning("thread_suspected", thread=key.thread, crashes=crashes)
        self._waiting[key] = _Suspect(candidate, crashes, state.model_call is None)
        self._start()
        return True

    def looked_at(self, key: ThreadKey, state: State) -> None:
        """The thread is so, durably: an outcome that a crash can still take ends no turn."""
        if key in self._turn and not suspicion.suspected(state):
            self._has_had_turn(key)

    def left(self, key: ThreadKey) -> None:
        """The thread is not driven any more, whatever the reason."""
        if key in self._driven:
            self._driven.discard(key)
            self._has_had_turn(key)

    def forget(self, key: ThreadKey) -> None:
        """The thread ended."""
        self._waiting.pop(key, None)
        self._late.discard(key)
        self._driven.discard(key)
        self._has_had_turn(key)

    def _has_had_turn(self, key: ThreadKey) -> None:
        self._turn.discard(key)
        if not self._turn:
            self._turn_over.set()

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._try_all())

    async def _try_all(self) -> None:
        try:
            await asyncio.sleep(self._pace.gather_seconds)
            await self._try_first()
            while True:
                size = 1
                while self._waiting:
                    size = max(size, ceil(len(self._waiting) / TURNS))
                    await self._try(self._next(size), Phase.AMONG_OTHERS)
                await self._save(Trial())
                if not self._waiting:
                    return
        finally:
            self._gate.set()

    async def _try_first(self) -> None:
        """The turn of those that were on trial when the last server died."""
        last, self._last = self._last, Trial()
        if last.phase is Phase.ALONE:
            await asyncio.sleep(self._pace.without_seconds)
        keys = [key for key in last.threads if key in self._waiting]
        if keys and last.phase is Phase.ALONE:
            _LOG.warning("server_lives_without", threads=[key.thread for key in keys])
        if keys and last.phase in (Phase.ALONE, Phase.AMONG_OTHERS):
            phase = Phase.AGAIN if last.phase is Phase.ALONE else Phase.AMONG_OTHERS
            await self._try(keys[: ceil(len(keys) / TURNS)], phase)
        self._gate.set()

    def _next(self, size: int) -> list[ThreadKey]:
        """Tools come first, since they run code that is not the server's; then who saw the most crashes."""
        order = sorted(self._waiting.values(), key=lambda one: (not one.runs_tools, -one.crashes))
        return [suspect.candidate.key for suspect in order[:size]]

    async def _try(self, keys: list[ThreadKey], phase: Phase) -> None:
        """Drives some suspects until each had an outcome, or for a while; then they mix with the others."""
        if not self._apart and phase is not Phase.AGAIN and self._nothing_runs():
            self._apart = True
            self._gate.clear()
            phase = self._phase_of_one() if len(keys) == 1 else phase
        suspects = [self._waiting.pop(key) for key in keys]
        seconds = self._pace.turn_seconds * 2.0 ** min(max(one.crashes for one in suspects) - 2, 16)
        self._turn.update(keys)
        self._turn_over.clear()
        await self._save(Trial(phase, tuple(keys)))
        _LOG.warning("suspects_driven", phase=phase.name, threads=[key.thread for key in keys])
        for suspect in suspects:
            self._again(suspect.candidate)
        try:
            await asyncio.wait_for(self._turn_over.wait(), min(seconds, self._pace.turn_seconds_max))
        except TimeoutError:
            self._late |= self._turn - self._driven
        self._driven -= set(keys)
        self._turn.clear()
        self._gate.set()

    def _phase_of_one(self) -> Phase:
        return Phase.SOLE if len(self._waiting) == 1 and self._nothing_waits() else Phase.ALONE

    async def _save(self, trial: Trial) -> None:
        """Without a record nobody is found guilty; that is no reason to drive nobody."""
        try:
            await self._trials.save(trial)
        except Fenced:
            return  # the process is about to end
        except Exception as error:
            _LOG.error("trial_not_recorded", phase=trial.phase.name, why=str(error))

    async def drain(self) -> None:
        """Nobody is on trial any more, and what is in flight now was in flight at no crash."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._gate.set()
        try:
            await asyncio.wait_for(self._trials.drained(), _DRAINED_SECONDS)
        except Fenced:
            return
        except Exception as error:
            _LOG.error("drain_not_recorded", why=str(error) or type(error).__name__)
