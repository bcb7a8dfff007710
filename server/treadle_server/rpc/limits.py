"""The limits of every message that a request can hold: one entry a message, one rule a field.

What has no entry has the rule of its kind: texts to 1,024 characters, numbers and durations not negative.
"""

import re
from collections.abc import Mapping
from typing import Any

from google.rpc import code_pb2

from treadle.v1 import (
    agent_pb2,
    api_key_pb2,
    approval_pb2,
    approval_service_pb2,
    content_pb2,
    memory_pb2,
    thread_pb2,
    thread_service_pb2,
)
from treadle_server.core.json_text import JsonTextError
from treadle_server.core.memory import TEXT_BYTES_MAX as MEMORY_BYTES_MAX
from treadle_server.ports.catalogue.starts import STARTS_MAX
from treadle_server.rpc.faults import Faults
from treadle_server.rpc.rules import (
    Items,
    JsonText,
    Labels,
    Number,
    Object,
    OneOf,
    Rule,
    Span,
    Text,
    Unsupported,
    Whole,
)
from treadle_server.rpc.struct_json import struct_json

KIB = 1024
REQUEST_BYTES_MAX = 4 * KIB * KIB
INPUT_BYTES_MAX = 64 * KIB
CLIENT_METADATA_BYTES_MAX = 16 * KIB
CLIENT_TOOLS_MAX = 64
CLIENT_TOOLS_BYTES_MAX = 128 * KIB
"""Of a thread, all together."""
FORK_OVERRIDES = frozenset({"agent_version", "input", "tags"})
HISTORY_MESSAGES_MAX = 200
DEBOUNCE_SECONDS_MAX = 60
DOCUMENTS_BYTES_MAX = 256 * KIB
"""Of an agent, all together."""
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1_000
START_INTERVAL_DAYS_MAX = 31
EXPIRE_AFTER_DAYS_MAX = 3_652

_Agent = agent_pb2.Agent
_Thread = thread_pb2.Thread

_ID = Text(
    chars=63,
    pattern=re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\Z"),
    shape="1 to 63 lower case letters, digits and hyphens, without a hyphen at either end",
)
_REQUEST_ID = Text(
    chars=128, pattern=re.compile(r"[\x20-\x7e]+\Z"), shape="1 to 128 printable ASCII characters"
)
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+\Z")
_MODEL = Text(bytes=64 * KIB, pattern=re.compile(r"[a-z][a-z0-9_-]{0,62}[:/]"), shape="provider:model")
_TOOL_NAME = Text(
    chars=64,
    pattern=re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z"),
    shape="1 to 64 letters, digits, underscores and hyphens, with a letter or an underscore first",
)
_OBJECT = Text(
    chars=255,
    pattern=re.compile(r"[^\s/*\x00-\x1f\x7f]+/[^\s*\x00-\x1f\x7f]+\Z"),
    shape="type/id, printable and without spaces and *",
)
_OBJECT_PATTERN = Text(
    chars=255,
    pattern=re.compile(r"[^\s/*\x00-\x1f\x7f]+/(?:\*|[^\s*\x00-\x1f\x7f]+)\Z"),
    shape="type/id or type/*, printable and without spaces",
)
_URI = Text(
    chars=2_048,
    pattern=re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1f\x7f]+\Z"),
    shape="an absolute URI",
)

COMMON: Mapping[str, Rule] = {
    "request_id": _REQUEST_ID,
    "page_token": Text(chars=2_048),
    "filter": Text(chars=4_096),
    "order_by": Text(chars=255),
    "etag": Text(chars=64),
    "agent_id": _ID,
    "thread_id": _ID,
    "api_key_id": _ID,
    "tenant_id": _ID,
    "backup_id": _ID,
    "display_name": Text(chars=255),
    "labels": Labels(),
    "event_types": Items(64, Text(chars=63)),
    "tool_call_id": Text(chars=255),
}
"""By field name, in any message without a rule of its own for it."""

