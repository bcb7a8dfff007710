"""`demo:react` with tools renamed, withheld, altered or out of order: it acts on what it sees."""

import json
from collections.abc import Iterator
from datetime import UTC
from itertools import pairwise

import pytest

from tests.e2e.answers import ABSENT, CANNOT, Question, now_in, numbers_in
from tests.e2e.changed_tools import OTHER_NOTE, OTHER_TIME, PREFIX, VARIANTS
from tests.server_process import ServerProcess
from treadle import Action, Client, Thread

HEIGHTS = json.dumps([{"peak": "Rigi", "height": 1798}, {"peak": "Pilatus", "height": 2128}])
ARITHMETIC = Question("arithmetic", "What is 37 * 43?", numbers=(37 * 43,))
STEPS = Question("steps", "Add 145 and 355, then divide the result by 8.", numbers=((145 + 355) / 8,))
CLOCK = Question("clock", "What time is it in Nairobi?", at=now_in("Africa/Nairobi"))
NOTE = Question("note", "What is my gate?", before=("Remember that my gate is C17.",), words=("C17",))
JSON = Question("json", f"What is the sum of the heights? {HEIGHTS}", numbers=(1798 + 2128,))
USED = (
    (ARITHMETIC, "calculator"),
    (STEPS, "calculator"),
    (CLOCK, "current_time"),
    (NOTE, "recall"),
    (JSON, "json_query"),
)
"""What is asked, and the tool to use for it."""
TIME = r"\d:\d\d"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("changed_tools")
    with ServerProcess(folder / "treadle.db", module="tests.e2e.changed_tools") as process:
        yield process.start()


async def ask(client: Client, question: Question, group: str, *, without: tuple[str, ...] = ()) -> Thread:
    """Asks a new agent that has the tools of a group, or all but some of them."""
    enabled = [tool.name async for tool in client.list_builtin_tools()] if without else []
    agent = await client.create_agent(
        model="demo:react",
        tool_groups=[PREFIX + group],
        enabled_tools=[name for name in enabled if name.rpartition("/")[2] not in without],
    )
    for text in question.before:
        await client.execute(agent.name, text, session_key=agent.name)
    thread = await client.execute(agent.name, question.text, session_key=agent.name)
    assert thread.state == Thread.COMPLETED, thread.error.message
    return thread


def right(question: Question, thread: Thread) -> bool:
    start, end = thread.create_time.ToDatetime(UTC), thread.end_time.ToDatetime(UTC)
    return question.right(thread.output.text, (start, end))


def calls(thread: Thread, tool: str) -> list[Action]:
    return [act for iteration in thread.iterations for act in iteration.actions if act.tool == tool]


@pytest.mark.parametrize(("question", "builtin"), USED, ids=lambda value: getattr(value, "shape", value))
@pytest.mark.parametrize("group", ["neutral", "fanciful", "misleading", "reworded"])
async def test_a_tool_is_found_under_any_name(
    client: Client, group: str, question: Question, builtin: str
) -> None:
    thread = await ask(client, question, group)

    assert right(question, thread), thread.output.text
    assert VARIANTS[group].name_of(builtin) in thread.tools_used


async def test_an_altered_result_is_the_answer(client: Client) -> None:
    thread = await ask(client, ARITHMETIC, "one-more")

    answered = numbers_in(thread.output.text)
    assert 37 * 43 + 1 in answered, thread.output.text
    assert 37 * 43 not in answered


async def test_an_altered_result_is_carried_into_the_next_step(client: Client) -> None:
    thread = await ask(client, STEPS, "one-more")

    made = calls(thread, "calculator")
    answered = numbers_in(thread.output.text)
    assert float(made[-1].observation) in answered, thread.output.text
    assert (145 + 355) / 8 not in answered
    for earlier, later in pairwise(made):
        assert earlier.observation in json.loads(later.arguments_json)["expression"]


async def test_an_altered_clock_is_believed(client: Client) -> None:
    thread = await ask(client, CLOCK, "another-time")

    assert OTHER_TIME in thread.output.text
    assert not right(CLOCK, thread)


async def test_an_altered_clock_is_what_later_times_are_reckoned_from(client: Client) -> None:
    question = Question("clock", "What time was it in Nairobi 45 minutes ago?")

    thread = await ask(client, question, "another-time")

    assert "3:20" in thread.output.text


async def test_an_altered_note_is_what_is_told(client: Client) -> None:
    thread = await ask(client, NOTE, "another-note")

    assert OTHER_NOTE in thread.output.text
    assert "C17" not in thread.output.text


async def test_altered_json_is_what_is_told(client: Client) -> None:
    thread = await ask(client, JSON, "tenfold")

    answered = numbers_in(thread.output.text)
    assert 10 * (1798 + 2128) in answered, thread.output.text
    assert 1798 + 2128 not in answered


@pytest.mark.parametrize("question", [asked for asked, _ in USED], ids=lambda asked: asked.shape)
@pytest.mark.parametrize("group", ["refusing", "broken"])
async def test_a_tool_that_fails_is_reported_and_nothing_is_invented(
    client: Client, group: str, question: Question
) -> None:
    honest = Question("failing", question.text, never=("C17", TIME), refusal=ABSENT, before=question.before)

    thread = await ask(client, honest, group)

    assert honest.honest(thread.output.text), thread.output.text
    assert not any(wanted in numbers_in(thread.output.text) for wanted in question.numbers)


@pytest.mark.parametrize(
    ("question", "withheld"),
    [(ARITHMETIC, "calculator"), (STEPS, "calculator"), (CLOCK, "current_time"), (NOTE, "recall")],
    ids=lambda value: getattr(value, "shape", value),
)
async def test_without_the_tool_for_it_a_question_is_declined(
    client: Client, question: Question, withheld: str
) -> None:
    honest = Question("withheld", question.text, never=("C17", TIME), refusal=CANNOT, before=question.before)

    thread = await ask(client, honest, "builtin", without=(withheld,))

    assert honest.honest(thread.output.text), thread.output.text
    assert not any(wanted in numbers_in(thread.output.text) for wanted in question.numbers)
    assert withheld not in thread.tools_used


async def test_without_json_query_a_sum_is_declined_or_reckoned_another_way(client: Client) -> None:
    declined = Question("withheld", JSON.text, refusal=CANNOT)

    thread = await ask(client, JSON, "builtin", without=("json_query",))

    reckoned = right(JSON, thread) and "calculator" in thread.tools_used
    assert reckoned or declined.honest(thread.output.text), thread.output.text


async def test_without_one_tool_the_others_still_serve(client: Client) -> None:
    told = [
        (question, await ask(client, question, "builtin", without=("calculator", "finish")))
        for question in (CLOCK, NOTE)
    ]

    for question, thread in told:
        assert right(question, thread), thread.output.text


async def test_without_any_tool_every_question_is_declined(client: Client) -> None:
    agent = await client.create_agent(model="demo:react")

    for question, _ in USED:
        thread = await client.execute(agent.name, question.text)
        honest = Question("bare", question.text, never=(TIME,), refusal=CANNOT)
        assert thread.state == Thread.COMPLETED
        assert honest.honest(thread.output.text), thread.output.text
        assert not any(wanted in numbers_in(thread.output.text) for wanted in question.numbers)


async def test_a_question_of_two_parts_is_answered_as_far_as_the_tools_go(client: Client) -> None:
    question = Question(
        "both", f"{CLOCK.text[:-1]}, and what is 37 * 43?", at=CLOCK.at, never=("1,?591",), refusal=CANNOT
    )

    thread = await ask(client, question, "builtin", without=("calculator",))

    assert right(question, thread), thread.output.text
