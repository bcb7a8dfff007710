"""A subscriber that does not read costs nobody anything, and learns where to go on."""

import asyncio
import json
import threading
from pathlib import Path

import grpc
import grpc.aio

from tests.server_process import ServerProcess
from treadle import Client, ThreadEvent
from treadle.errors import ResourceExhausted, error_of
from treadle.v1 import thread_pb2, thread_service_pb2_grpc
from treadle.v1.agent_pb2 import AgentLimits
from treadle.v1.thread_service_pb2 import WatchThreadRequest

# Without the probe the client's window stays at 64 KiB, so that little is enough to fill it.
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0),)
TURNS = 40
TURN = {
    "thought": "x" * 30_000,
    "calls": [{"name": "calculator", "arguments": {"expression": "1+1"}}],
}


def script() -> str:
    return "scripted:" + json.dumps({"turns": [TURN], "repeat": TURNS})


async def test_a_watcher_that_never_reads_is_let_go_and_resumes(tmp_path: Path) -> None:
    environment = {"TREADLE_SUBSCRIBER_STALL_SECONDS": "0.5"}
    with ServerProcess(tmp_path / "treadle.db", environment=environment) as server:
        server.start()
        async with Client(server.address) as client:
            await client.create_agent(
                "wordy",
                model=script(),
                tool_groups=["toolGroups/builtin"],
                limits=AgentLimits(max_iterations=TURNS),
            )
            thread = await client.create_thread("wordy", "Go.")
            async with grpc.aio.insecure_channel(server.address, options=SMALL_WINDOW) as channel:
                stub = thread_service_pb2_grpc.ThreadServiceStub(channel)
                stalled = stub.WatchThread(WatchThreadRequest(name=thread.name))

                async with asyncio.timeout(30):
                    ended = [event async for event in client.watch(thread.name)]
                seen, refused = await _read_late(stalled)

            assert ended[-1].thread_ended.stop_reason == thread_pb2.Thread.MAX_ITERATIONS
            assert isinstance(refused, ResourceExhausted)
            assert refused.reason == "SUBSCRIBER_TOO_SLOW"
            assert refused.retry_after is not None
            last = int(refused.metadata["last_sequence"])
            assert [event.sequence for event in seen] == list(range(1, last + 1))
            rest = [event async for event in client.watch(thread.name, after_sequence=last)]
            assert seen + rest == ended


async def _read_late(stalled) -> tuple[list[ThreadEvent], Exception]:  # type: ignore[no-untyped-def]
    """Reads only after the server must have given up: its status then waits behind what it had sent."""
    await asyncio.wait({asyncio.ensure_future(stalled.wait_for_connection())}, timeout=5)
    await asyncio.get_running_loop().run_in_executor(None, _outlast_the_stall)
    seen: list[ThreadEvent] = []
    try:
        async for response in stalled:
            seen.extend(event for event in response.events if event.sequence)
    except grpc.aio.AioRpcError as failure:
        return seen, error_of(failure)
    raise AssertionError("the stream ended with OK")


def _outlast_the_stall() -> None:
    """The absence of reading is what is tested, so there is no condition to wait for but time."""
    threading.Event().wait(1.5)
