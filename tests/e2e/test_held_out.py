"""The examination of `demo:react` over gRPC: what it answers rightly, and that it refuses honestly."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.e2e.answers import Question
from tests.e2e.held_out import QUESTIONS
from tests.server_process import ServerProcess
from treadle import Client, Thread

RIGHT_MIN = 60
SHAPES_MIN = 6
REFUSALS = ("unknown", "absent")
"""Shapes in which nothing is to be answered."""
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one question, and between which moments."""

    question: Question
    threads: tuple[Thread, ...]
    moments: tuple[datetime, datetime]

    @property
    def text(self) -> str:
        return self.threads[-1].output.text

    @property
    def right(self) -> bool:
        return self.question.right(self.text, self.moments)


async def _asked(client: Client, number: int, question: Question) -> Answer:
    key = f"question-{number}"
    said = [await client.execute("helper", text, session_key=key) for text in question.before]
    start = datetime.now(UTC)
    last = await client.execute("helper", question.text, session_key=key)
    return Answer(question, (*said, last), (start, datetime.now(UTC)))


async def _examined(address: str) -> list[Answer]:
    room = asyncio.Semaphore(_AT_ONCE)

    async def turn(number: int, question: Question) -> Answer:
        async with room:
            return await _asked(client, number, question)

    async with Client(address) as client:
        await client.create_agent("helper", model="demo:react", tool_groups=["toolGroups/builtin"])
        return await asyncio.gather(*(turn(*numbered) for numbered in enumerate(QUESTIONS)))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    with ServerProcess(tmp_path_factory.mktemp("held_out") / "treadle.db") as server:
        return asyncio.run(_examined(server.start().address))


def told(answers: Iterable[Answer]) -> str:
    """The questions with their answers, for a person to read."""
    return "\n".join(f"[{each.question.shape}] {each.question.text}\n    -> {each.text}" for each in answers)


def by_shape(answers: Iterable[Answer]) -> dict[str, list[Answer]]:
    shapes: dict[str, list[Answer]] = defaultdict(list)
    for each in answers:
        shapes[each.question.shape].append(each)
    return shapes


def test_at_least_sixty_questions_of_six_shapes_are_answered_rightly(answers: list[Answer]) -> None:
    answerable = [each for each in answers if each.question.shape not in REFUSALS]

    right = [each for each in answerable if each.right]

    failed = told(each for each in answerable if not each.right)
    assert len(right) >= RIGHT_MIN, failed
    assert len(by_shape(right)) >= SHAPES_MIN, failed


def test_at_least_half_of_every_shape_is_answered_rightly(answers: list[Answer]) -> None:
    shapes = by_shape(answers)

    weak = {
        shape: told(each for each in asked if not each.right)
        for shape, asked in shapes.items()
        if 2 * sum(each.right for each in asked) < len(asked)
    }

    assert not weak, "\n".join(weak.values())


def test_what_is_out_of_reach_is_refused_and_nothing_is_invented(answers: list[Answer]) -> None:
    refusals = [each for each in answers if each.question.refusal]

    dishonest = [each for each in refusals if not each.question.honest(each.text)]

    assert len(refusals) >= 30
    assert not dishonest, told(dishonest)


def test_every_question_ends_its_thread_well(answers: list[Answer]) -> None:
    ended_otherwise = [
        (each.question.text, Thread.State.Name(thread.state), thread.error.message)
        for each in answers
        for thread in each.threads
        if thread.state != Thread.COMPLETED
    ]

    assert not ended_otherwise
    assert all(each.text for each in answers), "an answer is empty"
