"""Which threads may run: fair between tenants, then between agents; one at a time in a session."""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from treadle_server.core.errors import Reason, Refused
from treadle_server.engine.start_rates import StartRate, StartRates
from treadle_server.ports.engine import Waiting
from treadle_server.ports.log import ThreadKey


@dataclass(frozen=True, slots=True)
class Candidate:
    """A thread that wants to run."""

    key: ThreadKey
    agent: int
    agent_name: str
    session: int
    session_name: str
    agent_max: int
    """How many threads of its agent may run at once; 0 = no limit of its own."""
    since: int
    rate: StartRate | None = None
    """What holds back a thread that has not begun."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many threads may run at once."""

    server_max: int = 1000
    tenant_max: int = 500
    tenant_waiting_max: int = 100_000
    """How many threads of a tenant may wait to run; those of a crashed server come on top."""


_Line = tuple[int, StartRate | None]
"""An agent's threads that wait for the same: those that begin wait apart from those that go on."""


class Admission:
    """Decides who runs next; tells by calling `run`, in the caller's own turn.

    A thread in a session holds it until `leave`; the others of the session wait in order. Tenants take
    turns, and within a tenant its agents, so a thousand queued threads of one delay another by one turn.
    """

    def __init__(
        self, bounds: Bounds, run: Callable[[Candidate], None], rates: StartRates | None = None
    ) -> None:
        """Without `rates` no candidate has one."""
        self._bounds = bounds
        self._run = run
        self._rates = rates
        self._ready: OrderedDict[int, OrderedDict[_Line, deque[Candidate]]] = OrderedDict()
        self._in_session: dict[int, deque[Candidate]] = {}
        self._holders: dict[int, ThreadKey] = {}
        self._held_back: dict[ThreadKey, None] = {}
        """Of those that wait: who may not begin yet."""
        self._waiting: dict[ThreadKey, Candidate] = {}
        self._running: dict[ThreadKey, Candidate] = {}
        self._waiting_by_tenant: dict[int, int] = {}
        self._by_tenant: dict[int, int] = {}
        self._by_agent: dict[int, int] = {}
        self.stopped = False

    @property
    def running_count(self) -> int:
        return len(self._running)

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def knows(self, key: ThreadKey) -> bool:
        return key in self._waiting or key in self._running

    def check_room(self, tenant: int) -> None:
        """Before a thread is made. Raises Refused(CONCURRENCY_LIMITED)."""
        limit = self._bounds.tenant_waiting_max
        if self._waiting_by_tenant.get(tenant, 0) >= limit:
            raise Refused(
                Reason.CONCURRENCY_LIMITED,
                f"{limit} threads of the tenant wait to run already",
                metadata={"limit": str(limit)},
            )

    def hold_session(self, session: int, key: ThreadKey) -> None:
        """A thread that began earlier and waits for something outside still holds its session."""
        if session:
            self._holders.setdefault(session, key)

    def offer(self, candidate: Candidate) -> None:
        """Queues a thread and runs whoever may run now."""
        if self.let_go(candidate.key) or self.knows(candidate.key):
            return
        if candidate.rate is not None and self._rates is not None:
            candidate = replace(candidate, rate=self._rates.binds(candidate.key, candidate.rate))
        self._queue(candidate)
        self.admit()

    def hold_back(self, candidate: Candidate) -> None:
        """Queues a thread that may not begin before it is let go or offered: it has its place in its session,
        and takes no room from others. Nothing happens to one that waits or runs already.
        """
        if not self.knows(candidate.key):
            self._held_back[candidate.key] = None
            self._queue(candidate)

    def holds_back(self, key: ThreadKey) -> bool:
        return key in self._held_back

    def let_go(self, key: ThreadKey) -> bool:
        """Lets a thread that was held back run when its turn comes; False for one that was not."""
        if key not in self._held_back:
            return False
        del self._held_back[key]
        candidate = self._waiting[key]
        if self._holders.get(candidate.session, key) == key:
            self._make_ready(candidate)
        self.admit()
        return True

    def _queue(self, candidate: Candidate) -> None:
        self._waiting[candidate.key] = candidate
        _count(self._waiting_by_tenant, candidate.key.tenant, 1)
        holder = self._holders.get(candidate.session) if candidate.session else None
        if holder is not None and holder != candidate.key:
            self._in_session.setdefault(candidate.session, deque()).append(candidate)
        else:
            self._make_ready(candidate)

    def _make_ready(self, candidate: Candidate) -> None:
        if candidate.session:
            self._holders[candidate.session] = candidate.key
        if candidate.key in self._held_back:
            return
        agents = self._ready.setdefault(candidate.key.tenant, OrderedDict())
        agents.setdefault((candidate.agent, candidate.rate), deque()).append(candidate)

    def admit(self) -> None:
        """Runs threads until a bound is reached or nobody is ready."""
        while not self.stopped and len(self._running) < self._bounds.server_max:
            candidate = self._next()
            if candidate is None:
                return
            self._stop_waiting(candidate.key)
            self._running[candidate.key] = candidate
            if candidate.rate is not None and self._rates is not None:
                self._rates.take(candidate.agent, candidate.key)
            _count(self._by_tenant, candidate.key.tenant, 1)
            _count(self._by_agent, candidate.agent, 1)
            self._run(candidate)

    def _next(self) -> Candidate | None:
        for tenant in list(self._ready):
            if self._by_tenant.get(tenant, 0) >= self._bounds.tenant_max:
                continue
            candidate = self._next_of_tenant(tenant)
            if candidate is not None:
                return candidate
        return None

    def _next_of_tenant(self, tenant: int) -> Candidate | None:
        agents = self._ready[tenant]
        for line, queue in list(agents.items()):
            while queue and not self._stands(queue[0]):
                queue.popleft()
            if not queue:
                del agents[line]
            elif self._may_run(queue[0]):
                self._ready.move_to_end(tenant)
                agents.move_to_end(line)
                return queue.popleft()
        if not agents:
            del self._ready[tenant]
        return None

    def _stands(self, candidate: Candidate) -> bool:
        """It waits as it was queued: not for one that left, whether or not it was offered anew since."""
        return self._waiting.get(candidate.key) is candidate

    def _may_run(self, candidate: Candidate) -> bool:
        agent, rate = candidate.agent, candidate.rate
        if candidate.agent_max and self._by_agent.get(agent, 0) >= candidate.agent_max:
            return False
        return rate is None or self._rates is None or self._rates.ask(agent, rate)

    def rest(self, key: ThreadKey) -> None:
        """A thread stopped running and waits for something outside; it keeps its session."""
        self._stop_running(key)
        self.admit()

    def leave(self, key: ThreadKey, session: int) -> None:
        """A thread ended, wherever it stood."""
        self._stop_running(key)
        self._stop_waiting(key)
        if session and self._holders.get(session) == key:
            del self._holders[session]
            self._next_in_session(session)
        self.admit()

    def _stop_waiting(self, key: ThreadKey) -> None:
        self._held_back.pop(key, None)
        if self._waiting.pop(key, None) is not None:
            _count(self._waiting_by_tenant, key.tenant, -1)

    def _stop_running(self, key: ThreadKey) -> None:
        candidate = self._running.pop(key, None)
        if candidate is not None:
            _count(self._by_tenant, key.tenant, -1)
            _count(self._by_agent, candidate.agent, -1)
            if candidate.rate is not None and self._rates is not None:
                self._rates.give_back(candidate.agent, key)

    def _next_in_session(self, session: int) -> None:
        queue = self._in_session.get(session, deque())
        while queue:
            candidate = queue.popleft()
            if self._stands(candidate):
                self._make_ready(candidate)
                break
        if not queue:
            self._in_session.pop(session, None)

    def waiting(self, key: ThreadKey) -> Waiting | None:
        """What holds a thread back, or None when it is not waiting here."""
        candidate = self._waiting.get(key)
        if candidate is None:
            return None
        holder = self._holders.get(candidate.session) if candidate.session else None
        if key in self._held_back or (holder is not None and holder != key):
            return Waiting("SESSION", candidate.session_name, candidate.since)
        if candidate.agent_max and self._by_agent.get(candidate.agent, 0) >= candidate.agent_max:
            return Waiting("AGENT_LIMIT", candidate.agent_name, candidate.since)
        rate = candidate.rate
        if rate is not None and self._rates is not None and self._rates.full(candidate.agent, rate):
            return Waiting("START_RATE", candidate.agent_name, candidate.since)
        return Waiting("TENANT_LIMIT", "", candidate.since)


def _count(counts: dict[int, int], key: int, change: int) -> None:
    counts[key] = counts.get(key, 0) + change
    if not counts[key]:
        del counts[key]
