"""The rule-based model against real tools: what it answers, by which calls, and what it admits."""

import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import jmespath
import pytest
from simpleeval import SimpleEval

from treadle_server.core.kinds import CallStatus, DeltaKind
from treadle_server.core.spec import ModelSettings, ToolSpec
from treadle_server.core.transcript import (
    CallEntry,
    ModelEntry,
    ProblemEntry,
    ToolEntry,
    Transcript,
    UserEntry,
)
from treadle_server.core.values import Content, Cost
from treadle_server.models.demo import DemoModel
from treadle_server.ports.model import ModelError, ModelReply, ModelRequest

NOON = datetime(2025, 1, 15, 12, 30, tzinfo=ZoneInfo("UTC"))
FUNCTIONS = {"sqrt": math.sqrt, "abs": abs, "round": round, "min": min, "max": max}
ORDERS = (
    '{"orders": [{"id": 1, "customer": "Ann", "status": "paid", "amount": 120.5},'
    ' {"id": 2, "customer": "Bob", "status": "open", "amount": 80},'
    ' {"id": 3, "customer": "Ann", "status": "paid", "amount": 49.5}]}'
)
PEOPLE = (
    '[{"name": "Alice", "age": 34, "city": "Berlin", "active": true},'
    ' {"name": "Bo", "age": 28, "city": "Paris", "active": false},'
    ' {"name": "Cara", "age": 41, "city": "Berlin", "active": true}]'
)
NESTED = '{"user": {"name": "Dana", "address": {"city": "Oslo", "zip": "0150"}}, "total": 7}'
GOODS = '{"items": [{"sku": "A1", "price": 10, "quantity": 3}, {"sku": "B2", "price": 4.5, "quantity": 2}]}'

Tool = Callable[..., str]


class ToolFailure(Exception):  # noqa: N818 - an outcome, no fault
    """A call that ends with another status than SUCCEEDED."""

    def __init__(self, text: str, status: CallStatus = CallStatus.FAILED) -> None:
        super().__init__(text)
        self.status = status


def calculator(expression: str) -> str:
    try:
        return str(SimpleEval(functions=FUNCTIONS).eval(expression))
    except ArithmeticError as problem:
        raise ToolFailure(str(problem)) from problem


def current_time(time_zone: str = "UTC") -> str:
    moment = NOON.astimezone(ZoneInfo(time_zone))
    offset = moment.isoformat()[-6:]
    return json.dumps(
        {"time_zone": time_zone, "iso": moment.isoformat(), "weekday": f"{moment:%A}", "utc_offset": offset}
    )


def json_query(document: str, query: str) -> str:
    return json.dumps(jmespath.search(query, json.loads(document)))


def spec(name: str, description: str, *required: str, optional: Sequence[str] = ()) -> ToolSpec:
    properties = {parameter: {"type": "string"} for parameter in (*required, *optional)}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return ToolSpec(name, "", description, json.dumps(schema))


SPECS = (
    spec("calculator", "Evaluates an arithmetic expression.", "expression"),
    spec("current_time", "Tells the current time in an IANA time zone.", optional=["time_zone"]),
    spec("json_query", "Queries a JSON document with a JMESPath expression.", "document", "query"),
    spec("remember", "Stores a text under a key.", "key", "text"),
    spec("recall", "Fetches the text stored under a key, or lists the keys.", optional=["key"]),
    replace(spec("finish", "Finishes with an answer.", "answer"), finishes=True),
)


