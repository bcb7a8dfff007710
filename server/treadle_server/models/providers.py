"""Finds the adapter of a model string."""

import os
import re
from collections.abc import Callable, Mapping

from treadle_server.core.errors import invalid, not_supported
from treadle_server.ports.model import Model

_FIELD = "agent.model"
_SEPARATOR = re.compile("[:/]")
NOT_YET = ("anthropic", "openai")
_GOOGLE_KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")


def _google() -> Model:
    from treadle_server.models.google import GoogleModel

    return GoogleModel()


def _scripted() -> Model:
    from treadle_server.models.scripted import ScriptedModel

    return ScriptedModel()


def _demo() -> Model:
    from treadle_server.models.demo import DemoModel

    return DemoModel()


FACTORIES: Mapping[str, Callable[[], Model]] = {"demo": _demo, "google": _google, "scripted": _scripted}


class Providers:
    """Implements `ports.model.Models`; makes an adapter, and imports what it needs, when it is asked for."""

    def __init__(self, factories: Mapping[str, Callable[[], Model]] = FACTORIES) -> None:
        self._factories = factories
        self._models: dict[str, Model] = {}

    def problems(self) -> dict[str, str]:
        """Providers that an agent can name, each with what it lacks to be called; empty = nothing."""
        missing = " or ".join(_GOOGLE_KEYS) + " is not set"
        lacks = {"google": "" if any(os.environ.get(name) for name in _GOOGLE_KEYS) else missing}
        return {name: lacks.get(name, "") for name in sorted(self._factories)}

    def find(self, model: str) -> tuple[Model, str]:
        provider, *rest = _SEPARATOR.split(model, maxsplit=1)
        if not rest:
            raise invalid((_FIELD, f"must be provider:model; {self._known()}"))
        if provider not in self._factories:
            if provider in NOT_YET:
                raise not_supported(_FIELD, f"the provider {provider}")
            raise invalid((_FIELD, f"the provider {provider!r} is unknown; {self._known()}"))
        if provider not in self._models:
            self._models[provider] = self._factories[provider]()
        return self._models[provider], rest[0]

    def _known(self) -> str:
        return f"known providers are {', '.join(sorted(self._factories))}"

    async def close(self) -> None:
        """Closes every adapter that was made."""
        while self._models:
            _, model = self._models.popitem()
            await model.close()
