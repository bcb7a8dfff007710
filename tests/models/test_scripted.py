"""The scripted model and the search for a provider."""

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle_server.core.errors import Reason, Refused
from treadle_server.core.kinds import CallStatus, DeltaKind
from treadle_server.core.spec import ModelSettings
from treadle_server.core.transcript import ModelEntry, ToolEntry, Transcript, UserEntry
from treadle_server.core.values import Content, Cost, ProposedCall, Usage
from treadle_server.models.providers import FACTORIES, Providers
from treadle_server.models.scripted import ScriptedModel
from treadle_server.ports.model import Model, ModelError, ModelReply, ModelRequest

DEADLINE_SECONDS = 10


def script(*turns: dict[str, Any], **more: Any) -> str:
    return json.dumps({"turns": list(turns), **more})


def asked(model: str, *entries: Any, attempt: int = 1) -> ModelRequest:
    return ModelRequest(model, "model-1", attempt, "", ModelSettings(), (), Transcript(list(entries)))


async def replied(request: ModelRequest) -> ModelReply:
    return await asyncio.wait_for(ScriptedModel().reply(request, lambda *_: None), DEADLINE_SECONDS)


async def refused(request: ModelRequest) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await replied(request)
    return caught.value


def turn_taken(text: str = "") -> ModelEntry:
    return ModelEntry(text, "", ())


def result(observation: str, key: str = "call-1") -> ToolEntry:
    return ToolEntry(key, "calculator", CallStatus.SUCCEEDED, observation)


async def test_a_turn_is_played_as_written() -> None:
    turn = {
        "thought": "Hm.",
        "text": "I look.",
        "calls": [
            {"name": "calculator", "arguments": {"z": 1, "expression": "6*7"}},
            {"name": "calculator", "raw_arguments": "{oops"},
            {"name": "finish"},
        ],
        "usage": {"input_tokens": 20, "cached_input_tokens": 4, "output_tokens": 7, "reasoning_tokens": 3},
        "cost_micros": 12,
    }

    reply = await replied(asked(script(turn)))

    assert reply == ModelReply(
        text="I look.",
        thought="Hm.",
        calls=(
            ProposedCall("calculator", '{"expression":"6*7","z":1}'),
            ProposedCall("calculator", "{oops"),
            ProposedCall("finish", "{}"),
        ),
        usage=Usage(20, 4, 7, 3, 30),
        cost=Cost(12, known=True),
    )


async def test_usage_and_cost_are_known_when_the_script_does_not_say() -> None:
    reply = await replied(asked(script({"text": "hi"})))

    assert (reply.usage, reply.cost) == (Usage(10, 0, 5, 0, 15), Cost(0, known=True))


async def test_the_turn_follows_from_the_transcript_alone() -> None:
    play = script({"text": "one"}, {"text": "two"})

    texts = [
        (await replied(asked(play, *entries))).text
        for entries in ([], [UserEntry(Content("x"))], [turn_taken("one"), UserEntry(Content("y"))], [])
    ]

    assert texts == ["one", "one", "two", "one"]


async def test_past_the_last_turn_it_fails_for_good() -> None:
    error = await refused(asked(script({"text": "one"}), turn_taken()))

    assert not error.retryable
    assert error.message == "the script has 1 turns, turn 2 was asked for"


async def test_turns_can_be_repeated() -> None:
    play = script({"text": "one"}, {"text": "two"}, repeat=2)

    third = await replied(asked(play, turn_taken(), turn_taken()))
    fifth = await refused(asked(play, *[turn_taken()] * 4))

    assert third.text == "one"
    assert "has 4 turns" in fifth.message


@pytest.mark.parametrize("wrap", [lambda play: play, lambda play: {"script": play, "question": "?"}])
async def test_an_empty_model_string_takes_the_script_of_the_first_input(wrap: Any) -> None:
    data = json.dumps(wrap({"turns": [{"text": "from the input"}]}))

    reply = await replied(asked("", UserEntry(Content("go", data)), UserEntry(Content("", "[]"))))

    assert reply.text == "from the input"


@pytest.mark.parametrize("entries", [[], [UserEntry(Content("go"))], [UserEntry(Content("", "[1]"))]])
async def test_without_a_script_it_fails_for_good(entries: list[UserEntry]) -> None:
    error = await refused(asked("", *entries))

    assert (error.code, error.retryable) == (3, False)


