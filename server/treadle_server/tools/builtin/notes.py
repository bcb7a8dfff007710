"""Notes that outlive a thread: the agent's own memory."""

from dataclasses import dataclass
from typing import Annotated

from treadle_server.core.errors import Refused
from treadle_server.ports.tools import Notes, ToolCall

KEY_CHARACTERS_MAX = 100
TEXT_CHARACTERS_MAX = 8000


@dataclass(frozen=True, slots=True)
class OwnNotes:
    """The notes that one call may touch: those of its session, or of its thread when it has none."""

    notes: Notes
    call: ToolCall

    @property
    def scope(self) -> str:
        if self.call.session:
            return f"sessions/{self.call.session}"
        return f"threads/{self.call.thread}"


async def remember(
    own: OwnNotes,
    /,
    key: Annotated[
        str,
        "Short name to find the note by, such as customer_name",
        {"minLength": 1, "maxLength": KEY_CHARACTERS_MAX},
    ],
    text: Annotated[str, "What to remember", {"maxLength": TEXT_CHARACTERS_MAX}],
) -> str:
    """Saves a note for later in this conversation, also after it was interrupted. A note with the same key
    is replaced. Read it again with recall."""
    try:
        await own.notes.put(own.call.tenant, own.scope, key, text)
    except Refused as refusal:
        raise ValueError(refusal.message) from refusal
    return f"remembered under {key}"


async def recall(
    own: OwnNotes,
    /,
    key: Annotated[
        str,
        "Name of the note; leave it out to list the names of all notes",
        {"maxLength": KEY_CHARACTERS_MAX},
    ] = "",
) -> str:
    """Returns a note that was saved with remember, or the list of all their keys when no key is given."""
    if not key:
        keys = await own.notes.keys(own.call.tenant, own.scope)
        return "\n".join(keys) if keys else "there are no notes yet"
    text = await own.notes.get(own.call.tenant, own.scope, key)
    if text is None:
        raise ValueError(f"there is no note {key!r}; call recall without a key to list all keys")
    return text
