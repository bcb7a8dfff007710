"""Memories that outlive the session: what an agent keeps for other threads, and finds again."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from treadle_server.core.errors import Refused
from treadle_server.core.memory import CHARACTERS, KEY_CHARACTERS_MAX, TEXT_BYTES_MAX, MemoryPlace, MemoryRule
from treadle_server.core.text import bounded, clean
from treadle_server.ports.catalogue.memories import MemoryRow
from treadle_server.ports.log import ThreadKey
from treadle_server.ports.tools import Memories, ToolCall

TEXT_CHARACTERS_MAX = 8000
QUERY_CHARACTERS_MAX = 1024
RESULTS_MAX = 20
_SHOWN_BYTES_MAX = 48 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class OwnMemories:
    """The memories that one call may use."""

    memories: Memories
    call: ToolCall
    rules: tuple[MemoryRule, ...]

    def places(self, alias: str) -> Sequence[MemoryPlace]:
        """All of them, or the one that the model names. Raises ValueError where the thread has none."""
        found = [place for place in self.call.memory if not alias or place.alias == alias]
        if not found:
            raise ValueError(
                f"there is no {alias or 'memory'} in this thread: it lacks what tells whose memory it is"
            )
        return found


async def search_memory(
    own: OwnMemories,
    /,
    query: Annotated[
        str,
        'Words to look for, in any order; "in quotes" if they follow each other, word* for a beginning',
        {"minLength": 1, "maxLength": QUERY_CHARACTERS_MAX},
    ],
    memory: Annotated[str, "Which memory to search; leave it out to search all of them"] = "",
    limit: Annotated[int, "How many memories to return at most", {"minimum": 1, "maximum": RESULTS_MAX}] = 5,
) -> str:
    """Searches what was saved in earlier conversations, by words of its texts and keys, and returns what fits
    best first, as JSON. Search before you ask the user for something that may be known already."""
    aliases = {place.namespace: place.alias for place in own.places(memory)}
    try:
        rows = await own.memories.search(own.call.tenant, list(aliases), query, limit)
    except Refused as damage:
        raise ValueError(damage.message) from damage
    if not rows:
        return "nothing was found; other words may find more"
    bytes_max = _SHOWN_BYTES_MAX // len(rows)
    several = len(own.rules) > 1
    shown = [_shown(row, aliases[row.namespace] if several else "", bytes_max) for row in rows]
    return json.dumps(shown, ensure_ascii=False)


async def save_memory(
    own: OwnMemories,
    /,
    text: Annotated[
        str,
        "What to remember, so that it can be understood without this conversation",
        {"minLength": 1, "maxLength": TEXT_CHARACTERS_MAX},
    ],
    key: Annotated[
        str,
        "Short name such as favourite_colour; what is saved under it is replaced. Without one it is added",
        {
            "maxLength": KEY_CHARACTERS_MAX,
            "pattern": f"^(?:[{CHARACTERS.removesuffix('-')}][{CHARACTERS}]*)?$",
        },
    ] = "",
    memory: Annotated[str, "Which memory to save it in"] = "",
) -> str:
    """Saves something for later conversations, which search_memory finds. Save facts and wishes that will
    still matter then, one in each memory."""
    alias = memory or next(rule.alias for rule in own.rules if rule.writable)
    if not any(rule.writable and rule.alias == alias for rule in own.rules):
        raise ValueError(f"nothing can be saved in {alias}")
    (place,) = own.places(alias)
    text = clean(text)
    if "\x00" in text or len(text.encode()) > TEXT_BYTES_MAX:
        raise ValueError(f"a memory has at most {TEXT_BYTES_MAX} bytes and no NUL characters")
    name = key or _new_key(own.call)
    try:
        await own.memories.save(ThreadKey(own.call.tenant, own.call.thread), place.namespace, name, text)
    except Refused as refusal:
        raise ValueError(refusal.message) from refusal
    return f"saved under {name}"


def _new_key(call: ToolCall) -> str:
    """The same at a further attempt."""
    return "m-" + hashlib.sha256(call.idempotency_key.encode()).hexdigest()[:16]


def _shown(row: MemoryRow, alias: str, bytes_max: int) -> dict[str, str]:
    saved = (_EPOCH + timedelta(microseconds=row.update_time)).isoformat(timespec="seconds")
    shown = {"key": row.item_key, "text": bounded(row.text, bytes_max)[0], "saved": saved}
    return {"memory": alias, **shown} if alias else shown
