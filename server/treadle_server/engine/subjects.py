"""What admission must know of threads besides their states."""

from dataclasses import dataclass

from treadle_server.engine.admission import Candidate
from treadle_server.engine.start_rates import StartRate
from treadle_server.ports.log import ThreadKey


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose a thread is."""

    agent: int
    agent_name: str
    session: int
    session_name: str

    def candidate(self, key: ThreadKey, agent_max: int, since: int, rate: StartRate | None) -> Candidate:
        """The thread as it asks to run."""
        return Candidate(
            key, self.agent, self.agent_name, self.session, self.session_name, agent_max, since, rate
        )
