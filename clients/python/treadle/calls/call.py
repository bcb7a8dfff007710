"""What a client is to ask for, before it is known whether it waits or blocks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from treadle.errors import TreadleError

R = TypeVar("R", bound=Message)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Unary(Generic[R]):
    """One request with one answer. Asked again after a failure, it is the same to the last byte."""

    request: Message
    response: type[R]
    timeout: float | None = None
    """Seconds for all attempts together. None is the client's own, infinity is none at all."""
    lasting: bool = False
    """The answer may take as long as a stream lasts: the call takes a stream's place."""


@dataclass(frozen=True, slots=True)
class Pages(Generic[T]):
    """A list that the server hands out page by page."""

    request: Any
    """A request with a `page_token`."""
    response: type[Any]
    items: Callable[[Any], Iterable[T]]


class Follower(Protocol[T_co]):
    """A reader's position in a stream, from which it goes on after a disconnect."""

    def request(self) -> Message:
        """What to ask for now."""

    def take(self, response: Any) -> Iterable[T_co]:
        """What of a response is new, and moves the position behind it."""

    def interrupted(self, error: TreadleError) -> bool:
        """The stream broke off; false when nothing was to come any more."""


@dataclass(frozen=True, slots=True)
class Stream(Generic[T]):
    """Answers without an end of their own. Each reading of it starts with a follower of its own."""

    response: type[Message]
    follower: Callable[[], Follower[T]]
    timeout: float | None = None
    """Seconds for all of it. None is none."""


@cache
def path_of(request_type: str) -> str:
    """Path of the method that takes requests of this type, a full name; each method has its own."""
    descriptor = descriptor_pool.Default().FindMessageTypeByName(request_type)
    for service in descriptor.file.services_by_name.values():
        for method in service.methods:
            if method.input_type is descriptor:
                return f"/{service.full_name}/{method.name}"
    raise LookupError(f"no method takes {request_type}")


def request_id_or_new(given: str) -> str:
    """The caller's request_id, or a random one, so that the call can be repeated safely."""
    return given or str(uuid.uuid4())