@dataclass
class Bench:
    """A thread with the demo model and tools that really work."""

    notes: dict[str, str] = field(default_factory=dict)
    specs: tuple[ToolSpec, ...] = SPECS
    tools: dict[str, Tool] = field(default_factory=dict)
    transcript: Transcript = field(default_factory=Transcript)
    replies: list[ModelReply] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        working: dict[str, Tool] = {
            "calculator": calculator,
            "current_time": current_time,
            "json_query": json_query,
            "remember": self.remember,
            "recall": self.recall,
        }
        self.tools = {**working, **self.tools}

    def remember(self, key: str, text: str) -> str:
        self.notes[key] = text
        return f"stored under {key}"

    def recall(self, key: str = "") -> str:
        if not key:
            return "\n".join(self.notes) or "there are no notes"
        if key not in self.notes:
            raise ToolFailure(f"there is no note under {key}")
        return self.notes[key]

    @property
    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (call.name, json.loads(call.arguments_json)) for reply in self.replies for call in reply.calls
        ]

    async def ask(self, question: str, data_json: str = "") -> str:
        """Runs the loop until the model answers without calls."""
        self.say(question, data_json)
        for turn in range(25):
            reply = await self.turn()
            if not reply.calls:
                self.turns = turn + 1
                return reply.text
        raise AssertionError(f"no answer to {question!r} in 25 turns")

    def say(self, text: str, data_json: str = "") -> None:
        self.transcript.entries.append(UserEntry(Content(text, data_json)))

    async def turn(self) -> ModelReply:
        reply = await DemoModel().reply(self.request(), lambda kind, text: None)
        self.replies.append(reply)
        entries = tuple(
            CallEntry(f"call-{len(self.replies)}-{index}", call.name, call.arguments_json)
            for index, call in enumerate(reply.calls)
        )
        self.transcript.entries.append(ModelEntry(reply.text, reply.thought, entries))
        self.transcript.entries.extend(self.run(entry) for entry in entries)
        return reply

    def request(self) -> ModelRequest:
        return ModelRequest("react", "c1", 1, "Be exact.", ModelSettings(), self.specs, self.transcript)

    def run(self, call: CallEntry) -> ToolEntry:
        try:
            observation = self.tools[call.name](**json.loads(call.arguments_json))
        except ToolFailure as problem:
            return ToolEntry(call.tool_call_id, call.name, problem.status, str(problem))
        return ToolEntry(call.tool_call_id, call.name, CallStatus.SUCCEEDED, observation)


def says(answer: str, *expected: str) -> bool:
    """Whether the answer has each text, and numbers not as a part of others."""
    found = [re.search(rf"(?<![\d.]){re.escape(text)}(?!\d|\.\d*[1-9])", answer) for text in expected]
    return all(found)


ARITHMETIC = [
    ("What is 12 * (3 + 4) - 5?", "79"),
    ("What's 15 percent of 240, plus a third of 90?", "66"),
    ("Take 84, divide it by 7, add 13 and then double the result.", "50"),
    ("How much is twenty-five times four, minus two dozen?", "76"),
    ("What is 2 to the power of 10 minus the square root of 144?", "1012"),
    ("Increase 80 by 25% and then decrease the result by 10%.", "90"),
    ("First add 18 and 24. Next, divide the sum by 7. After that, multiply by 5.", "30"),
    ("What percentage of 60 is 15?", "25"),
    ("What number is 15 less than 4 times 20?", "65"),
    ("Is 17 * 3 more than 50?", "Yes"),
    ("Let a = 5 and b = 7. What is a * b + 2?", "37"),
    ("How many minutes are in 3.5 hours?", "210"),
]
STORIES = [
    ("Mia buys 3 notebooks at 4.50 each and 2 pens at 1.25 each and pays with a 20 note. What change?", "4"),
    (
        "A bakery makes 240 rolls, sells 75% of them and splits the rest among 5 shelters. Rolls for each?",
        "12",
    ),
    (
        "Ida earns $18 an hour and works 38 hours a week. She pays 20% tax. What is left after 4 weeks?",
        "2188.8",
    ),
    ("A tank holds 500 litres and loses 12 litres an hour. How much is left after 8 hours?", "404"),
    ("A recipe needs 3 eggs for 12 cookies. How many eggs are needed for 60 cookies?", "15"),
    ("A laptop costs $1,200. It is 15% off, then 8% tax is added. What is the final price?", "1101.6"),
    ("A train goes 80 km/h for 2.5 hours and then 60 km/h for 1.5 hours. How far does it go?", "290"),
    ("Ben had $50. He spent $12.50 on lunch and $8 on a book. How much does he have left?", "29.5"),
    ("Leo has 18 stickers. Maya has 3 times as many as Leo. How many do they have together?", "72"),
    ("A cyclist rides at 15 km/h. How long does she need for 60 km?", "4"),
    ("3 friends split a bill of $84 plus a 20% tip equally. How much does each pay?", "33.6"),
    ("A room is 12 m long and 7 m wide. What is its area?", "84"),
]
CLOCKS = [
    ("What time is it in Tokyo and in Los Angeles?", "21:30", "04:30"),
    ("What time is it in Oslo and how many hours ahead of Chicago is it?", "13:30", "7"),
    ("What is the time difference between London and New York?", "5"),
    ("When it is 15:00 in Tokyo, what time is it in New York?", "01:00"),
    ("My call is at 10:00 in London. What time is that in Singapore?", "18:00"),
    ("What time will it be in Rome in five hours?", "18:30"),
    ("How long until 18:00 in Paris?", "4 hours and 30 minutes"),
    ("Multiply the time difference between Tokyo and London by 60.", "540"),
    ("What day is it in Sydney?", "Wednesday"),
]
NOTES = [
    ("Remember that my badge is 4411. What is my badge times two?", "8822"),
    ("Store 42 under the key lucky. Then fetch lucky and add 8.", "50"),
    ("Compute 12 * 12 and remember it as gross. Then add 6 to gross.", "150"),
    ("Remember that my rent is 900 and my income is 2500. What is my income minus my rent?", "1600"),
    ("My age is 30. What is my age plus 12?", "42"),
]
DOCUMENTS = [
    (f"What is the total of the amounts in this JSON? {ORDERS}", "250"),
    (f"Here is some data: {PEOPLE}. What is the average age?", "34.33"),
    (f"How many orders are paid? {ORDERS}", "2"),
    (f"Which customer has the highest amount in {ORDERS}?", "Ann"),
    (f"List the names of the people older than 30 in {PEOPLE}", "Alice, Cara"),
    (f"How many people are not active?\n```json\n{PEOPLE}\n```", "1"),
    (f"Given {NESTED}, what is user.address.zip?", "0150"),
    (f"What is the user's city? {NESTED}", "Oslo"),
    (f"What is the price times quantity of all items together? {GOODS}", "39"),
    (f"What is the difference between the highest and the lowest amount? {ORDERS}", "71"),
    (f"Remember the total of the amounts in this JSON, then take 15% of it: {ORDERS}", "37.5"),
]
ALL = [*ARITHMETIC, *STORIES, *CLOCKS, *NOTES, *DOCUMENTS]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case[0][:60])
async def test_it_answers_with_what_its_tools_observed(case: tuple[str, ...]) -> None:
    bench = Bench()

    answer = await bench.ask(case[0])

    assert says(answer, *case[1:]), answer
    assert bench.calls


