"""The Google adapter against a server that speaks its API."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.gemini import (
    Failure,
    FakeGemini,
    Reset,
    Silence,
    Stream,
    chunk,
    function_call,
    text,
    thought,
)
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
from treadle_server.core.values import Content, ProposedCall, ProviderContent, Usage
from treadle_server.models.google import GoogleModel
from treadle_server.ports.model import ModelError, ModelReply, ModelRequest

KEY = "AIza-not-a-real-key"
FLASH = "gemini-2.5-flash"
DEADLINE_SECONDS = 10
SCHEMA = '{"type":"object","properties":{"expression":{"type":"string"}},"additionalProperties":false}'
CALCULATOR = ToolSpec("calculator", "builtin/calculator", "Computes.", SCHEMA)
ANSWER = Stream([chunk(text("ok"), finish="STOP")])


@pytest_asyncio.fixture
async def gemini() -> AsyncIterator[FakeGemini]:
    async with FakeGemini() as fake:
        yield fake


@pytest_asyncio.fixture
async def model(gemini: FakeGemini) -> AsyncIterator[GoogleModel]:
    adapter = GoogleModel({"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": gemini.base_url})
    yield adapter
    await adapter.close()


def asked(*entries: Any, model: str = FLASH, **more: Any) -> ModelRequest:
    fields: dict[str, Any] = {
        "call_id": "model-1",
        "attempt": 1,
        "instructions": "",
        "settings": ModelSettings(),
        "tools": (),
        **more,
    }
    return ModelRequest(model=model, transcript=Transcript(list(entries)), **fields)


def said(words: str) -> UserEntry:
    return UserEntry(Content(words))


async def replied(model: GoogleModel, request: ModelRequest) -> ModelReply:
    return await asyncio.wait_for(model.reply(request, lambda kind, piece: None), DEADLINE_SECONDS)


async def refused(model: GoogleModel, request: ModelRequest) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await replied(model, request)
    return caught.value


async def test_a_streamed_answer_comes_piece_by_piece_and_then_whole(
    gemini: FakeGemini, model: GoogleModel
) -> None:
    gemini.will(Stream([chunk(text("Grüß ")), chunk(text("Gott \N{GRINNING FACE}"), finish="STOP")]))
    deltas: list[tuple[DeltaKind, str]] = []

    reply = await model.reply(asked(said("hi")), lambda kind, piece: deltas.append((kind, piece)))

    assert deltas == [(DeltaKind.TEXT, "Grüß "), (DeltaKind.TEXT, "Gott \N{GRINNING FACE}")]
    assert reply.text == "Grüß Gott \N{GRINNING FACE}"
    assert (reply.calls, reply.refusal, reply.truncated, reply.cost) == ((), "", False, None)


async def test_the_request_names_model_key_and_settings(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(ANSWER)
    settings = ModelSettings(0.25, 0.5, 100, 64, ("END",))

    await replied(model, asked(said("hi"), instructions="Be brief.", settings=settings))

    received = gemini.requests[0]
    assert received.path == f"/v1/models/{FLASH}:streamGenerateContent?alt=sse"
    assert received.headers["x-goog-api-key"] == KEY
    assert received.body == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {
            "temperature": 0.25,
            "topP": 0.5,
            "maxOutputTokens": 100,
            "stopSequences": ["END"],
            "thinkingConfig": {"thinkingBudget": 64, "includeThoughts": True},
        },
    }


@pytest.mark.parametrize(
    ("name", "thinking_tokens", "includes"),
    [
        ("gemini-2.5-pro", None, True),
        ("gemini-4-argon", None, True),
        ("gemini-flash-latest", None, True),
        ("gemini-2.5-flash-lite", None, False),
        ("gemini-2.5-flash-lite", 100, True),
        ("gemini-2.5-flash", 0, False),
        ("gemini-2.5-flash-image", None, False),
        ("gemini-2.0-flash", None, False),
        ("gemma-3-27b-it", None, False),
    ],
)
async def test_thoughts_are_asked_only_of_models_that_think(
    gemini: FakeGemini, model: GoogleModel, name: str, thinking_tokens: int | None, includes: bool
) -> None:
    gemini.will(ANSWER)

    await replied(
        model, asked(said("hi"), model=name, settings=ModelSettings(thinking_tokens=thinking_tokens))
    )

    thinking = gemini.requests[0].body.get("generationConfig", {}).get("thinkingConfig", {})
    assert thinking.get("includeThoughts", False) is includes
    assert thinking.get("thinkingBudget") == thinking_tokens


async def test_tools_are_sent_as_function_declarations_with_their_schema(
    gemini: FakeGemini, model: GoogleModel
) -> None:
    gemini.will(ANSWER)

    await replied(model, asked(said("hi"), tools=(CALCULATOR,)))

    declaration = {
        "name": "calculator",
        "description": "Computes.",
        "parametersJsonSchema": json.loads(SCHEMA),
    }
    assert gemini.requests[0].body["tools"] == [{"functionDeclarations": [declaration]}]


async def test_an_output_schema_asks_for_json(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(ANSWER)

    await replied(model, asked(said("hi"), output_schema_json=SCHEMA))

    generation = gemini.requests[0].body["generationConfig"]
    assert generation["responseMimeType"] == "application/json"
    assert generation["responseJsonSchema"] == json.loads(SCHEMA)


async def test_an_output_schema_beside_tools_is_an_instruction_where_the_model_takes_only_one(
    gemini: FakeGemini, model: GoogleModel
) -> None:
    gemini.will(ANSWER, ANSWER)
    wish: dict[str, Any] = {"tools": (CALCULATOR,), "output_schema_json": SCHEMA, "instructions": "Be brief."}

    await replied(model, asked(said("hi"), **wish))
    await replied(model, asked(said("hi"), model="gemini-3-pro", **wish))

    older, newer = (received.body for received in gemini.requests)
    assert "responseMimeType" not in older["generationConfig"]
    assert SCHEMA in older["systemInstruction"]["parts"][0]["text"]
    assert newer["generationConfig"]["responseMimeType"] == "application/json"
    assert newer["systemInstruction"]["parts"] == [{"text": "Be brief."}]


async def test_thoughts_and_signatures_go_back_word_for_word(gemini: FakeGemini, model: GoogleModel) -> None:
    signed = function_call("calculator", {"expression": "6*7"}, call_id="f1", thoughtSignature="c2lnbmVk")
    gemini.will(
        Stream([chunk(thought("I need ")), chunk(thought("a sum.")), chunk(signed, finish="STOP")]), ANSWER
    )
    deltas: list[tuple[DeltaKind, str]] = []
    first = await model.reply(asked(said("6*7?")), lambda kind, piece: deltas.append((kind, piece)))
    assert first.provider_content is not None
    call = CallEntry("call-1", "calculator", first.calls[0].arguments_json, first.calls[0].provider_call_id)
    turn = ModelEntry(first.text, first.thought, (call,), first.provider_content)
    result = ToolEntry("call-1", "calculator", CallStatus.SUCCEEDED, "42", "f1")

    await replied(model, asked(said("6*7?"), turn, result))

    assert (first.thought, first.text) == ("I need a sum.", "")
    assert deltas == [(DeltaKind.THOUGHT, "I need "), (DeltaKind.THOUGHT, "a sum.")]
    assert first.calls == (ProposedCall("calculator", '{"expression":"6*7"}', provider_call_id="f1"),)
    assert (first.provider_content.provider, first.provider_content.model) == ("google", FLASH)
    assert gemini.requests[1].body["contents"][1:] == [
        {"role": "model", "parts": [thought("I need a sum."), signed]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "calculator", "response": {"output": "42"}, "id": "f1"}}],
        },
    ]


async def test_a_signature_on_an_empty_last_part_is_kept(gemini: FakeGemini, model: GoogleModel) -> None:
    last = text("", thoughtSignature="c2ln")
    gemini.will(Stream([chunk(text("a")), chunk(text("b")), chunk(last, finish="STOP")]))

    reply = await replied(model, asked(said("hi")))

    assert reply.provider_content is not None
    assert json.loads(reply.provider_content.content_json) == {"role": "model", "parts": [text("ab"), last]}


async def test_parallel_calls_are_proposed_in_order_and_answered_in_one_turn(
    gemini: FakeGemini, model: GoogleModel
) -> None:
    calls = [function_call("calculator", {"expression": "1+1"}), function_call("finish", {"answer": "2"})]
    gemini.will(Stream([chunk(*calls, finish="STOP")]), ANSWER)
    first = await replied(model, asked(said("go")))
    turn = ModelEntry(
        "",
        "",
        tuple(CallEntry(f"call-{i}", call.name, call.arguments_json) for i, call in enumerate(first.calls)),
        first.provider_content,
    )
    results = [
        ToolEntry("call-0", "calculator", CallStatus.SUCCEEDED, "2"),
        ToolEntry("call-1", "finish", CallStatus.FAILED, "not now"),
    ]

    await replied(model, asked(said("go"), turn, *results, said("hurry")))

    assert [call.name for call in first.calls] == ["calculator", "finish"]
    assert gemini.requests[1].body["contents"][1:] == [
        {"role": "model", "parts": calls},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "calculator", "response": {"output": "2"}}},
                {"functionResponse": {"name": "finish", "response": {"error": "not now"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "hurry"}]},
    ]


OTHERS = ProviderContent(
    "google",
    "gemini-2.5-pro",
    json.dumps(
        {"role": "model", "parts": [function_call("calculator", {}, thoughtSignature="b3RoZXI=")] * 2}
    ),
)


@pytest.mark.parametrize(("name", "signature"), [(FLASH, False), ("gemini-3-flash", True)])
async def test_another_models_turn_is_rebuilt_without_its_signatures(
    gemini: FakeGemini, model: GoogleModel, name: str, signature: bool
) -> None:
    gemini.will(ANSWER)
    calls = (CallEntry("a", "calculator", '{"expression":"1"}'), CallEntry("b", "calculator", "not json"))
    results = [ToolEntry(key, "calculator", CallStatus.SUCCEEDED, "1") for key in "ab"]

    await replied(
        model, asked(said("hi"), ModelEntry("Let me see.", "hm", calls, OTHERS), *results, model=name)
    )

    first = function_call("calculator", {"expression": "1"})
    if signature:
        first["thoughtSignature"] = "skip_thought_signature_validator"
    second = function_call("calculator", {"invalid_arguments": "not json"})
    assert gemini.requests[0].body["contents"][1] == {
        "role": "model",
        "parts": [text("Let me see."), first, second],
    }


async def test_calls_that_were_never_run_are_not_sent_back(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(ANSWER)
    parts = [text("Wait."), function_call("calculator", {})]
    kept = ProviderContent("google", FLASH, json.dumps({"role": "model", "parts": parts}))

    await replied(
        model, asked(said("hi"), ModelEntry("Wait.", "", (), kept), ProblemEntry("too many tool calls"))
    )

    assert gemini.requests[0].body["contents"][1:] == [
        {"role": "model", "parts": [text("Wait.")]},
        {"role": "user", "parts": [text("Your last turn could not be used: too many tool calls")]},
    ]


async def test_an_empty_turn_is_left_out(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(ANSWER)

    await replied(model, asked(said("hi"), ModelEntry("", "", ()), ProblemEntry("the turn was empty")))

    assert [content["role"] for content in gemini.requests[0].body["contents"]] == ["user", "user"]


async def test_only_new_entries_are_encoded(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(ANSWER, ANSWER)
    request = asked(said("hi"), ModelEntry("hello", "", ()))
    await replied(model, request)
    (key,) = request.transcript.fragments
    before = list(request.transcript.fragments[key])
    request.transcript.entries.append(said("more"))

    await replied(model, request)

    after = request.transcript.fragments[key]
    assert len(after) == 3
    assert all(old is new for old, new in zip(before, after, strict=False))
    assert gemini.requests[1].body["contents"][2] == {"role": "user", "parts": [{"text": "more"}]}


async def test_json_of_the_input_is_sent_beside_its_text(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(ANSWER)

    await replied(model, asked(UserEntry(Content("Sum it.", '{"a":1}'))))

    assert gemini.requests[0].body["contents"][0]["parts"] == [text("Sum it."), text('{"a":1}')]


async def test_usage_is_that_of_the_last_chunk(gemini: FakeGemini, model: GoogleModel) -> None:
    early = {"promptTokenCount": 7, "totalTokenCount": 7}
    final = {
        "promptTokenCount": 7,
        "cachedContentTokenCount": 2,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 15,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}],
    }
    gemini.will(Stream([chunk(text("a"), usage=early), chunk(text("b"), finish="STOP", usage=final)]))

    reply = await replied(model, asked(said("hi")))

    assert reply.usage == Usage(7, 2, 3, 5, 15)


async def test_thoughts_are_in_the_total_that_gemini_does_not_give(
    gemini: FakeGemini, model: GoogleModel
) -> None:
    counts = {"promptTokenCount": 7, "candidatesTokenCount": 3, "thoughtsTokenCount": 5}
    gemini.will(Stream([chunk(text("a"), finish="STOP", usage=counts)]))

    reply = await replied(model, asked(said("hi")))

    assert reply.usage == Usage(7, 0, 3, 5, 15)


async def test_usage_is_unknown_when_it_was_not_said(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(ANSWER)

    assert (await replied(model, asked(said("hi")))).usage is None


async def test_an_answer_cut_off_by_the_limit_is_truncated(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(Stream([chunk(text("Once upon"), finish="MAX_TOKENS")]))

    reply = await replied(model, asked(said("hi")))

    assert (reply.text, reply.truncated) == ("Once upon", True)


async def test_a_blocked_prompt_is_a_refusal(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(Stream([{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}]))

    reply = await replied(model, asked(said("hi")))

    assert "PROHIBITED_CONTENT" in reply.refusal


async def test_an_answer_stopped_for_safety_is_a_refusal(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(Stream([chunk(text("Well")), chunk(finish="SAFETY")]))

    reply = await replied(model, asked(said("hi")))

    assert (reply.text, "SAFETY" in reply.refusal) == ("Well", True)


@pytest.mark.parametrize(
    ("answer", "code", "retryable", "retry_after_micros"),
    [
        (Failure(400), 3, False, None),
        (Failure(401), 16, False, None),
        (Failure(403), 7, False, None),
        (Failure(404), 5, False, None),
        (Failure(429), 8, True, None),
        (Failure(429, headers=[("Retry-After", "7")]), 8, True, 7_000_000),
        (
            Failure(
                429,
                details=[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12.25s"}],
                headers=[("Retry-After", "7")],
            ),
            8,
            True,
            12_250_000,
        ),
        (Failure(500), 13, True, None),
        (Failure(503), 14, True, None),
        (Failure(504), 4, True, None),
        (Reset(), 14, True, None),
        (Stream([chunk(text("a"))], ending="RESET"), 14, True, None),
        (Stream([chunk(text("a"))]), 14, True, None),
        (Stream([chunk(text("a")), '{"candidates": [{"content"']), 14, True, None),
        (Stream(['"what"']), 14, True, None),
        (
            Stream([{"candidates": [{"content": {"parts": [{"functionCall": {"args": {}}}]}}]}]),
            14,
            True,
            None,
        ),
        (Stream([chunk(text("a")), {"error": {"code": 503, "message": "overloaded"}}]), 14, True, None),
        (Stream([chunk(text("a")), {"error": {"message": "?"}}]), 2, False, None),
        (Stream([chunk(finish="MALFORMED_FUNCTION_CALL")]), 13, True, None),
        (Stream([chunk(finish="SOMETHING_NEW")]), 13, True, None),
        (Stream([chunk(finish="MISSING_THOUGHT_SIGNATURE")]), 13, False, None),
    ],
)
async def test_what_goes_wrong_is_an_error_that_says_whether_to_try_again(
    gemini: FakeGemini,
    model: GoogleModel,
    answer: Failure | Reset | Stream,
    code: int,
    retryable: bool,
    retry_after_micros: int | None,
) -> None:
    gemini.will(answer)

    error = await refused(model, asked(said("hi")))

    assert (error.code, error.retryable, error.retry_after_micros) == (code, retryable, retry_after_micros)
    assert len(gemini.requests) == 1, "the adapter repeated the request by itself"


async def test_an_unreadable_chunk_closes_the_connection(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(Stream([chunk(text("a")), "{broken"], ending="STALL"))

    error = await refused(model, asked(said("hi")))

    await asyncio.wait_for(gemini.requests[0].hung_up.wait(), DEADLINE_SECONDS)
    assert error.retryable  # The error is kept until here: it must not be what keeps the connection open.


async def test_the_key_is_in_no_error(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(Failure(403, f"Consumer 'api_key:{KEY}' has been suspended."))

    error = await refused(model, asked(said("hi")))

    assert "suspended" in error.message
    assert KEY not in f"{error.message}{error!r}{error.args}"


async def test_silence_ends_at_the_time_limit(gemini: FakeGemini) -> None:
    gemini.will(Stream([chunk(text("a"))], ending="STALL"))
    environ = {"GOOGLE_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": gemini.base_url}
    model = GoogleModel(environ, silence_timeout_seconds=0.05)

    error = await refused(model, asked(said("hi")))
    await model.close()

    assert (error.code, error.retryable) == (4, True)


async def test_a_server_that_is_not_there_may_be_tried_again(
    gemini: FakeGemini, unused_tcp_port: int
) -> None:
    base_url = f"http://127.0.0.1:{unused_tcp_port}"
    model = GoogleModel({"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": base_url})

    error = await refused(model, asked(said("hi")))
    await model.close()

    assert (error.code, error.retryable) == (14, True)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"GEMINI_API_KEY": "  "},
        {"GEMINI_API_KEY": "schlüssel"},
        {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": "127.0.0.1:1"},
        {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": "http://[oops"},
    ],
)
async def test_wrong_settings_are_named_and_not_tried_again(environ: dict[str, str]) -> None:
    model = GoogleModel(environ)

    error = await refused(model, asked(said("hi")))
    await model.close()

    assert (error.code, error.retryable) == (9, False)
    assert "GEMINI_API_KEY" in error.message or "GOOGLE_GEMINI_BASE_URL" in error.message
    assert KEY not in error.message


async def test_a_key_that_is_set_later_is_found(gemini: FakeGemini) -> None:
    gemini.will(ANSWER)
    environ = {"GOOGLE_GEMINI_BASE_URL": gemini.base_url}
    model = GoogleModel(environ)
    await refused(model, asked(said("hi")))
    environ["GOOGLE_API_KEY"] = KEY

    reply = await replied(model, asked(said("hi")))
    await model.close()

    assert reply.text == "ok"


@pytest.mark.parametrize("answer", [Silence(), Stream([chunk(text("a"))], ending="STALL")])
async def test_cancelling_closes_the_connection(
    gemini: FakeGemini, model: GoogleModel, answer: Silence | Stream
) -> None:
    gemini.will(answer)
    started = asyncio.Event()
    task = asyncio.create_task(model.reply(asked(said("hi")), lambda kind, piece: started.set()))
    received = await asyncio.wait_for(gemini.received(1), DEADLINE_SECONDS)
    if isinstance(answer, Stream):
        await asyncio.wait_for(started.wait(), DEADLINE_SECONDS)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(received.hung_up.wait(), DEADLINE_SECONDS)


async def test_calls_share_connections(gemini: FakeGemini, model: GoogleModel) -> None:
    gemini.will(ANSWER, Failure(429), ANSWER)

    await replied(model, asked(said("1")))
    await refused(model, asked(said("2")))
    await replied(model, asked(said("3")))

    assert gemini.connections == 1


async def test_an_answer_that_drips_byte_by_byte_is_the_same(gemini: FakeGemini, model: GoogleModel) -> None:
    chunks = [chunk(text("Zeile\u2028eins ")), chunk(text("\N{GRINNING FACE}"), finish="STOP")]
    gemini.will(Stream(chunks, bytes_at_once=1))

    reply = await replied(model, asked(said("hi")))

    assert reply.text == "Zeile\u2028eins \N{GRINNING FACE}"


async def test_what_utf8_and_json_cannot_hold_is_kept_out(gemini: FakeGemini, model: GoogleModel) -> None:
    parts = '{"text":"a\\ud800b"},{"functionCall":{"name":"f","args":{"x":NaN}}}'
    gemini.will(Stream([f'{{"candidates":[{{"content":{{"parts":[{parts}]}},"finishReason":"STOP"}}]}}']))

    reply = await replied(model, asked(said("hi")))

    assert reply.text == "a\N{REPLACEMENT CHARACTER}b"
    assert (reply.calls[0].arguments_json, bool(reply.calls[0].problem)) == ("{}", True)
    assert reply.provider_content is None


@pytest.mark.parametrize("name", [FLASH, "models/gemini-3-pro-preview", "tunedModels/abc-1"])
def test_a_model_name_can_be_given(name: str) -> None:
    assert GoogleModel({}).problem(name) is None


@pytest.mark.parametrize("name", ["", "a b", "../x", "models/a/b", "x?alt=sse", "x:y", "x" * 200])
def test_what_is_no_model_name_is_a_problem(name: str) -> None:
    assert "google:gemini-2.5-flash" in (GoogleModel({}).problem(name) or "")
