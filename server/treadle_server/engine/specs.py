"""Pinned specs, decoded once."""

from treadle_server.core.errors import Reason, Refused, not_found
from treadle_server.core.spec import Spec
from treadle_server.engine.kept import Kept
from treadle_server.ports.catalogue.threads import ThreadRow, Threads
from treadle_server.ports.codec import Codec
from treadle_server.ports.log import ThreadKey

CACHE_MAX = 1000
CACHE_BYTES_MAX = 64 * 1024 * 1024
"""As they are stored: one spec can have documents of 256 KiB."""
NEWER = "newer"
"""In the metadata of a refusal: what cannot be read is whole, so this is no damage."""


class CachedSpecs:
    """Implements ports/specs over the rows of threads."""

    def __init__(self, threads: Threads, codec: Codec) -> None:
        self._threads = threads
        self._codec = codec
        self._cache = Kept[tuple[int, bytes], Spec](CACHE_MAX, CACHE_BYTES_MAX)

    async def of_thread(self, key: ThreadKey) -> tuple[Spec, int]:
        row = await self._threads.get_by_key(key)
        if row is None:
            raise not_found("Thread", "the thread")
        try:
            return await self.of_row(row), row.session
        except Refused as damage:
            if damage.reason is Reason.RECORD_CORRUPT and await self._threads.get_by_key(key) is None:
                raise not_found("Thread", "the thread") from None  # it was deleted meanwhile
            raise

    async def of_row(self, row: ThreadRow) -> Spec:
        """The spec of a thread whose row is at hand."""
        place = (row.key.tenant, row.spec_digest)
        spec = self._cache.get(place)
        if spec is not None:
            return spec
        data = await self._threads.spec(row.key.tenant, row.spec_digest)
        if data is None:
            raise Refused(Reason.RECORD_CORRUPT, f"the spec of threads/{row.id} is missing")
        try:
            spec = self._codec.decode_spec(data)
        except Exception as error:  # one thread's loss must not be the server's
            text = f"the spec of threads/{row.id} was written by a newer release"
            raise Refused(Reason.RECORD_CORRUPT, text, metadata={NEWER: "spec"}) from error
        return self._cache.put(place, spec, len(data))
