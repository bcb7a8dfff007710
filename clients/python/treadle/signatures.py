"""Methods that look like the functions that they were made from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

M = TypeVar("M", bound=Callable[..., Any])


def as_method(method: M, call: Callable[..., Any]) -> M:
    """Gives a method the name, the documentation and the parameters of the call that it makes."""
    signature = inspect.signature(call)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__name__ = method.__qualname__ = call.__name__
    method.__doc__ = call.__doc__
    vars(method)["__signature__"] = signature.replace(
        parameters=[itself, *signature.parameters.values()], return_annotation=inspect.Signature.empty
    )
    return method