@pytest.mark.parametrize("case", STORIES[:7], ids=lambda case: case[0][:40])
async def test_a_step_that_needs_an_earlier_observation_is_a_turn_of_its_own(case: tuple[str, ...]) -> None:
    bench = Bench()

    await bench.ask(case[0])

    assert bench.turns >= 3


async def test_independent_steps_are_calls_of_one_turn() -> None:
    bench = Bench()

    await bench.ask("What time is it in Tokyo, in Oslo and in Lima?")

    assert [len(reply.calls) for reply in bench.replies] == [3, 0]


async def test_tools_are_known_by_what_they_do_and_not_by_their_names() -> None:
    names = ["recall", "json_query", "remember", "current_time", "xq7", "calculator"]
    specs = tuple(replace(tool, name=name) for tool, name in zip(SPECS, names, strict=True))
    bench = Bench(specs=specs)
    real = dict(bench.tools)
    bench.tools = {name: real[tool.name] for tool, name in zip(SPECS[:5], names, strict=False)}

    answer = await bench.ask(
        f"Remember that my badge is 4411. What is my badge plus 1? {ORDERS} Sum of amount?"
    )

    assert says(answer, "4412", "250"), answer
    assert bench.notes == {"badge": "4411"}


async def test_parameters_are_known_by_their_descriptions() -> None:
    schema = {
        "type": "object",
        "properties": {
            "p1": {"type": "string", "description": "the path expression to search for"},
            "p2": {"type": "string", "description": "the JSON document"},
        },
        "required": ["p1", "p2"],
    }
    tool = ToolSpec("dig", "", "Searches JSON data with a JMESPath expression.", json.dumps(schema))
    bench = Bench(specs=(tool,), tools={"dig": lambda p1, p2: json_query(p2, p1)})

    assert says(await bench.ask(f"What is the sum of the amounts? {ORDERS}"), "250")


@pytest.mark.parametrize(
    ("tool", "question", "lack"),
    [
        ("calculator", "What is 6 times 7?", "evaluates arithmetic"),
        ("current_time", "What time is it in Tokyo?", "current time"),
        ("json_query", f"What is the sum of the amounts? {ORDERS}", "queries JSON"),
        ("remember", "Remember that my badge is 4411.", "stores notes"),
        ("recall", "What is my badge?", "fetches stored notes"),
    ],
)
async def test_it_says_which_ability_it_lacks_when_a_tool_is_withheld(
    tool: str, question: str, lack: str
) -> None:
    bench = Bench(specs=tuple(spec for spec in SPECS if spec.name != tool))

    answer = await bench.ask(question)

    assert "cannot" in answer
    assert lack in answer


