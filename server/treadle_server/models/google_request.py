"""Requests of the Gemini API, as plain dicts.

The client library's own message types cost 70 times as much, on the event loop that every thread shares.
"""

import json
from functools import lru_cache
from typing import Any

from treadle_server.core.kinds import CallStatus, Role
from treadle_server.core.spec import ToolSpec
from treadle_server.core.transcript import (
    ContextEntry,
    Entry,
    ModelEntry,
    ProblemEntry,
    RecalledEntry,
    ToolEntry,
    Transcript,
    UserEntry,
)
from treadle_server.models import google_names
from treadle_server.ports.model import ModelRequest

PROVIDER = "google"
NO_SIGNATURE = "skip_thought_signature_validator"
"""What Google documents for function calls whose signature nobody has, as of another model's turn."""

Fields = dict[str, Any]


def request_body(request: ModelRequest) -> Fields:
    """Body of `streamGenerateContent`."""
    body: Fields = {"contents": _contents(request.transcript, request.model)}
    instructions = _instructions(request)
    if instructions:
        body["systemInstruction"] = {"parts": [{"text": instructions}]}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in request.tools]}]
    generation = _generation(request)
    if generation:
        body["generationConfig"] = generation
    return body


def _asks_for_schema(request: ModelRequest) -> bool:
    if not request.output_schema_json:
        return False
    return not request.tools or google_names.takes_schema_with_tools(request.model)


def _instructions(request: ModelRequest) -> str:
    if not request.output_schema_json or _asks_for_schema(request):
        return request.instructions
    wish = (
        "Give the final answer as JSON only, without Markdown, that fits this JSON Schema: "
        + request.output_schema_json
    )
    return f"{request.instructions}\n\n{wish}" if request.instructions else wish


def _generation(request: ModelRequest) -> Fields:
    settings = request.settings
    fields: Fields = {
        "temperature": settings.temperature,
        "topP": settings.top_p,
        "maxOutputTokens": settings.max_output_tokens,
        "stopSequences": list(settings.stop_sequences) or None,
    }
    thinking: Fields = {"thinkingBudget": settings.thinking_tokens}
    if google_names.gives_thoughts(request.model, settings.thinking_tokens):
        thinking["includeThoughts"] = True
    fields["thinkingConfig"] = _given(thinking) or None
    if _asks_for_schema(request):
        fields["responseMimeType"] = "application/json"
        fields["responseJsonSchema"] = _schema(request.output_schema_json)
    return _given(fields)


def _given(fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}


@lru_cache(maxsize=1024)
def _schema(schema_json: str) -> Any:
    """Shared between requests: nothing below changes a body."""
    return json.loads(schema_json)


def _declaration(tool: ToolSpec) -> Fields:
    return {
        "name": tool.name,
        "description": tool.description,
        "parametersJsonSchema": _schema(tool.parameters_schema_json),
    }


def _contents(transcript: Transcript, model: str) -> list[Fields]:
    """One content an entry, but all tool results of a turn in one. Only new entries are encoded."""
    fragments = transcript.fragments.setdefault(f"{PROVIDER}:{model}", [])
    fragments.extend(_content(entry, model) for entry in transcript.entries[len(fragments) :])
    contents: list[Fields] = []
    after_tool = False
    for entry, content in zip(transcript.entries, fragments, strict=True):
        is_tool = isinstance(entry, ToolEntry)
        if is_tool and after_tool:
            contents[-1] = {"role": "user", "parts": contents[-1]["parts"] + content["parts"]}
        elif content["parts"]:
            contents.append(content)
        after_tool = is_tool
    return contents


def _content(entry: Entry, model: str) -> Fields:
    match entry:
        case ContextEntry(text):
            return {"role": "user", "parts": [{"text": text}]}
        case RecalledEntry(role, content):
            texts = (content.text, content.data_json)
            said_by = "model" if role is Role.AGENT else "user"
            return {"role": said_by, "parts": [{"text": text} for text in texts if text]}
        case UserEntry():
            texts = (entry.content.text, entry.content.data_json)
            return {"role": "user", "parts": [{"text": text} for text in texts if text]}
        case ModelEntry():
            return _as_it_came(entry, model) or _rebuilt(entry, model)
        case ToolEntry():
            return {"role": "user", "parts": [{"functionResponse": _function_response(entry)}]}
        case ProblemEntry():
            text = f"Your last turn could not be used: {entry.problem}"
            return {"role": "user", "parts": [{"text": text}]}


def _as_it_came(entry: ModelEntry, model: str) -> Fields | None:
    """Only this model can read its signatures, and each of its calls must have been run."""
    kept = entry.provider_content
    if kept is None or kept.provider != PROVIDER or kept.model != model:
        return None
    content: Fields = json.loads(kept.content_json)
    calls = sum("functionCall" in part for part in content["parts"])
    return content if calls == len(entry.calls) else None


def _rebuilt(entry: ModelEntry, model: str) -> Fields:
    parts: list[Fields] = [{"text": entry.text}] if entry.text else []
    for index, call in enumerate(entry.calls):
        function_call: Fields = {"name": call.name, "args": _arguments(call.arguments_json)}
        if call.provider_call_id:
            function_call["id"] = call.provider_call_id
        part: Fields = {"functionCall": function_call}
        if index == 0 and google_names.wants_signatures(model):
            part["thoughtSignature"] = NO_SIGNATURE
        parts.append(part)
    return {"role": "model", "parts": parts}


def _arguments(arguments_json: str) -> Fields:
    """Gemini takes an object only; what another model got wrong is shown as it was."""
    try:
        arguments = json.loads(arguments_json)
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {"invalid_arguments": arguments_json}


def _function_response(entry: ToolEntry) -> Fields:
    field = "output" if entry.status is CallStatus.SUCCEEDED else "error"
    response: Fields = {"name": entry.name, "response": {field: entry.observation}}
    if entry.provider_call_id:
        response["id"] = entry.provider_call_id
    return response
