"""What can be told about a Gemini model from its name."""

import re

_NAME = re.compile(r"(?:(?:models|tunedModels)/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_VERSION = re.compile(r"gemini-(\d+)(?:\.(\d+))?(?:-|\Z)")
_OF_OTHER_KIND = re.compile(r"image|tts|audio|live|embedding|computer|robotics")
_NEWEST = (1_000, 0)


def is_model_name(model: str) -> bool:
    return _NAME.match(model) is not None


def path(model: str) -> str:
    """The model's resource name."""
    return model if "/" in model else f"models/{model}"


def gives_thoughts(model: str, thinking_tokens: int | None) -> bool:
    """It thinks and can tell what; others refuse to be asked, and so do these while they do not think."""
    thinks = "lite" not in model if thinking_tokens is None else thinking_tokens != 0
    return thinks and _version(model) >= (2, 5) and _OF_OTHER_KIND.search(model) is None


def wants_signatures(model: str) -> bool:
    """It refuses function calls of its own turns that come back without their thought signature."""
    return _version(model) >= (3, 0)


def takes_schema_with_tools(model: str) -> bool:
    """Others refuse a response schema beside function declarations."""
    return _version(model) >= (3, 0)


def _version(model: str) -> tuple[int, int]:
    """(0, 0) for a model that is no Gemini; aliases such as `gemini-flash-latest` are the newest."""
    name = model.rpartition("/")[2]
    match = _VERSION.match(name)
    if match is not None:
        return int(match[1]), int(match[2] or 0)
    return _NEWEST if name.startswith("gemini-") and name.endswith("-latest") else (0, 0)
