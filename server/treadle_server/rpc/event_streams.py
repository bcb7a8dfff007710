"""Streams of stored events over several threads, as messages."""

from collections.abc import Iterable

from treadle_server.core.errors import Refused, invalid
from treadle_server.ports.codec import Codec
from treadle_server.ports.feed import Item
from treadle_server.services.tenant_stream import TenantBatch, Unreadable
from treadle_server.wire import threads as wire


def kinds_of(codec: Codec, event_types: Iterable[str]) -> frozenset[int]:
    """Raises Refused(FIELD_INVALID) for a name that is no event type."""
    kinds = []
    for index, name in enumerate(event_types):
        kind = codec.kind(name)
        if kind is None:
            raise invalid((f"event_types[{index}]", "is not an event type"))
        kinds.append(kind)
    return frozenset(kinds)


def batch_response(codec: Codec, batch: TenantBatch, cursor: str) -> bytes:
    """A WatchThreadResponse; a batch without events is a heartbeat."""
    if not batch.threads:
        return wire.spliced_events(b"", [Item(0, codec.heartbeat(0))], cursor)
    parts = [
        wire.spliced_events(wire.thread_prefix(f"threads/{thread_id}"), items)
        for thread_id, items in batch.threads
    ]
    return b"".join([*parts, wire.spliced_events(b"", (), cursor)])


def told(damage: Unreadable, cursor: str) -> Refused:
    """The refusal, with where to go on after the damage."""
    refused = damage.refused
    metadata = {**refused.metadata, "cursor": cursor}
    return Refused(refused.reason, refused.message, metadata=metadata, resource=refused.resource)
