"""Answers of the Gemini API, gathered from the chunks of a stream."""

import json
from typing import Any

from treadle_server.core.json_text import canonical_json
from treadle_server.core.kinds import DeltaKind
from treadle_server.core.text import clean
from treadle_server.core.values import ProposedCall, ProviderContent, Usage
from treadle_server.models.google_request import PROVIDER, Fields
from treadle_server.ports.model import ModelError, ModelReply, OnDelta

_CODE_INTERNAL = 13
_CODE_UNAVAILABLE = 14

_DONE = frozenset({"STOP"})
_CUT_OFF = frozenset({"MAX_TOKENS", "CONTINUATION"})
_REFUSED = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "ESCALATION",
        "MODEL_ARMOR",
        "PUP_LIMITED_DISABLED",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    }
)
_NEVER_BETTER = frozenset({"MISSING_THOUGHT_SIGNATURE", "NO_IMAGE", "IMAGE_OTHER"})


class ReplyReader:
    """Takes the chunks of one answer, passes its deltas on at once and makes the reply at the end."""

    def __init__(self, model: str, on_delta: OnDelta) -> None:
        self._model = model
        self._on_delta = on_delta
        self._parts: list[Fields] = []
        self._texts: dict[DeltaKind, list[str]] = {DeltaKind.TEXT: [], DeltaKind.THOUGHT: []}
        self._calls: list[ProposedCall] = []
        self._usage: Usage | None = None
        self._finish_reason = ""
        self._finish_message = ""
        self._block_reason = ""

    def add(self, chunk: Fields) -> None:
        """Raises TypeError, KeyError, ValueError or AttributeError for a chunk that is not as documented."""
        if "usageMetadata" in chunk:
            self._usage = _usage(chunk["usageMetadata"])
        feedback = chunk.get("promptFeedback") or {}
        self._block_reason = feedback.get("blockReason") or self._block_reason
        for candidate in (chunk.get("candidates") or [])[:1]:
            content = candidate.get("content") or {}
            for part in content.get("parts") or []:
                self._add_part(part)
            self._finish_reason = candidate.get("finishReason") or self._finish_reason
            self._finish_message = candidate.get("finishMessage") or self._finish_message

    def _add_part(self, part: Fields) -> None:
        text = part.get("text")
        if text:
            kind = DeltaKind.THOUGHT if part.get("thought") else DeltaKind.TEXT
            text = clean(text)
            self._texts[kind].append(text)
            self._on_delta(kind, text)
        if "functionCall" in part:
            self._calls.append(_call(part["functionCall"]))
        last = self._parts[-1] if self._parts else {}
        if _is_bare_text(part) and _is_bare_text(last) and part.get("thought") == last.get("thought"):
            last["text"] += part["text"]
        else:
            self._parts.append(part)

    def reply(self) -> ModelReply:
        """The whole answer. Raises ModelError when there is none."""
        refusal = self._refusal()
        if not refusal and self._finish_reason not in _DONE | _CUT_OFF:
            raise self._failure()
        return ModelReply(
            text="".join(self._texts[DeltaKind.TEXT]),
            thought="".join(self._texts[DeltaKind.THOUGHT]),
            calls=tuple(self._calls),
            usage=self._usage,
            provider_content=self._provider_content(),
            refusal=refusal,
            truncated=self._finish_reason in _CUT_OFF,
        )

    def _refusal(self) -> str:
        if self._block_reason:
            return f"Gemini blocked the prompt: {self._block_reason}"
        if self._finish_reason in _REFUSED:
            return f"Gemini stopped the answer: {self._explained()}"
        return ""

    def _failure(self) -> ModelError:
        if not self._finish_reason:
            return ModelError(_CODE_UNAVAILABLE, "Gemini's answer broke off", retryable=True)
        retryable = self._finish_reason not in _NEVER_BETTER
        return ModelError(
            _CODE_INTERNAL, f"Gemini gave no usable answer: {self._explained()}", retryable=retryable
        )

    def _explained(self) -> str:
        return clean(": ".join(filter(None, (self._finish_reason, self._finish_message))))

    def _provider_content(self) -> ProviderContent | None:
        """Word for word, but for plain text that came in pieces: signatures belong to their parts."""
        content = {"role": "model", "parts": self._parts}
        try:
            text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except ValueError:
            return None
        return ProviderContent(PROVIDER, self._model, clean(text))


def _is_bare_text(part: Fields) -> bool:
    return bool(part.get("text")) and part.keys() <= {"text", "thought"}


def _call(call: Fields) -> ProposedCall:
    """Arguments that JSON cannot hold are shown to the model as a problem of its call."""
    name, arguments, call_id = clean(call["name"]), call.get("args") or {}, clean(call.get("id") or "")
    try:
        return ProposedCall(name, clean(canonical_json(arguments)), provider_call_id=call_id)
    except ValueError:
        problem = "the arguments hold a number that JSON has not"
        return ProposedCall(name, "{}", problem=problem, provider_call_id=call_id)


def _usage(counts: dict[str, Any]) -> Usage:
    """Gemini counts thoughts beside the answer, as usage is counted here."""
    read = {name: int(value) for name, value in counts.items() if name.endswith("TokenCount")}
    reasoning = read.get("thoughtsTokenCount", 0)
    input_tokens = read.get("promptTokenCount", 0) + read.get("toolUsePromptTokenCount", 0)
    output_tokens = read.get("candidatesTokenCount", 0)
    return Usage(
        input_tokens,
        read.get("cachedContentTokenCount", 0),
        output_tokens,
        reasoning,
        read.get("totalTokenCount", input_tokens + output_tokens + reasoning),
    )
