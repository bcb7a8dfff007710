"""Callers of a fault run: many at once, each with one thread after the other."""

import random
from collections.abc import Awaitable, Callable

import grpc

from tests.faults.evidence import History
from tests.faults.people import Person
from treadle import Client, TreadleError

WAYS: dict[Callable[[Person], Awaitable[None]], float] = {
    Person.create_and_watch: 0.20,
    Person.stream: 0.15,
    Person.execute: 0.15,
    Person.create_twice: 0.05,
    Person.cancel: 0.09,
    Person.complete: 0.06,
    Person.pause_and_resume: 0.06,
    Person.steer: 0.06,
    Person.answer: 0.06,
    Person.decide: 0.07,
    Person.delegate: 0.05,
}
"""With their shares."""


class Callers:
    """`google` is the share of threads that call the world's model over HTTP."""

    def __init__(
        self, client: Client, channel: grpc.aio.Channel, history: History, seed: int, *, google: float = 0.0
    ) -> None:
        self._client = client
        self._channel = channel
        self._history = history
        self._seed = seed
        self._google = google
        self.made = 0

    async def work(self, enough: Callable[[], bool]) -> None:
        """Makes one thread after the other and sees each to its end, until there is enough."""
        while not enough():
            self.made += 1
            caller = self._caller(self.made)
            (way,) = caller.chance.choices(list(WAYS), list(WAYS.values()))
            try:
                await way(caller)
            except (TreadleError, grpc.aio.AioRpcError) as failure:
                told = failure.details() if isinstance(failure, grpc.aio.AioRpcError) else failure
                self._history.failures.append(f"{way.__name__} of {self.made}: {told}")

    def _caller(self, number: int) -> Person:
        chance = random.Random(f"{self._seed}/{number}")
        caller = Person(self._client, self._channel, self._history, f"t{self._seed}-{number}", chance)
        if chance.random() < self._google:
            caller.ask_google()
        return caller
