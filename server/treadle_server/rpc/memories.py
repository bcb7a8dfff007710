"""Servicer of MemoryService."""

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from treadle.v1 import memory_pb2, memory_service_pb2
from treadle_server.core.memory import Memory
from treadle_server.rpc import names
from treadle_server.rpc.calls import Call
from treadle_server.rpc.digests import asked
from treadle_server.rpc.paging import page_size, position_of, token_of
from treadle_server.services.access import check_reach
from treadle_server.services.memories import Memories
from treadle_server.wire.messages import to_message

_pb = memory_service_pb2


class MemoryMessages:
    """Implements `services.memories.MemoryCodec`."""

    def answer(self, memory: Memory) -> bytes:
        return memory_message(memory).SerializeToString()


class MemoryServicer:
    """Reads, calls, answers. Memories are about no object: who reaches only some objects reaches none."""

    def __init__(self, memories: Memories) -> None:
        self._memories = memories

    async def GetMemory(self, request: _pb.GetMemoryRequest, call: Call) -> Message:
        check_reach(call.identity, "", request.name)
        return memory_message(await self._memories.get(call.tenant, *names.memory(request.name)))

    async def PutMemory(self, request: _pb.PutMemoryRequest, call: Call) -> Message:
        check_reach(call.identity, "", request.memory.name)
        memory = await self._memories.put(
            call.tenant,
            asked(request, call),
            *names.memory(request.memory.name),
            request.memory.text,
            etag=request.memory.etag,
        )
        return memory_message(memory)

    async def DeleteMemory(self, request: _pb.DeleteMemoryRequest, call: Call) -> Message:
        check_reach(call.identity, "", request.name)
        place = names.memory(request.name)
        await self._memories.delete(call.tenant, asked(request, call), *place, etag=request.etag)
        return empty_pb2.Empty()

    async def ListMemories(self, request: _pb.ListMemoriesRequest, call: Call) -> Message:
        check_reach(call.identity, "", request.parent)
        page, total = await self._memories.list(
            call.tenant,
            names.memory_namespace(request.parent),
            limit=page_size(request.page_size),
            after=position_of(request, call),
        )
        return _pb.ListMemoriesResponse(
            memories=[memory_message(memory) for memory in page.items],
            next_page_token=token_of(page.next, request, call),
            total_size=total,
        )

    async def SearchMemories(self, request: _pb.SearchMemoriesRequest, call: Call) -> Message:
        check_reach(call.identity, "", request.parent)
        position = position_of(request, call)
        found, following = await self._memories.search(
            call.tenant,
            names.memory_namespace(request.parent),
            request.query,
            limit=page_size(request.page_size),
            skip=position[1] if position is not None else 0,
        )
        place = None if following is None else (following, following)
        return _pb.SearchMemoriesResponse(
            memories=[memory_message(memory) for memory in found],
            next_page_token=token_of(place, request, call),
        )


def memory_message(memory: Memory) -> memory_pb2.Memory:
    message = memory_pb2.Memory()
    to_message(memory, message)
    return message
