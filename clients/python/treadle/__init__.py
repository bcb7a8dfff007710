"""Python client of Treadle, a durable runtime server for AI agents.

    async with Client("127.0.0.1:50051") as client:
        await client.create_agent("helper", model="demo:react", tool_groups=["toolGroups/builtin"])
        thread = await client.execute("helper", "What is 6 * 7?")
        async for event in client.watch(thread.name):
            ...

`SyncClient` does the same without an event loop. Everything is loaded when it is first used, so that
importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from treadle._version import __version__

if TYPE_CHECKING:
    from treadle.client import Client
    from treadle.errors import (
        Aborted,
        AlreadyExists,
        Cancelled,
        DataLoss,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        NotFound,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
        StateConflict,
        TreadleError,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Violation,
    )
    from treadle.retry import Retry
    from treadle.sync import SyncClient
    from treadle.v1.agent_pb2 import (
        Agent,
        AgentLimits,
        AgentVersion,
        Document,
        MemoryRule,
        ModelSettings,
        SessionPolicy,
    )
    from treadle.v1.api_key_pb2 import ApiKey
    from treadle.v1.approval_pb2 import Approval, ApprovalPolicy, ApprovalRule
    from treadle.v1.approval_service_pb2 import WatchApprovalsResponse
    from treadle.v1.backup_pb2 import Backup
    from treadle.v1.content_pb2 import Content, Input, Part
    from treadle.v1.error_reason_pb2 import ErrorReason
    from treadle.v1.event_pb2 import ThreadEvent
    from treadle.v1.iteration_pb2 import Action, Iteration
    from treadle.v1.memory_pb2 import Memory
    from treadle.v1.server_info_pb2 import ServerInfo
    from treadle.v1.session_pb2 import Session, SessionMessage
    from treadle.v1.tenant_pb2 import Tenant
    from treadle.v1.thread_pb2 import (
        ClientTool,
        Subject,
        Task,
        Thread,
        ThreadContext,
        Trigger,
        WaitingFor,
    )
    from treadle.v1.thread_service_pb2 import ExecuteAgentRequest, WatchThreadResponse
    from treadle.v1.tool_pb2 import Tool
    from treadle.v1.usage_pb2 import Cost, Usage

_HOMES = {
    "client": ("Client",),
    "errors": (
        "Aborted",
        "AlreadyExists",
        "Cancelled",
        "DataLoss",
        "DeadlineExceeded",
        "FailedPrecondition",
        "Internal",
        "InvalidArgument",
        "NotFound",
        "OutOfRange",
        "PermissionDenied",
        "ResourceExhausted",
        "StateConflict",
        "TreadleError",
        "Unauthenticated",
        "Unavailable",
        "Unimplemented",
        "Violation",
    ),
    "retry": ("Retry",),
    "sync": ("SyncClient",),
    "v1.agent_pb2": (
        "Agent",
        "AgentLimits",
        "AgentVersion",
        "Document",
        "MemoryRule",
        "ModelSettings",
        "SessionPolicy",
    ),
    "v1.api_key_pb2": ("ApiKey",),
    "v1.approval_pb2": ("Approval", "ApprovalPolicy", "ApprovalRule"),
    "v1.approval_service_pb2": ("WatchApprovalsResponse",),
    "v1.backup_pb2": ("Backup",),
    "v1.content_pb2": ("Content", "Input", "Part"),
    "v1.error_reason_pb2": ("ErrorReason",),
    "v1.event_pb2": ("ThreadEvent",),
    "v1.iteration_pb2": ("Action", "Iteration"),
    "v1.memory_pb2": ("Memory",),
    "v1.server_info_pb2": ("ServerInfo",),
    "v1.session_pb2": ("Session", "SessionMessage"),
    "v1.tenant_pb2": ("Tenant",),
    "v1.thread_pb2": ("ClientTool", "Subject", "Task", "Thread", "ThreadContext", "Trigger", "WaitingFor"),
    "v1.thread_service_pb2": ("ExecuteAgentRequest", "WatchThreadResponse"),
    "v1.tool_pb2": ("Tool",),
    "v1.usage_pb2": ("Cost", "Usage"),
}
_MODULES = {name: f"treadle.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "Aborted",
    "Action",
    "Agent",
    "AgentLimits",
    "AgentVersion",
    "AlreadyExists",
    "ApiKey",
    "Approval",
    "ApprovalPolicy",
    "ApprovalRule",
    "Backup",
    "Cancelled",
    "Client",
    "ClientTool",
    "Content",
    "Cost",
    "DataLoss",
    "DeadlineExceeded",
    "Document",
    "ErrorReason",
    "ExecuteAgentRequest",
    "FailedPrecondition",
    "Input",
    "Internal",
    "InvalidArgument",
    "Iteration",
    "Memory",
    "MemoryRule",
    "ModelSettings",
    "NotFound",
    "OutOfRange",
    "Part",
    "PermissionDenied",
    "ResourceExhausted",
    "Retry",
    "ServerInfo",
    "Session",
    "SessionMessage",
    "SessionPolicy",
    "StateConflict",
    "Subject",
    "SyncClient",
    "Task",
    "Tenant",
    "Thread",
    "ThreadContext",
    "ThreadEvent",
    "Tool",
    "TreadleError",
    "Trigger",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Usage",
    "Violation",
    "WaitingFor",
    "WatchApprovalsResponse",
    "WatchThreadResponse",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
