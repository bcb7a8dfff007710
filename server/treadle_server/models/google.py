"""Gemini models of the Gemini API."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from treadle_server.models import google_names
from treadle_server.models.google_reply import ReplyReader
from treadle_server.models.google_request import Fields, request_body
from treadle_server.ports.model import ModelError, ModelReply, ModelRequest, OnDelta

if TYPE_CHECKING:
    import httpx2

KEY_VARIABLES = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
BASE_URL_VARIABLE = "GOOGLE_GEMINI_BASE_URL"

_FAILED_PRECONDITION = 9
_CONNECTIONS_MAX = 1000
_IDLE_CONNECTIONS_MAX = 50


@dataclass(frozen=True, slots=True)
class _Client:
    """The client library and the HTTP client that we gave it, which it does not close."""

    api: Any
    http: "httpx2.AsyncClient"
    key: str

    async def close(self) -> None:
        self.api.close()
        await self.http.aclose()


class GoogleModel:
    """Implements `ports.model.Model` with one HTTP request a call and no retries.

    The key is read at the first call, so that an agent can be made before it is set. The client library is
    imported then too: it takes a third of a second.
    """

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        *,
        connect_timeout_seconds: float = 10.0,
        silence_timeout_seconds: float = 300.0,
    ) -> None:
        self._environ = environ
        self._timeouts = {
            "connect": connect_timeout_seconds,
            "read": silence_timeout_seconds,
            "write": silence_timeout_seconds,
            "pool": connect_timeout_seconds,
        }
        self._client: _Client | None = None
        self._building = asyncio.Lock()

    def problem(self, model: str) -> str | None:
        if google_names.is_model_name(model):
            return None
        return "must be google: and the name of a Gemini model, such as google:gemini-2.5-flash"

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        client = await self._connected()
        from google.genai.errors import APIError
        from httpx2 import HTTPError, InvalidURL

        from treadle_server.models import google_errors

        reader = ReplyReader(request.model, on_delta)
        body = request_body(request)
        try:
            async with aclosing(_chunks(client, request.model, body)) as chunks:
                async for chunk in chunks:
                    reader.add(chunk)
        except APIError as error:
            raise google_errors.from_answer(error, client.key) from None
        except (HTTPError, InvalidURL) as error:
            raise google_errors.from_transport(error) from None
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            raise google_errors.from_nonsense(error) from error
        return reader.reply()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _connected(self) -> _Client:
        if self._client is None:
            key, base_url = self._key(), self._base_url()
            async with self._building:
                if self._client is None:
                    self._client = await asyncio.to_thread(self._build, key, base_url)
        return self._client

    def _key(self) -> str:
        key = next(filter(None, (self._environ.get(name, "").strip() for name in KEY_VARIABLES)), "")
        names = " or ".join(KEY_VARIABLES)
        if not key:
            raise _unusable(f"no key for Gemini: set {names} in the server's environment")
        if not (key.isascii() and key.isprintable()):
            raise _unusable(f"the key for Gemini in {names} holds characters that no key has")
        return key

    def _base_url(self) -> str | None:
        """None: the library's own."""
        base_url = self._environ.get(BASE_URL_VARIABLE, "").strip()
        try:
            parts = urlsplit(base_url)
        except ValueError:
            parts = urlsplit("")
        if base_url and not (parts.scheme in ("http", "https") and parts.hostname):
            raise _unusable(f"{BASE_URL_VARIABLE} is not an http or https URL")
        return base_url or None

    def _build(self, key: str, base_url: str | None) -> _Client:
        """In a thread: imports and certificate stores take long."""
        try:
            return self._built(key, base_url)
        except (ImportError, OSError, ValueError) as error:
            raise _unusable(f"the client for Gemini cannot be made: {type(error).__name__}") from error

    def _built(self, key: str, base_url: str | None) -> _Client:
        import httpx2
        from google import genai
        from google.genai.types import HttpOptions

        # The library hands each request its own timeout, none, which would override the client's.
        async def limit(request: httpx2.Request) -> None:
            request.extensions["timeout"] = self._timeouts

        http = httpx2.AsyncClient(
            event_hooks={"request": [limit]},
            limits=httpx2.Limits(
                max_connections=_CONNECTIONS_MAX, max_keepalive_connections=_IDLE_CONNECTIONS_MAX
            ),
        )
        options = HttpOptions(httpx_async_client=http, base_url=base_url)
        return _Client(genai.Client(api_key=key, vertexai=False, http_options=options), http, key)


def _unusable(text: str) -> ModelError:
    return ModelError(_FAILED_PRECONDITION, text, retryable=False)


async def _chunks(client: _Client, model: str, body: Fields) -> AsyncGenerator[Fields, None]:
    """One request by the library's methods below `generate_content_stream`.

    That one would make further requests for a continuation, and leaves it to the garbage collector to close
    the connection when a chunk cannot be read.
    """
    from google.genai.errors import APIError

    api = client.api._api_client
    path = f"{google_names.path(model)}:streamGenerateContent?alt=sse"
    call = api._build_request("post", path, body)
    answer = await api._async_request_once(call, stream=True, implicit_retry=False)
    try:
        async for chunk in answer:
            if "error" in chunk:
                raise APIError(chunk["error"].get("code"), chunk, answer)
            yield chunk
    finally:
        await answer.response_stream.aclose()