RULES: Mapping[str, Mapping[str, Rule]] = {
    "treadle.v1.Agent": {
        "description": Text(chars=4_096),
        "image_uri": _URI,
        "model": _MODEL,
        "instructions": Text(bytes=64 * KIB),
        "tool_groups": Items(32, Text(chars=255), unique=True),
        "enabled_tools": Items(256, Text(chars=255), unique=True),
        "subagents": Items(32, Text(chars=255), unique=True),
        "documents": Items(32),
        "input_schema_json": JsonText(64 * KIB),
        "output_schema_json": JsonText(64 * KIB),
        "suggestions_enabled": Unsupported("suggesting what to say"),
        "evaluation_config": Unsupported("judging threads"),
        "memory_rules": Items(8),
    },
    "treadle.v1.Document": {
        "title": Text(chars=255, pattern=_PRINTABLE, shape="1 to 255 printable characters"),
        "text": Text(bytes=64 * KIB),
    },
    "treadle.v1.MemoryRule": {
        "namespace": Text(chars=255),
        "alias": Text(
            chars=32,
            pattern=re.compile(r"[a-z][a-z0-9_]*\Z"),
            shape="a lower case letter, then up to 31 of lower case letters, digits and underscores",
        ),
        "description": Text(chars=1_024),
    },
    "treadle.v1.Memory": {"text": Text(bytes=MEMORY_BYTES_MAX)},
    "treadle.v1.SearchMemoriesRequest": {"query": Text(chars=1_024)},
    "treadle.v1.ModelSettings": {
        "temperature": Number(0, 2),
        "top_p": Number(0, 1, more_than_least=True),
        "max_output_tokens": Number(1),
        "stop_sequences": Items(16, Text(chars=255)),
        "fallback_models": Unsupported("falling back to other models"),
    },
    "treadle.v1.ApprovalPolicy": {"rules": Items(64)},
    "treadle.v1.ApprovalRule": {
        "tool_pattern": Text(chars=255),
        "argument_predicate": Text(chars=1_024),
        "approvers_needed": Number(0, 10),
        "expire_after": Span(EXPIRE_AFTER_DAYS_MAX * 86_400, zero=False),
    },
    "treadle.v1.DecideApprovalRequest": {
        "arguments_json": JsonText(INPUT_BYTES_MAX),
        "result_json": JsonText(INPUT_BYTES_MAX),
        "message": Text(chars=4_096),
    },
    "treadle.v1.AgentLimits": {
        "max_cost_micros": Unsupported("limiting cost"),
        "timeout": Span(zero=False),
        "max_lifetime": Span(zero=False),
        "max_starts": Number(0, STARTS_MAX),
        "max_depth": Number(0, 16),
        "max_children": Number(0, 32),
        "start_interval": Span(START_INTERVAL_DAYS_MAX * 86_400, zero=False),
    },
    "treadle.v1.ApiKey": {
        "principal": Text(chars=255, pattern=_PRINTABLE, shape="1 to 255 printable characters"),
        "object_patterns": Items(64, _OBJECT_PATTERN, unique=True),
    },
    "treadle.v1.Tenant": {"thread_retention": Span(least_seconds=1)},
    "treadle.v1.Input": {
        "text": Text(bytes=INPUT_BYTES_MAX),
        "data_json": JsonText(INPUT_BYTES_MAX),
        "data": Object(INPUT_BYTES_MAX, instead="data_json"),
        "parts": Unsupported("giving files"),
    },
    "treadle.v1.Content": {
        "text": Text(bytes=INPUT_BYTES_MAX),
        "data_json": JsonText(INPUT_BYTES_MAX),
        "parts": Unsupported("giving files"),
    },
    "treadle.v1.Subject": {"type": Text(chars=63), "id": Text(chars=255)},
    "treadle.v1.Trigger": {"triggered_by": Text(chars=255)},
    "treadle.v1.Thread": {
        "session_key": Text(chars=255),
        "parent_object": _OBJECT,
        "client_metadata": Object(CLIENT_METADATA_BYTES_MAX),
        "tags": Items(50, Text(chars=63), unique=True),
        "webhook_targets": Unsupported("sending webhooks"),
        "event_source_targets": Unsupported("collecting events in event sources"),
    },
    "treadle.v1.LookupSessionRequest": {"session_key": Text(chars=255)},
    "treadle.v1.ThreadContext": {"initial": Text(chars=4_096), "additional": Text(chars=1_024)},
    "treadle.v1.SessionPolicy": {
        "history_messages_max": Number(0, HISTORY_MESSAGES_MAX),
        "input_debounce": Span(DEBOUNCE_SECONDS_MAX),
    },
    "treadle.v1.ClientTool": {
        "name": _TOOL_NAME,
        "description": Text(chars=4_096),
        "parameters_schema_json": JsonText(16 * KIB),
        "result_schema_json": JsonText(16 * KIB),
    },
    "treadle.v1.CancelThreadRequest": {"grace": Span(seconds=300)},
    "treadle.v1.CompleteThreadRequest": {
        "state": OneOf(
            {
                _Thread.COMPLETED: "COMPLETED",
                _Thread.FAILED: "FAILED",
                _Thread.CANCELLED: "CANCELLED",
            }
        ),
    },
    "treadle.v1.SubmitToolResultRequest": {"result_json": JsonText(INPUT_BYTES_MAX)},
    "treadle.v1.ForkThreadRequest": {"model": _MODEL},
    "google.rpc.Status": {
        "code": Number(1, max(code_pb2.Code.values())),
        "message": Text(bytes=INPUT_BYTES_MAX),
        "details": Unsupported("details of a tool's error"),
    },
}


