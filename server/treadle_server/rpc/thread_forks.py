"""The part of ThreadService that makes threads of threads."""

from treadle.v1 import thread_pb2, thread_service_pb2
from treadle_server.core.values import Content
from treadle_server.rpc.calls import Call
from treadle_server.rpc.digests import asked
from treadle_server.rpc.thread_messages import thread_message
from treadle_server.services.thread_forks import Overrides, Source, ThreadForks
from treadle_server.services.thread_reads import ThreadReads
from treadle_server.services.thread_starts import Started


class ForkMethods:
    """Reads, calls, answers."""

    def __init__(self, forks: ThreadForks, reads: ThreadReads) -> None:
        self._forks = forks
        self._reads = reads

    async def ForkThread(
        self, request: thread_service_pb2.ForkThreadRequest, call: Call
    ) -> thread_pb2.Thread:
        wanted = request.thread
        further = Content(wanted.input.text, wanted.input.data_json) if wanted.HasField("input") else None
        overrides = Overrides(wanted.agent_version, further, tuple(wanted.tags), request.model)
        source = Source(call.identity, request.name, request.thread_id, asked(request, call))
        return await self._made(await self._forks.fork(source, request.sequence, overrides), call)

    async def RetryThread(
        self, request: thread_service_pb2.RetryThreadRequest, call: Call
    ) -> thread_pb2.Thread:
        source = Source(call.identity, request.name, request.thread_id, asked(request, call))
        return await self._made(await self._forks.retry(source), call)

    async def _made(self, started: Started, call: Call) -> thread_pb2.Thread:
        name = f"threads/{started.id}"
        await call.send_metadata((("treadle-thread", name),))
        return thread_message(await self._reads.get(call.identity, name, full=False))
