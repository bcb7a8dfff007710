"""Who runs next: within bounds, fair between tenants and agents, one at a time in a session."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.engine.house import left_over
from treadle_server.engine.admission import Admission, Bounds, Candidate
from treadle_server.ports.engine import Waiting
from treadle_server.ports.log import ThreadKey


@dataclass(slots=True)
class Door:
    """An admission, and who was let in, in order."""

    bounds: Bounds = field(default_factory=Bounds)
    ran: list[Candidate] = field(default_factory=list)
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        self.admission = Admission(self.bounds, self.ran.append)

    @property
    def threads(self) -> list[int]:
        return [candidate.key.thread for candidate in self.ran]

    def offer(
        self, thread: int, tenant: int = 1, agent: int = 1, session: int = 0, agent_max: int = 0
    ) -> Candidate:
        name = f"sessions/s{session}" if session else ""
        candidate = Candidate(
            ThreadKey(tenant, thread), agent, f"agents/a{agent}", session, name, agent_max, thread
        )
        self.admission.offer(candidate)
        return candidate

    def hold_back(self, thread: int, session: int) -> Candidate:
        candidate = Candidate(
            ThreadKey(1, thread), 1, "agents/a1", session, f"sessions/s{session}", 0, thread
        )
        self.admission.hold_back(candidate)
        return candidate

    def leave(self, candidate: Candidate) -> None:
        self.admission.leave(candidate.key, candidate.session)

    def leave_in_order(self) -> None:
        """Everybody who was let in leaves again, one after another, until nobody comes."""
        left = 0
        while left < len(self.ran):
            self.leave(self.ran[left])
            left += 1


def assert_empty(admission: Admission) -> None:
    assert left_over(admission) == {}
    assert (admission.running_count, admission.waiting_count) == (0, 0)


def test_who_comes_runs_at_once_while_there_is_room() -> None:
    door = Door(Bounds(server_max=2))

    for thread in (1, 2, 3):
        door.offer(thread)

    assert door.threads == [1, 2]
    assert (door.admission.running_count, door.admission.waiting_count) == (2, 1)


def test_a_thread_that_is_offered_again_waits_and_runs_once() -> None:
    door = Door(Bounds(server_max=1))
    for thread in (1, 2, 1, 2):
        door.offer(thread)

    door.leave_in_order()

    assert door.threads == [1, 2]
    assert_empty(door.admission)


def test_who_left_before_its_turn_and_came_back_waits_for_its_session() -> None:
    door = Door(Bounds(server_max=1))
    busy = door.offer(1)
    back, other = door.offer(2, session=7), door.offer(3, session=7)

    door.leave(back)
    door.offer(2, session=7)
    door.leave(busy)

    assert door.threads == [1, 3]
    assert door.admission.waiting(back.key) == Waiting("SESSION", "sessions/s7", 2)
    door.leave(other)
    assert door.threads == [1, 3, 2]


def test_who_is_held_back_takes_no_room_and_keeps_its_place_in_its_session() -> None:
    door = Door(Bounds(server_max=1))
    held = door.hold_back(1, session=7)
    door.offer(2, session=7)
    other = door.offer(3)

    assert door.threads == [3]
    assert door.admission.waiting(held.key) == Waiting("SESSION", "sessions/s7", 1)
    door.leave(other)
    assert door.threads == [3]
    door.admission.offer(held)
    assert door.threads == [3, 1]
    door.leave(held)
    assert door.threads == [3, 1, 2]


def test_who_is_held_back_behind_another_of_its_session_runs_once_both_are_over() -> None:
    door = Door()
    first = door.offer(1, session=7)
    early, late = door.hold_back(2, session=7), door.hold_back(3, session=7)

    door.admission.offer(early)
    assert door.threads == [1]
    door.leave(first)
    assert door.threads == [1, 2]
    door.leave(early)
    assert door.threads == [1, 2]
    door.admission.offer(late)
    door.leave_in_order()

    assert door.threads == [1, 2, 3]
    assert_empty(door.admission)


def test_who_is_held_back_counts_as_waiting_and_may_leave() -> None:
    door = Door()
    held = door.hold_back(1, session=7)
    door.hold_back(1, session=7)

    assert door.admission.waiting_count == 1
    door.leave(held)

    assert door.threads == []
    assert_empty(door.admission)


def test_a_thousand_queued_threads_of_one_tenant_delay_another_by_one_turn() -> None:
    door = Door(Bounds(server_max=10))
    for thread in range(1000):
        door.offer(thread, tenant=1)
    other = door.offer(5000, tenant=2)
    assert door.admission.waiting(other.key) == Waiting("TENANT_LIMIT", "", 5000)

    for running in list(door.ran[:4]):
        door.leave(running)

    assert 5000 in door.threads[10:14]


def test_tenants_take_turns() -> None:
    door = Door(Bounds(server_max=1))
    for thread in range(30):
        door.offer(thread, tenant=1 + thread // 10)

    door.leave_in_order()

    turns = [candidate.key.tenant for candidate in door.ran[1:28]]
    assert Counter(turns) == {1: 9, 2: 9, 3: 9}
    assert all(len({*turns[i : i + 3]}) == 3 for i in range(0, 27, 3))
    assert_empty(door.admission)


def test_a_thousand_queued_threads_of_one_agent_delay_another_by_one_turn() -> None:
    door = Door(Bounds(server_max=10))
    for thread in range(1000):
        door.offer(thread, agent=1)
    door.offer(5000, agent=2)

    for running in list(door.ran[:4]):
        door.leave(running)

    assert 5000 in door.threads[10:14]


def test_threads_of_one_agent_run_in_the_order_of_their_arrival() -> None:
    door = Door(Bounds(server_max=3))
    for thread in range(50):
        door.offer(thread)

    door.leave_in_order()

    assert door.threads == list(range(50))


def test_an_agent_at_its_limit_blocks_no_other_agent() -> None:
    door = Door()
    first, *_ = [door.offer(thread, agent=1, agent_max=2) for thread in range(5)]
    door.offer(10, agent=2, agent_max=2)

    assert door.threads == [0, 1, 10]
    assert door.admission.waiting(ThreadKey(1, 2)) == Waiting("AGENT_LIMIT", "agents/a1", 2)
    door.leave(first)
    assert door.threads == [0, 1, 10, 2]


def test_a_tenant_at_its_limit_blocks_no_other_tenant() -> None:
    door = Door(Bounds(server_max=100, tenant_max=2))
    for thread in range(5):
        door.offer(thread, tenant=1)
    door.offer(10, tenant=2)

    assert door.threads == [0, 1, 10]
    assert door.admission.waiting(ThreadKey(1, 4)) == Waiting("TENANT_LIMIT", "", 4)


def test_a_session_runs_its_threads_one_at_a_time_in_order() -> None:
    door = Door()
    threads = [door.offer(thread, session=7) for thread in range(4)]
    assert door.threads == [0]
    assert door.admission.waiting(threads[1].key) == Waiting("SESSION", "sessions/s7", 1)

    door.leave_in_order()

    assert door.threads == [0, 1, 2, 3]
    assert_empty(door.admission)


def test_a_thread_that_rests_keeps_its_session_and_gives_up_its_place() -> None:
    door = Door(Bounds(server_max=1))
    holder = door.offer(1, session=7)
    door.offer(2, session=7)
    door.offer(3)

    door.admission.rest(holder.key)
    assert door.threads == [1, 3]
    assert door.admission.waiting(ThreadKey(1, 2)) == Waiting("SESSION", "sessions/s7", 2)

    door.leave(door.ran[1])
    assert door.threads == [1, 3]
    door.offer(1, session=7)
    assert door.threads == [1, 3, 1]
    door.leave(holder)
    assert door.threads == [1, 3, 1, 2]


def test_a_session_held_from_before_a_restart_is_not_given_to_another() -> None:
    door = Door()
    door.admission.hold_session(7, ThreadKey(1, 1))
    door.offer(2, session=7)
    assert door.threads == []

    door.offer(1, session=7)
    door.leave(door.ran[0])

    assert door.threads == [1, 2]


def test_a_queued_thread_that_leaves_is_never_let_in() -> None:
    door = Door(Bounds(server_max=1))
    threads = [door.offer(thread) for thread in range(4)]
    door.leave(threads[2])
    assert door.admission.waiting(threads[2].key) is None

    door.leave_in_order()

    assert door.threads == [0, 1, 3]
    assert_empty(door.admission)


def test_a_thread_that_leaves_while_it_waits_for_its_session_is_never_let_in() -> None:
    door = Door()
    threads = [door.offer(thread, session=7) for thread in range(4)]
    door.leave(threads[1])

    door.leave_in_order()

    assert door.threads == [0, 2, 3]
    assert_empty(door.admission)


def test_a_queued_holder_of_a_session_that_leaves_hands_it_on() -> None:
    door = Door(Bounds(server_max=1))
    door.offer(0)
    holder, _ = door.offer(1, session=7), door.offer(2, session=7)

    door.leave(holder)
    door.leave_in_order()

    assert door.threads == [0, 2]
    assert_empty(door.admission)


def test_nobody_is_let_in_once_it_is_stopped() -> None:
    door = Door(Bounds(server_max=1))
    first = door.offer(1)
    door.offer(2)

    door.admission.stopped = True
    door.leave(first)
    door.offer(3)

    assert door.threads == [1]


BOUNDS = Bounds(server_max=4, tenant_max=3)
AGENT_MAX = {1: 0, 2: 1, 3: 2}


class AdmissionMachine(RuleBasedStateMachine):
    """Offers, rests and ends in any order, against what must hold whatever the order."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(BOUNDS, self._run)
        self.running: dict[ThreadKey, Candidate] = {}
        self.resting: dict[ThreadKey, Candidate] = {}
        self.queued: dict[ThreadKey, Candidate] = {}
        self.begun: set[ThreadKey] = set()
        self.thread = 0

    def _run(self, candidate: Candidate) -> None:
        del self.queued[candidate.key]
        self.running[candidate.key] = candidate
        self.begun.add(candidate.key)

    @rule(tenant=st.integers(1, 2), agent=st.sampled_from([1, 2, 3]), session=st.integers(0, 2))
    def offer_new(self, tenant: int, agent: int, session: int) -> None:
        self.thread += 1
        key, place = ThreadKey(tenant, self.thread), session and 10 * tenant + session
        agent_key = 10 * tenant + agent
        candidate = Candidate(
            key, agent_key, f"agents/{agent_key}", place, f"sessions/{place}", AGENT_MAX[agent], self.thread
        )
        self.queued[key] = candidate
        self.admission.offer(candidate)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 1000))
    def rest(self, pick: int) -> None:
        candidate = self._take(self.running, pick)
        self.resting[candidate.key] = candidate
        self.admission.rest(candidate.key)

    @precondition(lambda self: self.resting)
    @rule(pick=st.integers(0, 1000))
    def offer_again(self, pick: int) -> None:
        candidate = self._take(self.resting, pick)
        self.queued[candidate.key] = candidate
        self.admission.offer(candidate)

    @precondition(lambda self: self.running or self.resting or self.queued)
    @rule(pick=st.integers(0, 1000))
    def leave(self, pick: int) -> None:
        everybody = {**self.running, **self.resting, **self.queued}
        candidate = self._take(everybody, pick)
        for place in (self.running, self.resting, self.queued):
            place.pop(candidate.key, None)
        self.admission.leave(candidate.key, candidate.session)

    def _take(self, place: dict[ThreadKey, Candidate], pick: int) -> Candidate:
        return place.pop(sorted(place, key=lambda key: key.thread)[pick % len(place)])

    @invariant()
    def it_says_what_is_so(self) -> None:
        assert self.admission.running_count == len(self.running)
        assert self.admission.waiting_count == len(self.queued)
        assert all(self.admission.knows(key) for key in (*self.running, *self.queued))
        assert not any(self.admission.knows(key) for key in self.resting)

    @invariant()
    def no_bound_is_exceeded(self) -> None:
        assert len(self.running) <= BOUNDS.server_max
        tenants = Counter(key.tenant for key in self.running)
        assert all(count <= BOUNDS.tenant_max for count in tenants.values())
        for agent, count in Counter(c.agent for c in self.running.values()).items():
            assert count <= (AGENT_MAX[agent % 10] or count)

    @invariant()
    def a_session_has_one_thread_that_began_and_did_not_end(self) -> None:
        alive: Sequence[Candidate] = [*self.running.values(), *self.resting.values(), *self.queued.values()]
        sessions = Counter(c.session for c in alive if c.session and c.key in self.begun)
        assert all(count == 1 for count in sessions.values())

    @invariant()
    def who_waits_has_a_reason_that_is_true(self) -> None:
        tenants = Counter(key.tenant for key in self.running)
        agents = Counter(candidate.agent for candidate in self.running.values())
        for key, candidate in self.queued.items():
            waiting = self.admission.waiting(key)
            assert waiting is not None
            full = len(self.running) >= BOUNDS.server_max or tenants[key.tenant] >= BOUNDS.tenant_max
            if waiting.kind == "AGENT_LIMIT":
                assert agents[candidate.agent] >= candidate.agent_max > 0
            elif waiting.kind == "SESSION":
                assert candidate.session
            else:
                assert full

    def teardown(self) -> None:
        for candidate in [*self.queued.values(), *self.resting.values()]:
            self.queued.pop(candidate.key, None)
            self.admission.leave(candidate.key, candidate.session)
        while self.running:
            _, candidate = self.running.popitem()
            self.admission.leave(candidate.key, candidate.session)
        assert_empty(self.admission)


TestAnyOrder = AdmissionMachine.TestCase
TestAnyOrder.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
