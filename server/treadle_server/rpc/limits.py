"""The limits of every message that a request can hold: one entry a message, one rule a field.

What has no entry has the rule of its kind: texts to 1,024 characters, numbers and durations not negative.
"""

import re
from collections.abc import Mapping

from treadle.v1 import agent_pb2, content_pb2, thread_pb2, thread_service_pb2
from treadle_server.core.json_text import JsonTextError
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
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1_000

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
    "include_children": Unsupported("watching child threads"),
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
        "subagents": Unsupported("calling other agents"),
        "documents": Unsupported("giving documents"),
        "input_schema_json": JsonText(64 * KIB),
        "output_schema_json": JsonText(64 * KIB),
        "suggestions_enabled": Unsupported("suggesting what to say"),
        "approval_policy": Unsupported("asking people to approve calls"),
        "on_unknown_outcome": OneOf(
            {_Agent.TELL_MODEL: "TELL_MODEL", _Agent.FAIL: "FAIL"}, "asking people about unknown outcomes"
        ),
        "evaluation_config": Unsupported("judging threads"),
    },
    "treadle.v1.ModelSettings": {
        "temperature": Number(0, 2),
        "top_p": Number(0, 1, more_than_least=True),
        "max_output_tokens": Number(1),
        "stop_sequences": Items(16, Text(chars=255)),
        "fallback_models": Unsupported("falling back to other models"),
    },
    "treadle.v1.AgentLimits": {
        "max_cost_micros": Unsupported("limiting cost"),
        "timeout": Span(zero=False),
        "max_lifetime": Span(zero=False),
        "max_starts": Unsupported("limiting the start rate"),
        "start_interval": Unsupported("limiting the start rate"),
    },
    "treadle.v1.ApiKey": {
        "principal": Text(chars=255, pattern=_PRINTABLE, shape="1 to 255 printable characters"),
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
        "parent_object": Unsupported("access by object"),
        "context": Unsupported("giving context"),
        "client_metadata": Object(CLIENT_METADATA_BYTES_MAX),
        "tags": Items(50, Text(chars=63), unique=True),
        "busy_policy": OneOf({_Thread.ENQUEUE: "ENQUEUE"}, "a busy_policy other than ENQUEUE"),
        "client_tools": Unsupported("running tools by the caller"),
        "webhook_targets": Unsupported("sending webhooks"),
        "event_source_targets": Unsupported("collecting events in event sources"),
    },
    "treadle.v1.WatchThreadRequest": {"after_cursor": Unsupported("watching child threads")},
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


def _thread(message: thread_pb2.Thread, path: str, faults: Faults) -> None:
    if message.busy_policy and not (message.session or message.session_key):
        faults.invalid(f"{path}busy_policy", "must not be given without a session")


def _tool_result(message: thread_service_pb2.SubmitToolResultRequest, path: str, faults: Faults) -> None:
    if message.WhichOneof("result") is None:
        faults.invalid(path.rstrip(".") or "result_json", "must have result_json or error")


WHOLES: Mapping[str, Whole] = {
    "treadle.v1.Input": _input,
    "treadle.v1.Thread": _thread,
    "treadle.v1.SubmitToolResultRequest": _tool_result,
}
