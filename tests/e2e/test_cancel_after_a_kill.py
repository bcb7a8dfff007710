"""A thread whose calls died with the server is cancelled at once, though its turn has not come."""

import asyncio
from pathlib import Path

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from tests.server_process import ServerProcess
from treadle import Client
from treadle.v1 import thread_pb2
from treadle.v1.thread_service_pb2 import CancelThreadRequest
from treadle.v1.thread_service_pb2_grpc import ThreadServiceStub

HANGS = 'scripted:{"turns": [{"hang": true}]}'


async def test_a_queued_thread_with_calls_of_a_dead_server_ends_without_its_grace(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "treadle.db") as server:
        server.start()
        names = await _two_at_work(server)
        server.kill()
        server.start(TREADLE_RUNNING_THREADS_MAX="1")

        async with grpc.aio.insecure_channel(server.address) as channel, asyncio.timeout(20):
            stub = ThreadServiceStub(channel)
            grace = Duration(seconds=300)
            ended = [await stub.CancelThread(CancelThreadRequest(name=name, grace=grace)) for name in names]

    assert [thread.state for thread in ended] == [thread_pb2.Thread.CANCELLED] * 2


async def _two_at_work(server: ServerProcess) -> list[str]:
    async with Client(server.address) as client:
        await client.create_agent("hanging", model=HANGS)
        names = [(await client.create_thread("hanging", "Go.")).name for _ in range(2)]
        for name in names:
            async for event in client.watch(name):
                if event.WhichOneof("payload") == "model_call_started":
                    break
    return names[::-1]
