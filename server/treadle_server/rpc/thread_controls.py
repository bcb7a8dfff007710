"""The part of ThreadService that steers and ends threads that exist."""

from google.rpc import code_pb2, status_pb2

from treadle.v1 import thread_pb2, thread_service_pb2
from treadle_server.core.kinds import ThreadState
from treadle_server.core.signals import GRACE_MICROS
from treadle_server.core.values import Content
from treadle_server.rpc.calls import Call
from treadle_server.rpc.digests import asked
from treadle_server.rpc.thread_messages import thread_message
from treadle_server.services.controls import Completion, Controls


class ThreadControls:
    """Reads, calls, answers."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls

    async def PauseThread(
        self, request: thread_service_pb2.PauseThreadRequest, call: Call
    ) -> thread_pb2.Thread:
        return thread_message(
            await self._controls.pause(call.identity, request.name, request.reason, asked(request, call))
        )

    async def ResumeThread(
        self, request: thread_service_pb2.ResumeThreadRequest, call: Call
    ) -> thread_pb2.Thread:
        return thread_message(
            await self._controls.resume(call.identity, request.name, request.reason, asked(request, call))
        )

    async def CancelThread(
        self, request: thread_service_pb2.CancelThreadRequest, call: Call
    ) -> thread_pb2.Thread:
        grace = request.grace.ToMicroseconds() if request.HasField("grace") else GRACE_MICROS
        view = await self._controls.cancel(
            call.identity, request.name, request.reason, grace, asked(request, call)
        )
        return thread_message(view)

    async def CompleteThread(
        self, request: thread_service_pb2.CompleteThreadRequest, call: Call
    ) -> thread_pb2.Thread:
        output = Content(request.output.text, request.output.data_json)
        wanted = Completion(
            ThreadState(request.state), output if request.HasField("output") else None, request.reason
        )
        view = await self._controls.complete(call.identity, request.name, wanted, asked(request, call))
        return thread_message(view)

    async def SendThreadInput(
        self, request: thread_service_pb2.SendThreadInputRequest, call: Call
    ) -> thread_pb2.Thread:
        content = Content(request.input.text, request.input.data_json)
        view = await self._controls.send_input(
            call.identity, request.name, content, request.tool_call_id, asked(request, call)
        )
        return thread_message(view)

    async def SubmitToolResult(
        self, request: thread_service_pb2.SubmitToolResultRequest, call: Call
    ) -> thread_pb2.Thread:
        ok = request.WhichOneof("result") == "result_json"
        observation = request.result_json if ok else _told(request.error)
        view = await self._controls.submit_tool_result(
            call.identity, request.name, request.tool_call_id, observation, asked(request, call), ok=ok
        )
        return thread_message(view)


def _told(error: status_pb2.Status) -> str:
    """What the model reads of an error: UNKNOWN as a code says nothing beside a message."""
    name: str = code_pb2.Code.Name(error.code)
    if not error.message:
        return name
    return error.message if error.code == code_pb2.UNKNOWN else f"{name}: {error.message}"