async def test_results_of_the_last_turn_can_be_quoted() -> None:
    turn = {
        "text": "{observation}, {observations[0]}, {observations[1]}, {observations[2]}",
        "thought": "{observations[0]}!",
        "calls": [{"name": "remember", "arguments": {"text": "saw {observation}"}}],
    }
    before = [turn_taken(), result("old"), turn_taken(), result("1"), result('say "2"\n', "call-2")]

    reply = await replied(asked(script({"text": "a"}, {"text": "b"}, turn), *before))

    assert reply.text == 'say "2"\n, 1, say "2"\n, {observations[2]}'
    assert reply.thought == "1!"
    assert json.loads(reply.calls[0].arguments_json) == {"text": 'saw say "2"\n'}


async def test_a_quote_without_results_stays_as_written() -> None:
    assert (await replied(asked(script({"text": "{observation}"})))).text == "{observation}"


async def test_pieces_are_streamed_in_order_thought_first() -> None:
    deltas: list[tuple[DeltaKind, str]] = []
    turn = {"text": "abcde", "thought": "xy", "pieces": 3}

    await ScriptedModel().reply(asked(script(turn)), lambda kind, piece: deltas.append((kind, piece)))

    assert deltas == [
        (DeltaKind.THOUGHT, "x"),
        (DeltaKind.THOUGHT, "y"),
        (DeltaKind.TEXT, "a"),
        (DeltaKind.TEXT, "bc"),
        (DeltaKind.TEXT, "de"),
    ]


@given(text=st.text(), thought=st.text(), pieces=st.integers(1, 50))
def test_deltas_joined_are_the_reply(text: str, thought: str, pieces: int) -> None:
    deltas: dict[DeltaKind, str] = {DeltaKind.TEXT: "", DeltaKind.THOUGHT: ""}

    def take(kind: DeltaKind, piece: str) -> None:
        assert piece
        deltas[kind] += piece

    turn = {"text": text, "thought": thought, "pieces": pieces, "empty": False}
    reply = asyncio.run(ScriptedModel().reply(asked(script(turn)), take))

    assert (reply.text, reply.thought) == (text, thought)
    assert (deltas[DeltaKind.TEXT], deltas[DeltaKind.THOUGHT]) == (text, thought)


@pytest.mark.parametrize("turn", [{"text": "abcd", "pieces": 4}, {"calls": [{"name": "finish"}]}])
async def test_a_delay_is_spent_before_the_reply(turn: dict[str, Any]) -> None:
    begin = time.monotonic()

    await replied(asked(script({**turn, "delay_ms": 40})))

    assert 0.035 < time.monotonic() - begin < 5


async def test_a_hanging_turn_streams_and_never_answers_until_it_is_cancelled() -> None:
    streamed = asyncio.Event()
    request = asked(script({"text": "almost", "hang": True}))
    task = asyncio.create_task(ScriptedModel().reply(request, lambda *_: streamed.set()))
    await asyncio.wait_for(streamed.wait(), DEADLINE_SECONDS)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("code", "number"), [("UNAVAILABLE", 14), (8, 8)])
async def test_the_first_attempts_can_fail(code: str | int, number: int) -> None:
    failure = {"code": code, "message": "busy", "retryable": True, "attempts": 2, "retry_after_ms": 1500}
    play = script({"error": failure, "text": "at last"})

    error = await refused(asked(play, attempt=2))
    reply = await replied(asked(play, attempt=3))

    assert (error.code, error.message, error.retryable) == (number, "busy", True)
    assert error.retry_after_micros == 1_500_000
    assert reply.text == "at last"


async def test_an_error_without_attempts_fails_always() -> None:
    error = await refused(asked(script({"error": {}}), attempt=99))

    assert (error.code, error.retryable, error.retry_after_micros) == (2, False, None)


async def test_refusal_truncation_and_emptiness_can_be_played() -> None:
    play = script({"refusal": "not that"}, {"text": "Once", "truncated": True}, {"empty": True})

    replies = [await replied(asked(play, *[turn_taken()] * played)) for played in range(3)]

    assert [reply.refusal for reply in replies] == ["not that", "", ""]
    assert [reply.truncated for reply in replies] == [False, True, False]
    assert (replies[2].text, replies[2].calls) == ("", ())


