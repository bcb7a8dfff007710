"""Servicer of ToolService."""

from google.protobuf.message import Message

from treadle.v1 import tool_pb2, tool_service_pb2
from treadle_server.rpc.calls import Call
from treadle_server.rpc.paging import page_size, position_of, token_of
from treadle_server.services.tools import Tool, Tools
from treadle_server.wire.messages import to_message

_pb = tool_service_pb2


class ToolServicer:
    """The built-in tools, which never change while a server runs."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def ListBuiltinTools(self, request: _pb.ListBuiltinToolsRequest, call: Call) -> Message:
        tools = self._tools.builtins()
        position = position_of(request, call)
        begin = position[1] if position is not None else 0
        end = begin + page_size(request.page_size)
        return _pb.ListBuiltinToolsResponse(
            tools=[_message(tool) for tool in tools[begin:end]],
            next_page_token=token_of((end, end) if end < len(tools) else None, request, call),
            total_size=len(tools),
        )


def _message(tool: Tool) -> tool_pb2.Tool:
    message = tool_pb2.Tool()
    to_message(tool, message)
    return message