@pytest.mark.parametrize(
    ("request_text", "lack"),
    [
        ("Write me a poem about autumn.", "poems"),
        ("What's the weather in Paris?", "weather"),
        ("Book a flight to Rome.", "books"),
        ("Send an email to bob@example.com.", "sends messages"),
        ("Translate hello into French.", "translates"),
        ("What is the capital of France?", "general knowledge"),
        ("Blorf the grumbus.", "did not understand"),
    ],
)
async def test_it_declines_what_no_tool_can_do_and_names_what_it_lacks(request_text: str, lack: str) -> None:
    bench = Bench()

    answer = await bench.ask(request_text)

    assert lack in answer
    assert bench.calls == []


async def test_a_number_whose_part_is_unclear_is_no_reason_to_guess() -> None:
    answer = await Bench().ask("A wizard has 7 spells and a tower of 40 windows. How old is the wizard?")

    assert "did not understand" in answer


async def test_of_two_requests_it_answers_the_one_it_can() -> None:
    answer = await Bench().ask("What is 3 * 4 and write a poem about it?")

    assert says(answer, "12")
    assert "poems" in answer


async def test_an_altered_observation_is_what_the_next_steps_build_on() -> None:
    bench = Bench(tools={"calculator": lambda expression: str(float(calculator(expression)) + 1)})

    answer = await bench.ask("Add 5 to 7, then multiply by 3.")

    assert says(answer, "13", "40"), answer
    assert bench.calls[1][1] == {"expression": "13 * 3"}


async def test_a_clock_is_believed_even_if_it_is_wrong() -> None:
    def fast(time_zone: str = "UTC") -> str:
        moment = datetime.fromisoformat(json.loads(current_time(time_zone))["iso"]) + timedelta(minutes=7)
        return json.dumps({"iso": moment.isoformat()})

    assert says(await Bench(tools={"current_time": fast}).ask("What time is it in Tokyo?"), "21:37")


async def test_a_passing_failure_is_tried_once_more() -> None:
    attempts = itertools.count()

    def flaky(expression: str) -> str:
        if next(attempts) == 0:
            raise ToolFailure("temporarily unavailable")
        return calculator(expression)

    assert says(await Bench(tools={"calculator": flaky}).ask("What is 6 * 7?"), "42")


@pytest.mark.parametrize(
    ("status", "text", "calls"),
    [
        (CallStatus.FAILED, "backend exploded", 2),
        (CallStatus.TIMED_OUT, "no answer in 60 s", 2),
        (CallStatus.FAILED, "division by zero", 1),
        (CallStatus.REJECTED, "the approver said no", 1),
    ],
)
async def test_a_lasting_failure_is_reported(status: CallStatus, text: str, calls: int) -> None:
    def broken(expression: str) -> str:
        raise ToolFailure(text, status)

    bench = Bench(tools={"calculator": broken})

    answer = await bench.ask("Add 5 to 7, then multiply by 3.")

    assert "could not" in answer
    assert text in answer
    assert len(bench.calls) == calls


async def test_a_document_tool_without_sums_is_asked_for_the_values_instead() -> None:
    def plain(document: str, query: str) -> str:
        if "(" in query:
            raise ToolFailure("unknown function")
        return json_query(document, query)

    bench = Bench(tools={"json_query": plain})

    assert says(await bench.ask(f"What is the sum of the amounts? {ORDERS}"), "250")


async def test_a_note_is_recalled_in_another_thread_even_by_a_longer_name() -> None:
    first = Bench()
    await first.ask("Please remember that my badge is 4411.")

    answer = await Bench(notes=first.notes).ask("What is my badge number plus 9?")

    assert says(answer, "4420"), answer


async def test_a_note_that_is_not_there_is_not_made_up() -> None:
    answer = await Bench(notes={"badge": "4411"}).ask("What is my shoe size?")

    assert "no note about your shoe size" in answer


async def test_later_questions_refer_to_earlier_answers() -> None:
    bench = Bench()
    await bench.ask("What is 12 * 4?")
    await bench.ask("And times two?")

    assert says(await bench.ask("Now subtract 6."), "90")


async def test_a_question_without_a_place_is_about_the_place_spoken_of() -> None:
    bench = Bench()
    await bench.ask("What time is it in Tokyo?")

    assert says(await bench.ask("And in Paris?"), "13:30")


@pytest.mark.parametrize(
    ("steering", "expected"),
    [
        ("Use 20 instead of 5.", "81"),
        ("Never mind. What is 2 + 2?", "4"),
        ("Then subtract 6.", "30"),
    ],
)
async def test_what_is_said_meanwhile_steers_the_answer(steering: str, expected: str) -> None:
    bench = Bench()
    bench.say("Add 5 to 7, then multiply by 3.")
    await bench.turn()

    assert says(await bench.ask(steering), expected)