def _input(message: content_pb2.Input, path: str, faults: Faults) -> None:
    """Something must be given; an object becomes the JSON text that stands for it."""
    if not (message.text or message.data_json or message.HasField("data") or message.parts):
        faults.invalid(path.rstrip("."), "must have text, data_json or data")
    if not message.HasField("data"):
        return
    if message.data_json:
        faults.invalid(f"{path}data", "must not be given together with data_json")
        return
    try:
        message.data_json = struct_json(message.data)
    except JsonTextError:
        return  # the field's own rule has said so
    message.ClearField("data")


def _agent_limits(message: agent_pb2.AgentLimits, path: str, faults: Faults) -> None:
    if bool(message.max_starts) is not message.HasField("start_interval"):
        faults.invalid(f"{path}start_interval", "must be given together with max_starts, and only then")


def _thread(message: thread_pb2.Thread, path: str, faults: Faults) -> None:
    if message.busy_policy and not (message.session or message.session_key):
        faults.invalid(
            f"{path}busy_policy", "must not be given without a session: give session_key or session too"
        )
    if len(message.client_tools) > CLIENT_TOOLS_MAX:
        faults.invalid(f"{path}client_tools", f"must have at most {CLIENT_TOOLS_MAX} items")
    elif sum(tool.ByteSize() for tool in message.client_tools) > CLIENT_TOOLS_BYTES_MAX:
        faults.too_large(f"{path}client_tools", CLIENT_TOOLS_BYTES_MAX)


def _fork(message: thread_service_pb2.ForkThreadRequest, path: str, faults: Faults) -> None:
    for field, _ in message.thread.ListFields():
        if field.name not in FORK_OVERRIDES:
            faults.invalid(f"{path}thread.{field.name}", "cannot be otherwise in a fork")


def _approval_rule(message: approval_pb2.ApprovalRule, path: str, faults: Faults) -> None:
    if message.approvers_needed:
        return
    if message.exclude_starter:
        faults.invalid(f"{path}exclude_starter", "must not be given where nobody must approve")
    if message.HasField("expire_after"):
        faults.invalid(f"{path}expire_after", "must not be given where nobody must approve")


def _decision(message: approval_service_pb2.DecideApprovalRequest, path: str, faults: Faults) -> None:
    if message.arguments_json and message.result_json:
        faults.invalid(f"{path}result_json", "must not be given together with arguments_json")
    if message.decision == approval_pb2.Approval.APPROVE and not message.arguments_digest:
        faults.invalid(
            f"{path}arguments_digest", "is required to approve: that of the approval that was read"
        )
    if message.decision != approval_pb2.Approval.REJECT:
        return
    for field in ("arguments_json", "result_json"):
        if getattr(message, field):
            faults.invalid(path + field, "is only to approve")


def _watch(message: Any, path: str, faults: Faults) -> None:
    """Of one thread, or with its children: then places are cursors, and pieces of messages are not shown."""
    if message.include_children:
        if message.after_sequence:
            faults.invalid(f"{path}after_sequence", "must not be given together with include_children")
        if message.include_deltas:
            faults.not_supported(f"{path}include_deltas", "streaming deltas of several threads")
    elif getattr(message, "after_cursor", ""):
        faults.invalid(f"{path}after_cursor", "must not be given without include_children")


def _api_key(message: api_key_pb2.ApiKey, path: str, faults: Faults) -> None:
    if message.admin and message.object_patterns:
        faults.invalid(f"{path}object_patterns", "must not be given to an admin, who reaches everything")


def _tool_result(message: thread_service_pb2.SubmitToolResultRequest, path: str, faults: Faults) -> None:
    if message.WhichOneof("result") is None:
        faults.invalid(path.rstrip(".") or "result_json", "must have result_json or error")
    if message.HasField("error") and not message.error.code:
        faults.invalid(f"{path}error.code", "is required, and must not be OK")


def _agent(message: agent_pb2.Agent, path: str, faults: Faults) -> None:
    if sum(document.ByteSize() for document in message.documents) > DOCUMENTS_BYTES_MAX:
        faults.too_large(f"{path}documents", DOCUMENTS_BYTES_MAX)


def _memory(message: memory_pb2.Memory, path: str, faults: Faults) -> None:
    if not message.name:
        faults.invalid(f"{path}name", "is required")


WHOLES: Mapping[str, Whole] = {
    "treadle.v1.Agent": _agent,
    "treadle.v1.Memory": _memory,
    "treadle.v1.Input": _input,
    "treadle.v1.AgentLimits": _agent_limits,
    "treadle.v1.ApprovalRule": _approval_rule,
    "treadle.v1.DecideApprovalRequest": _decision,
    "treadle.v1.ApiKey": _api_key,
    "treadle.v1.Thread": _thread,
    "treadle.v1.ForkThreadRequest": _fork,
    "treadle.v1.WatchThreadRequest": _watch,
    "treadle.v1.ExecuteAgentStreamRequest": _watch,
    "treadle.v1.SubmitToolResultRequest": _tool_result,
}
