"""What clients were told, each with the place in the trace by which it had to be durable."""

import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.faults.shim.rules import FaultyDisk, File
from tests.faults.shim.trace import Kind, Record
from treadle import Thread, ThreadEvent

Place = tuple[str, int]
"""A thread and a sequence."""


@dataclass(slots=True)
class Told:
    """Everything up to one place of the trace."""

    events: dict[Place, ThreadEvent | None] = field(default_factory=dict)
    """None where a client knows only that there is such an event."""
    threads: dict[str, str] = field(default_factory=dict)
    """By request id."""
    agents: set[str] = field(default_factory=set)
    intents: set[tuple[str, str]] = field(default_factory=set)
    """Thread and call of every call at most once that was made."""


@dataclass(frozen=True, slots=True)
class Claim:
    place: int
    agent: str = ""
    request_id: str = ""
    thread: str = ""
    sequence: int = 0
    event: ThreadEvent | None = None
    call_id: str = ""

    def tell(self, told: Told) -> None:
        if self.agent:
            told.agents.add(self.agent)
        if self.request_id:
            told.threads[self.request_id] = self.thread
        if self.call_id:
            told.intents.add((self.thread, self.call_id))
        if self.sequence:
            key = (self.thread, self.sequence)
            told.events[key] = self.event or told.events.get(key)


class Claims:
    """Collected by a client while it is told; it looks at the trace after each answer."""

    def __init__(self, disk: FaultyDisk) -> None:
        self._disk = disk
        self._claims: list[Claim] = []

    def agent(self, name: str) -> None:
        self._claims.append(Claim(self._disk.position(), agent=name))

    def thread(self, thread: Thread, request_id: str = "") -> None:
        """An answer: the thread has all events up to its last."""
        place = self._disk.position()
        self._claims.append(
            Claim(place, request_id=request_id, thread=thread.name, sequence=thread.last_sequence)
        )

    def event(self, event: ThreadEvent) -> None:
        """One of a stream, which has no events before they are durable."""
        if event.sequence:
            place = self._disk.position()
            self._claims.append(Claim(place, thread=event.thread, sequence=event.sequence, event=event))

    def calls(self, records: Iterable[Record]) -> None:
        """Takes the tools' ledger from a trace: what it has of calls at most once had durable intents."""
        for record in records:
            if record.file is File.MARKS and record.kind is Kind.WRITTEN:
                line = json.loads(record.data)
                if line["tool"] == "send":
                    thread = "threads/" + line["note"].partition("/")[0]
                    self._claims.append(Claim(record.begin, thread=thread, call_id=line["call_id"]))

    def __len__(self) -> int:
        return len(self._claims)

    def told(self, place: int) -> Told:
        """All that was to be durable when the trace had come so far."""
        ordered = self._claims
        ordered.sort(key=lambda claim: claim.place)
        told = Told()
        for claim in ordered[: bisect_right(ordered, place, key=lambda claim: claim.place)]:
            claim.tell(told)
        return told