async def test_a_document_may_come_as_data_beside_the_text() -> None:
    assert says(await Bench().ask("How many orders are paid?", ORDERS), "2")


async def test_a_tool_of_the_users_own_is_chosen_by_its_description() -> None:
    weather = spec("w1", "Returns the current weather for a city.", "city")
    bench = Bench(specs=(*SPECS, weather), tools={"w1": lambda city: f"sunny in {city}"})

    assert "sunny in Paris" in await bench.ask("What's the weather in Paris?")


async def test_calls_whose_arguments_somebody_edited_are_not_made_again() -> None:
    bench = Bench()
    bench.say("What is 6 * 7?")
    edited = CallEntry("c1", "calculator", '{"expression": "6 * 8"}')
    bench.transcript.entries += [ModelEntry("", "", (edited,)), bench.run(edited)]

    reply = await bench.turn()

    assert reply.calls == ()
    assert says(reply.text, "48")


async def test_an_answer_takes_the_form_of_the_wanted_schema() -> None:
    bench = Bench()
    await bench.ask("What is 6 * 7?")
    schema = {"type": "object", "properties": {"answer": {"type": "number"}}, "required": ["answer"]}
    request = replace(bench.request(), output_schema_json=json.dumps(schema))
    bench.transcript.entries.pop()

    reply = await DemoModel().reply(request, lambda kind, text: None)

    assert json.loads(reply.text) == {"answer": 42}


@pytest.mark.parametrize("question", [case[0] for case in ALL[::6]])
async def test_the_same_conversation_gives_the_same_turns(question: str) -> None:
    first, second = Bench(), Bench()

    await first.ask(question)
    await second.ask(question)

    assert first.replies == second.replies


def keep(deltas: list[tuple[DeltaKind, str]], kind: DeltaKind, text: str) -> None:
    deltas.append((kind, text))


async def test_the_pieces_of_a_kind_joined_are_that_field_of_the_reply() -> None:
    bench = Bench()
    bench.say("What is 6 * 7, and what time is it in Tokyo?")
    for _ in range(2):
        deltas: list[tuple[DeltaKind, str]] = []
        request = replace(bench.request(), model="react?delay_ms=1")

        reply = await DemoModel().reply(request, partial(keep, deltas))

        thought = [text for kind, text in deltas if kind == DeltaKind.THOUGHT]
        assert "".join(thought) == reply.thought
        assert "".join(text for kind, text in deltas if kind == DeltaKind.TEXT) == reply.text
        assert len(thought) > 3
        await bench.turn()


async def test_every_turn_counts_its_tokens_and_costs_nothing() -> None:
    bench = Bench()

    await bench.ask("Add 5 to 7, then multiply by 3.")

    inputs = [reply.usage.input_tokens for reply in bench.replies if reply.usage]
    assert inputs == sorted(set(inputs))
    assert all(reply.usage and reply.usage.output_tokens > 0 for reply in bench.replies)
    assert all(reply.cost == Cost(0, "USD", True) for reply in bench.replies)


def test_names_and_options_it_does_not_know_are_refused() -> None:
    model = DemoModel()

    assert model.problem("react") is None
    assert model.problem("react?delay_ms=20") is None
    for name in ("", "think", "react?speed=9", "react?delay_ms=-1", "react?delay_ms=99999"):
        assert "delay_ms" in (model.problem(name) or "")


async def test_a_reply_for_an_unknown_name_is_a_model_error() -> None:
    with pytest.raises(ModelError):
        await DemoModel().reply(replace(Bench().request(), model="think"), lambda kind, text: None)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [ProblemEntry("the turn was not taken")],
        [ToolEntry("nobody", "calculator", CallStatus.SUCCEEDED, "7")],
        [UserEntry(Content("", "{broken"))],
        [UserEntry(Content("What is 2 + 2?")), ModelEntry("", "", (CallEntry("a", "calculator", "nope"),))],
        [UserEntry(Content("What is 2 + 2?")), ToolEntry("x", "y", CallStatus.UNKNOWN, "")],
        [UserEntry(Content("[" * 60_000))],
        [UserEntry(Content("1" * 60_000))],
        [UserEntry(Content("Tom has 3 apples. " * 3_000))],
    ],
)
async def test_a_conversation_out_of_order_or_bounds_is_answered_all_the_same(entries: list[Any]) -> None:
    bench = Bench(transcript=Transcript(entries))

    reply = await bench.turn()

    assert reply.text or reply.calls
