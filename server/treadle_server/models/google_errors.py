"""What goes wrong between us and the Gemini API, as model errors."""

import re
from typing import Any

import httpx2
from google.genai.errors import APIError

from treadle_server.core.text import clean
from treadle_server.ports.model import ModelError

_UNKNOWN = 2
_DEADLINE_EXCEEDED = 4
_FAILED_PRECONDITION = 9
_UNAVAILABLE = 14
_MESSAGE_CHARACTERS_MAX = 1000

_CODE_OF_HTTP = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    408: 4,
    409: 10,
    413: 3,
    429: 8,
    499: 1,
    500: 13,
    501: 12,
    503: 14,
    504: 4,
}
_RETRYABLE_BELOW_500 = frozenset({408, 409, 429, 499})
_DURATION = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?s\Z")


def from_answer(error: APIError, secret: str) -> ModelError:
    """The API answered with an error, instead of a stream or within one."""
    status = error.code if isinstance(error.code, int) else 0
    retryable = status >= 500 or status in _RETRYABLE_BELOW_500
    code = _CODE_OF_HTTP.get(status, _UNAVAILABLE if status >= 500 else _UNKNOWN)
    return ModelError(
        code,
        _message(error, status, secret),
        retryable=retryable,
        retry_after_micros=_retry_after_micros(error) if retryable else None,
    )


def from_transport(error: Exception) -> ModelError:
    """The request did not get through, or the answer not back. The error's own text may hold headers."""
    kind = type(error).__name__
    if isinstance(error, httpx2.TimeoutException):
        return ModelError(_DEADLINE_EXCEEDED, f"Gemini did not answer in time ({kind})", retryable=True)
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError | httpx2.InvalidURL):
        text = f"GOOGLE_GEMINI_BASE_URL or the key cannot be used ({kind})"
        return ModelError(_FAILED_PRECONDITION, text, retryable=False)
    return ModelError(_UNAVAILABLE, f"the connection to Gemini failed ({kind})", retryable=True)


def from_nonsense(error: Exception) -> ModelError:
    """The answer was not what the API documents."""
    kind = type(error).__name__
    return ModelError(_UNAVAILABLE, f"Gemini's answer could not be read ({kind})", retryable=True)


def _message(error: APIError, status: int, secret: str) -> str:
    text = error.message if isinstance(error.message, str) and error.message else "no message"
    text = clean(text).replace(secret, "[key]")[:_MESSAGE_CHARACTERS_MAX]
    return f"Gemini answered {status or 'an error'}: {text}"


def _retry_after_micros(error: APIError) -> int | None:
    """RetryInfo of the body, else the header Retry-After in seconds; dates are not given by this API."""
    for detail in _details(error.details):
        if str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
            match = _DURATION.match(str(detail.get("retryDelay", "")))
            if match is not None:
                return int(match[1]) * 1_000_000 + int((match[2] or "").ljust(6, "0")[:6])
    headers = getattr(error.response, "headers", None) or {}
    seconds = str(headers.get("retry-after", ""))
    return int(seconds) * 1_000_000 if seconds.isdecimal() and len(seconds) < 10 else None


def _details(body: Any) -> list[dict[str, Any]]:
    fault = body.get("error", body) if isinstance(body, dict) else {}
    details = fault.get("details") if isinstance(fault, dict) else None
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
