"""What was said in a thread, told from its events, and what of it the next thread of its session is told."""

from collections.abc import Iterable
from typing import assert_never

from treadle_server.core.events import Event, HistoryRecalled, InputReceived, QuestionAsked, ThreadEnded
from treadle_server.core.kinds import Role
from treadle_server.core.values import Content, Message

SAYS = (InputReceived, QuestionAsked, ThreadEnded)
"""The payloads that `message_of` makes messages of."""
RECALLED_BYTES_MAX = 64 * 1024
"""Of a history: it stands in one event."""


def message_of(thread: str, event: Event) -> Message | None:
    """What an event says; None for one that says nothing."""
    payload = event.payload
    if not isinstance(payload, SAYS):
        return None
    match payload:
        case InputReceived():
            role, content = Role.USER, payload.content
        case QuestionAsked():
            role, content = Role.AGENT, Content(payload.question)
        case ThreadEnded():
            role, content = Role.AGENT, payload.output or Content()
        case _:
            assert_never(payload)
    if content == Content():
        return None
    return Message(thread, event.sequence, role, content, event.time_micros)


def size_of(message: Message) -> int:
    """Bytes of what it says."""
    return len(message.content.text.encode()) + len(message.content.data_json.encode())


def recalled(newest_first: Iterable[Message], messages_max: int) -> HistoryRecalled | None:
    """As many of the newest messages as may be; None when there are none at all."""
    kept: list[Message] = []
    left_out, room = False, RECALLED_BYTES_MAX
    for message in newest_first:
        room -= size_of(message)
        if len(kept) == messages_max or room < 0:
            left_out = True
            break
        kept.append(message)
    if not kept and not left_out:
        return None
    return HistoryRecalled(tuple(reversed(kept)), left_out)