@pytest.mark.parametrize(
    ("play", "problem"),
    [
        ("{", "the script is not valid JSON: "),
        ("[]", "script: must be an object"),
        ('{"turns":[{"text":"\\ud800"}]}', "the script is not valid JSON: "),
        ('{"turns":[{"cost_micros":NaN}]}', "the script is not valid JSON: "),
        ("[" * 2000, "the script is not valid JSON: "),
        ("{}", "turns: must have at least one turn"),
        ('{"turns":{}}', "turns: must be a list"),
        ('{"turns":[{"text":"a"},3]}', "turns[1]: must be an object"),
        ('{"turns":[{}]}', "turns[0]: needs text, calls, refusal, truncated, hang or empty"),
        ('{"turns":[{"thought":"a"}]}', "turns[0]: needs text, calls, refusal, truncated, hang or empty"),
        ('{"turns":[{"error":{"attempts":1}}]}', "turns[0]: needs text, calls"),
        ('{"turns":[{"text":"a","empty":true}]}', "turns[0].empty: excludes an answer"),
        ('{"turns":[{"text":1}]}', "turns[0].text: must be a string"),
        ('{"turns":[{"text":null}]}', "turns[0].text: must be a string"),
        ('{"turns":[{"text":"a","txt":"b"}]}', "turns[0].txt: is not known here"),
        ('{"turns":[{"calls":[{"name":"a"},{}]}]}', "turns[0].calls[1].name: is required"),
        ('{"turns":[{"calls":[{"name":"a","arguments":[]}]}]}', "turns[0].calls[0].arguments: must be an"),
        (
            '{"turns":[{"calls":[{"name":"a","arguments":{},"raw_arguments":""}]}]}',
            "turns[0].calls[0].raw_arguments: excludes arguments",
        ),
        ('{"turns":[{"text":"a","pieces":0}]}', "turns[0].pieces: must be at least 1"),
        ('{"turns":[{"text":"a","delay_ms":-1}]}', "turns[0].delay_ms: must be at least 0"),
        ('{"turns":[{"text":"a","cost_micros":true}]}', "turns[0].cost_micros: must be a whole number"),
        ('{"turns":[{"text":"a","usage":{"tokens":1}}]}', "turns[0].usage.tokens: is not known here"),
        ('{"turns":[{"error":{"code":"NOPE"}}]}', "turns[0].error.code: must be the name or number"),
        ('{"turns":[{"error":{"code":0}}]}', "turns[0].error.code: must be the name or number"),
        ('{"turns":[{"text":"a"}],"repeat":0}', "repeat: must be at least 1"),
        ('{"turns":[{"text":"a"}],"loop":1}', "loop: is not known here"),
        (json.dumps({"turns": [{"text": "a" * 2_000_000}]}), "the script is larger than"),
    ],
)
def test_a_faulty_script_is_a_problem_that_names_the_place(play: str, problem: str) -> None:
    assert (ScriptedModel().problem(play) or "").startswith(problem)


@pytest.mark.parametrize("play", ["", '{"turns":[{"text":"a"}]}', '{"script":{"turns":[{"empty":true}]}}'])
def test_a_sound_script_is_no_problem(play: str) -> None:
    assert ScriptedModel().problem(play) is None


async def test_integers_of_any_size_are_kept() -> None:
    call = {"name": "a", "arguments": {"n": 9007199254740993, "m": 10**30}}

    reply = await replied(asked(script({"calls": [call]})))

    assert json.loads(reply.calls[0].arguments_json) == call["arguments"]


class Counted:
    """An adapter that counts how often it was closed."""

    closed = 0

    def problem(self, model: str) -> str | None:
        return None

    async def reply(self, request: ModelRequest, on_delta: Any) -> ModelReply:
        return ModelReply()

    async def close(self) -> None:
        self.closed += 1


async def test_a_provider_is_made_once_when_it_is_asked_for_and_closed() -> None:
    made: list[Counted] = []

    def make() -> Model:
        made.append(Counted())
        return made[-1]

    providers = Providers({"counted": make, "other": make})
    assert made == []

    first = providers.find("counted:a:b/c")
    second = providers.find("counted/a")
    await providers.close()
    await providers.close()

    assert first == (made[0], "a:b/c")
    assert second == (made[0], "a")
    assert [adapter.closed for adapter in made] == [1]


@pytest.mark.parametrize("provider", FACTORIES)
async def test_every_provider_can_be_made(provider: str) -> None:
    providers = Providers()

    adapter, name = providers.find(f"{provider}:")
    await providers.close()

    assert name == ""
    assert callable(adapter.reply)


@pytest.mark.parametrize("model", ["", "gemini-2.5-flash", "nobody:x", ":x", "Google:x"])
def test_an_unknown_provider_is_refused_with_those_that_there_are(model: str) -> None:
    with pytest.raises(Refused) as caught:
        Providers().find(model)

    assert caught.value.reason is Reason.FIELD_INVALID
    (violation,) = caught.value.violations
    assert violation.field == "agent.model"
    assert "known providers are demo, google, scripted" in violation.description


@pytest.mark.parametrize("model", ["openai:gpt-5", "anthropic/claude"])
def test_a_provider_to_come_is_refused_as_not_supported(model: str) -> None:
    with pytest.raises(Refused) as caught:
        Providers().find(model)

    assert caught.value.reason is Reason.NOT_SUPPORTED
    assert caught.value.metadata == {"field": "agent.model"}
