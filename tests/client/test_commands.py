"""The command line as a process of its own, against a server that does what the test lined up."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.rpc import error_details_pb2

from tests.client.runs import THREAD, calculation, created, ended, numbered
from tests.client.server import Act, Server, answers, hangs, log_of, refuses
from tests.client.test_view import CALCULATION
from treadle import Agent, AgentVersion, ApiKey, Approval, Input, Tenant, Thread, Usage
from treadle.commands.agents import tools_of
from treadle.v1.admin_service_pb2 import ListApiKeysResponse, ListTenantsResponse
from treadle.v1.agent_service_pb2 import ListAgentsResponse, ListAgentVersionsResponse
from treadle.v1.approval_service_pb2 import ListApprovalsResponse, WatchApprovalsResponse
from treadle.v1.event_pb2 import QuestionAsked, StateChanged, ThreadEvent
from treadle.v1.thread_pb2 import WaitingFor
from treadle.v1.thread_service_pb2 import ListThreadsResponse, WatchThreadResponse

RUN = WatchThreadResponse(events=calculation())
CREATED = answers(Thread(name=THREAD, state=Thread.PENDING))
COMPLETED = Thread(name=THREAD, agent="agents/helper", state=Thread.COMPLETED, stop_reason=Thread.FINISHED)
COMPLETED.output.text = "It is 4."
COMPLETED.end_time.GetCurrentTime()


class Listening(Protocol):
    """What has an address to connect to."""

    @property
    def address(self) -> str: ...


@dataclass(frozen=True)
class Finished:
    code: int | None
    out: str
    err: str


@asynccontextmanager
async def treadle(
    server: Listening, *arguments: str, path: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command line as a process, which is gone afterwards."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TREADLE_")}
    environment["TREADLE_TARGET"] = server.address
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), environment.get("PYTHONPATH", "")])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "treadle", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def finished(server: Listening, *arguments: str, given: str = "", path: Path | None = None) -> Finished:
    async with treadle(server, *arguments, path=path) as process, asyncio.timeout(30):
        out, err = await process.communicate(given.encode())
    return Finished(process.returncode, out.decode(), err.decode())


async def test_run_prints_the_answer_and_nothing_else(server: Server) -> None:
    server.play(CREATED, answers(RUN), answers(COMPLETED))

    ran = await finished(server, "run", "helper", "What is 2+2?", "--session-key", "user-7")

    assert (ran.code, ran.out, ran.err) == (0, "It is 4.\n", "")
    thread = server.asked[0].request.thread
    assert (thread.agent, thread.input.text) == ("agents/helper", "What is 2+2?")
    assert thread.session_key == "user-7"


async def test_run_reads_its_input_from_a_pipe(server: Server) -> None:
    server.play(CREATED, answers(RUN), answers(COMPLETED))

    await finished(server, "run", "helper", "-", "--data", "[1]", given="a long text")

    assert server.asked[0].request.thread.input == Input(text="a long text", data_json="[1]")


async def test_a_run_without_an_answer_says_why_and_fails(server: Server) -> None:
    failed = Thread(name=THREAD, state=Thread.FAILED, stop_reason=Thread.MODEL_ERROR)
    failed.error.message = "quota"
    failed.end_time.GetCurrentTime()
    end = ended(Thread.FAILED, Thread.MODEL_ERROR)
    server.play(CREATED, answers(WatchThreadResponse(events=numbered(end))), answers(failed))

    ran = await finished(server, "run", "helper", "x")

    assert (ran.code, ran.out, ran.err) == (1, "", "threads/t1 is FAILED MODEL_ERROR: quota\n")


async def test_a_run_that_waits_for_people_says_how_to_follow_it(server: Server) -> None:
    waits = ThreadEvent(state_changed=StateChanged(to=Thread.WAITING_APPROVAL))
    waiting = Thread(name=THREAD, state=Thread.WAITING_APPROVAL)
    server.play(CREATED, hangs(WatchThreadResponse(events=numbered(waits))), answers(waiting))

    ran = await finished(server, "run", "helper", "x")

    assert ran.code == 1
    assert ran.err == (
        "threads/t1 is WAITING_APPROVAL; decide it with treadle approvals; "
        "threads/t1 goes on: treadle watch threads/t1\n"
    )


async def test_a_run_shows_a_question_and_how_to_answer_it(server: Server) -> None:
    asked = QuestionAsked(
        question="How many?", tool_call_id="call-1-1", answer_schema_json='{"type":"integer"}'
    )
    events = numbered(
        ThreadEvent(question_asked=asked),
        ThreadEvent(state_changed=StateChanged(to=Thread.WAITING_INPUT)),
    )
    waiting = Thread(name=THREAD, state=Thread.WAITING_INPUT)
    server.play(CREATED, hangs(WatchThreadResponse(events=events)), answers(waiting))

    ran = await finished(server, "run", "helper", "x")

    assert ran.code == 1
    assert ran.err.startswith(
        "the agent asks: How many?\n"
        "(answer with treadle threads send threads/t1 --answers call-1-1 "
        '--data \'JSON that fits {"type":"integer"}\')\n'
        "threads/t1 is WAITING_INPUT"
    )


async def test_a_run_that_was_handed_to_a_thread_waits_only_for_what_comes(server: Server) -> None:
    server.play(
        answers(Thread(name=THREAD, state=Thread.RUNNING, last_sequence=9)), answers(RUN), answers(COMPLETED)
    )

    ran = await finished(server, "run", "helper", "x", "--session-key", "k", "--busy-policy", "steer")

    assert (ran.code, ran.out) == (0, "It is 4.\n")
    assert server.asked[0].request.thread.busy_policy == Thread.STEER
    assert server.asked[1].request.after_sequence == 9


async def test_run_can_print_the_thread_as_json(server: Server) -> None:
    server.play(CREATED, answers(RUN), answers(COMPLETED))

    ran = await finished(server, "run", "helper", "x", "--json")

    assert json.loads(ran.out)["output"] == {"text": "It is 4."}
    assert server.asked[2].request.view == Thread.FULL


async def test_run_shows_iterations_as_they_come(server: Server) -> None:
    server.play(answers(RUN))

    ran = await finished(server, "run", "helper", "What is 2+2?", "--watch")

    assert (ran.code, ran.out) == (0, CALCULATION)
    assert server.asked[0].request.include_deltas


async def test_a_watched_run_that_fails_fails(server: Server) -> None:
    end = ended(Thread.TIMED_OUT, Thread.DEADLINE)
    server.play(answers(WatchThreadResponse(events=numbered(end))))

    ran = await finished(server, "run", "helper", "x", "--watch")

    assert ran.code == 1
    assert "TIMED_OUT (DEADLINE)" in ran.out


async def test_watch_prints_events_as_json_lines(server: Server) -> None:
    server.play(answers(RUN))

    ran = await finished(server, "watch", "t1", "--after", "3", "--json")

    assert [json.loads(line)["sequence"] for line in ran.out.splitlines()] == [
        str(number) for number in range(4, 15)
    ]
    assert (server.asked[0].request.name, server.asked[0].request.after_sequence) == ("threads/t1", 3)


@pytest.mark.parametrize("command", [("watch", "t1"), ("run", "helper", "x", "--watch")], ids=" ".join)
async def test_ctrl_c_detaches_and_says_how_to_go_on(server: Server, command: tuple[str, ...]) -> None:
    server.play(hangs(WatchThreadResponse(events=calculation()[:4])))

    async with treadle(server, *command) as process, asyncio.timeout(30):
        assert process.stdout is not None
        while await process.stdout.readline() != b"Iteration 1\n":
            pass
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert process.returncode == 130
    # An event that was being shown when Ctrl-C came is shown again rather than lost.
    said = re.fullmatch(
        r"detached; threads/t1 goes on: treadle watch threads/t1 --after ([34])\n", err.decode()
    )
    assert said is not None
    assert [asked.method for asked in server.asked] in (["WatchThread"], ["ExecuteAgentStream"])


async def test_ctrl_c_leaves_a_tree_with_the_cursor_of_what_was_shown(server: Server) -> None:
    started = numbered(created(), ThreadEvent(state_changed=StateChanged(to=Thread.RUNNING)))
    child = log_of(3, "threads/c")
    batches = [
        WatchThreadResponse(events=started, cursor="c1"),
        WatchThreadResponse(events=child[:1], cursor="c2"),
        WatchThreadResponse(events=child[1:2], cursor="c3"),
    ]
    server.play(hangs(*batches))

    async with treadle(server, "watch", "t1", "--children") as process, asyncio.timeout(30):
        assert process.stdout is not None
        while await process.stdout.readline() != b"Iteration 2\n":
            pass
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert process.returncode == 130
    assert re.fullmatch(
        r"detached; threads/t1 goes on: treadle watch threads/t1 --children --after-cursor c[23]\n",
        err.decode(),
    )


async def test_the_end_of_the_watched_thread_decides_whether_its_watch_fails(server: Server) -> None:
    failed = ended(Thread.FAILED, Thread.MODEL_ERROR)
    child = WatchThreadResponse(events=log_of(2, "threads/c"), cursor="c1")
    server.play(answers(WatchThreadResponse(events=numbered(failed), cursor="c0"), child))

    ran = await finished(server, "watch", "t1", "--children")

    assert ran.code == 1


async def test_ctrl_c_while_an_answer_is_waited_for_names_the_thread(server: Server) -> None:
    server.play(CREATED, hangs())

    async with treadle(server, "run", "helper", "x") as process, asyncio.timeout(30):
        await server.arrived(2)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert process.returncode == 130
    assert err.decode() == "detached; threads/t1 goes on: treadle watch threads/t1\n"


async def test_an_error_is_one_line_with_what_is_wrong(server: Server) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="agent.model", description="no such model")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    server.play(refuses(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", details=[bad]))

    ran = await finished(server, "agents", "create", "--model", "x:y")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == ("treadle: INVALID_ARGUMENT / FIELD_INVALID: not now - agent.model: no such model\n")


async def test_a_server_that_is_not_there_is_named(server: Server) -> None:
    await server.stop()

    ran = await finished(server, "threads")

    assert ran.code == 1
    assert ran.err.startswith("treadle: UNAVAILABLE: ")
    assert ran.err.endswith(f"({server.address})\n")
    assert ran.err.count("\n") == 1


async def test_a_key_for_another_machine_wants_tls(server: Server) -> None:
    ran = await finished(server, "--target", "10.255.255.1:1", "--api-key", "secret", "threads")

    assert ran.code == 2
    said = " ".join(ran.err.replace("│", " ").split())
    assert "unencrypted: give --tls, or --insecure" in said
    assert "secret" not in said


async def test_a_broken_watch_says_where_to_go_on(server: Server) -> None:
    some = WatchThreadResponse(events=calculation()[:4])
    server.play(refuses(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING", after=[some]))

    ran = await finished(server, "watch", "t1")

    assert ran.code == 1
    assert "the stream broke off; threads/t1 goes on: treadle watch threads/t1 --after 4" in ran.err
    assert "PERMISSION_DENIED / SCOPE_MISSING" in ran.err


async def test_a_watch_that_meets_damage_promises_nothing_more(server: Server) -> None:
    some = WatchThreadResponse(events=calculation()[:4])
    server.play(refuses(grpc.StatusCode.DATA_LOSS, "RECORD_CORRUPT", after=[some]))

    ran = await finished(server, "watch", "t1")

    assert ran.code == 1
    assert ran.err == "treadle: DATA_LOSS / RECORD_CORRUPT: not now\n"


@pytest.mark.parametrize("command", [("threads",), ("threads", "list")], ids=" ".join)
async def test_threads_are_listed_with_tabs_on_a_pipe(server: Server, command: tuple[str, ...]) -> None:
    thread = Thread(name=THREAD, agent="agents/a", state=Thread.RUNNING, input=Input(text="one\ntwo\tthree"))
    thread.usage.CopyFrom(Usage(total_tokens=17))
    thread.create_time.FromSeconds(1_700_000_000)
    server.play(answers(ListThreadsResponse(threads=[thread, thread], next_page_token="more")))

    ran = await finished(server, *command, "--filter", "state = RUNNING", "--limit", "1")

    row = [THREAD, "RUNNING", "agents/a", "2023-11-14T22:13:20", "17", "cost unknown", "one two three"]
    assert ran.out == "\t".join(row) + "\n"
    assert (server.asked[0].request.filter, server.asked[0].request.page_size) == ("state = RUNNING", 1)


async def test_a_thread_is_shown_cancelled_and_deleted(server: Server) -> None:
    server.play(answers(COMPLETED), answers(Thread(name=THREAD, state=Thread.CANCELLED)), answers(Empty()))

    shown = await finished(server, "threads", "get", "t1")
    cancelled = await finished(server, "threads", "cancel", "t1", "--reason", "enough", "--grace", "2")
    deleted = await finished(server, "threads", "delete", "t1", "--force")

    assert json.loads(shown.out)["state"] == "COMPLETED"
    assert cancelled.out == "threads/t1 is CANCELLED\n"
    assert (deleted.code, deleted.out) == (0, "")
    get, cancel, delete = (asked.request for asked in server.asked)
    assert (get.name, get.view) == ("threads/t1", Thread.FULL)
    assert (cancel.reason, cancel.grace.seconds) == ("enough", 2)
    assert delete.force


def _standing(state: Thread.State.ValueType, **fields: Any) -> Act:
    return answers(Thread(name=THREAD, state=state, **fields))


async def test_a_thread_is_paused_told_something_resumed_and_completed(server: Server) -> None:
    asks = WaitingFor(kind=WaitingFor.INPUT, resource="call-1-1")
    server.play(
        _standing(Thread.RUNNING, pending_command=Thread.PAUSE),
        _standing(Thread.PAUSED),
        _standing(Thread.WAITING_INPUT, waiting_for=[asks]),
        _standing(Thread.RUNNING),
        _standing(Thread.FAILED),
    )

    ran = [
        await finished(server, "threads", *arguments)
        for arguments in (
            ("pause", "t1", "--reason", "lunch"),
            ("send", "t1", "be quick"),
            ("resume", "t1"),
            ("send", "t1", "--answers", "call-1-1", "--data", "7"),
            ("complete", "t1", "--state", "failed", "--output", "by hand", "--reason", "broken"),
        )
    ]

    assert [each.out for each in ran] == [
        "threads/t1 is RUNNING, PAUSE pending\n",
        "threads/t1 is PAUSED\n",
        "threads/t1 is WAITING_INPUT, waits for INPUT call-1-1\n",
        "threads/t1 is RUNNING\n",
        "threads/t1 is FAILED\n",
    ]
    pause, steer, _, answer, complete = (asked.request for asked in server.asked)
    assert (pause.name, pause.reason) == ("threads/t1", "lunch")
    assert (steer.input, steer.tool_call_id) == (Input(text="be quick"), "")
    assert (answer.input, answer.tool_call_id) == (Input(data_json="7"), "call-1-1")
    assert (complete.state, complete.output.text, complete.reason) == (Thread.FAILED, "by hand", "broken")
    assert all(asked.request.request_id for asked in server.asked)


async def test_a_thread_is_forked_and_retried(server: Server) -> None:
    server.play(_standing(Thread.PENDING), _standing(Thread.COMPLETED), _standing(Thread.PENDING))
    version, model = "agents/helper/versions/2", "scripted:{}"
    options = ("--at", "7", "--agent-version", version, "--model", model, "--tag", "x", "--tag", "y")

    ran = [
        await finished(server, "threads", *arguments)
        for arguments in (
            ("fork", "t9", "Sure?", *options, "--id", "t1"),
            ("fork", "t9"),
            ("retry", "threads/t9", "--id", "t1"),
        )
    ]

    assert [each.out for each in ran] == [
        "threads/t1 is PENDING\n",
        "threads/t1 is COMPLETED\n",
        "threads/t1 is PENDING\n",
    ]
    fork, plain, retry = (asked.request for asked in server.asked)
    assert (fork.name, fork.sequence, fork.model, fork.thread_id) == ("threads/t9", 7, model, "t1")
    assert fork.thread == Thread(agent_version=version, input=Input(text="Sure?"), tags=["x", "y"])
    assert (plain.name, plain.sequence, plain.HasField("thread")) == ("threads/t9", 0, False)
    assert (retry.name, retry.thread_id) == ("threads/t9", "t1")
    assert all(asked.request.request_id for asked in server.asked)


async def test_an_agent_is_made_with_tools_of_its_groups(server: Server) -> None:
    server.play(answers(Agent(name="agents/helper", version=1)))

    made = await finished(
        server,
        *("agents", "create", "--id", "helper", "--model", "demo:react", "--instructions", "Be brief."),
        *("--tools", "builtin/calculator, builtin/notes", "--tools", "toolGroups/g"),
    )

    assert (made.code, made.out) == (0, "agents/helper\n")
    request = server.asked[0].request
    assert request.agent_id == "helper"
    assert request.agent == Agent(
        model="demo:react",
        instructions="Be brief.",
        tool_groups=["toolGroups/g", "toolGroups/builtin"],
        enabled_tools=["builtin/calculator", "builtin/notes"],
    )


def test_a_whole_group_of_tools_is_not_narrowed_down() -> None:
    assert tools_of(["builtin"]) == (["toolGroups/builtin"], [])
    assert tools_of([""]) == ([], [])
    assert tools_of(["toolServers/s/tools/t"]) == ([], ["toolServers/s/tools/t"])


async def test_agents_are_listed_changed_and_rolled_back(server: Server) -> None:
    agent = Agent(name="agents/a", version=2, model="demo:react", display_name="A")
    version = AgentVersion(name="agents/a/versions/1", snapshot=agent)
    version.create_time.FromSeconds(1_700_000_000)
    server.play(
        answers(ListAgentsResponse(agents=[agent])),
        answers(agent),
        answers(ListAgentVersionsResponse(agent_versions=[version])),
        answers(Agent(name="agents/a", version=3)),
    )

    listed = await finished(server, "agents", "list")
    updated = await finished(server, "agents", "update", "a", "--tools", "", "--disable")
    versions = await finished(server, "agents", "versions", "a")
    rolled_back = await finished(server, "agents", "rollback", "a", "1")

    assert listed.out == "agents/a\t2\tdemo:react\tA\n"
    assert updated.out == "agents/a/versions/2\n"
    assert set(server.asked[1].request.update_mask.paths) == {"tool_groups", "enabled_tools", "disabled"}
    assert versions.out == "agents/a/versions/1\t2023-11-14T22:13:20\tdemo:react\t\n"
    assert rolled_back.out == "agents/a/versions/3\n"


async def test_an_update_of_nothing_is_refused_without_asking(server: Server) -> None:
    ran = await finished(server, "agents", "update", "a")

    assert ran.code == 2
    assert server.asked == []


async def test_a_new_keys_secret_is_all_that_goes_to_the_output(server: Server) -> None:
    key = ApiKey(name="tenants/acme/apiKeys/k", secret="shown-once", admin=True)
    server.play(answers(key), answers(ListApiKeysResponse(api_keys=[key])))

    made = await finished(
        server, "--tenant", "acme", "keys", "create", "--principal", "ann", "--admin", "--id", "k"
    )
    listed = await finished(server, "keys", "list", "--tenant", "acme")

    assert (made.code, made.out, made.err) == (0, "shown-once\n", "made tenants/acme/apiKeys/k\n")
    request = server.asked[0].request
    assert (request.parent, request.api_key_id) == ("tenants/acme", "k")
    assert request.api_key == ApiKey(principal="ann", admin=True)
    assert listed.out == "tenants/acme/apiKeys/k\t\tadmin\tnever\n"
    assert server.asked[1].request.parent == "tenants/acme"


async def test_a_secret_that_was_lost_on_its_way_is_an_error(server: Server) -> None:
    server.play(refuses(grpc.StatusCode.UNAVAILABLE), answers(ApiKey(name="tenants/default/apiKeys/k")))

    ran = await finished(server, "keys", "create")

    assert (ran.code, ran.out) == (1, "")
    assert "delete the key and make another" in ran.err


async def test_a_key_is_deleted_by_its_id(server: Server) -> None:
    server.play(answers(Empty()))

    ran = await finished(server, "keys", "delete", "k")

    assert ran.code == 0
    assert server.asked[0].request.name == "tenants/default/apiKeys/k"


def plugin(folder: Path, source: str) -> Path:
    """An installed distribution with a command of its own."""
    information = folder / "demonstration-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: demonstration\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[treadle.commands]\nplugged = demonstration:plugged\n")
    (folder / "demonstration.py").write_text(source)
    return folder


async def test_commands_of_other_distributions_are_found(server: Server, tmp_path: Path) -> None:
    source = "def plugged(times: int = 1) -> None:\n    print('plugged in' * times)\n"
    found = plugin(tmp_path, source)

    ran = await finished(server, "plugged", "--times", "2", path=found)
    helped = await finished(server, "--help", path=found)

    assert (ran.code, ran.out) == (0, "plugged inplugged in\n")
    assert "plugged" in helped.out


async def test_a_command_whose_packages_are_missing_says_what_to_install(
    server: Server, tmp_path: Path
) -> None:
    found = plugin(tmp_path, "import package_that_is_not_there\n")

    ran = await finished(server, "plugged", path=found)
    helped = await finished(server, "--help", path=found)

    assert ran.code == 1
    assert "extra `server`" in ran.err
    assert "package_that_is_not_there" in ran.err
    assert helped.code == 0


async def test_the_help_needs_no_server_and_no_grpc(server: Server) -> None:
    code = "import sys, treadle, treadle.cli; sys.exit('grpc' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)

    assert await process.wait() == 0


async def test_tenants_are_made_changed_and_listed(server: Server) -> None:
    acme = Tenant(name="tenants/acme", display_name="Acme")
    acme.thread_retention.FromSeconds(36 * 3_600)
    page = ListTenantsResponse(tenants=[acme, Tenant(name="tenants/default")])
    server.play(answers(acme), answers(acme), answers(acme), answers(acme), answers(page))

    made = await finished(server, "tenants", "create", "acme", "--thread-retention-days", "1.5")
    shown = await finished(server, "tenants", "get", "acme")
    await finished(server, "tenants", "update", "acme", "--display-name", "Acme")
    await finished(server, "tenants", "update", "acme", "--clear-thread-retention")
    listed = await finished(server, "tenants", "list")

    assert (made.code, made.out) == (0, "tenants/acme\n")
    assert json.loads(shown.out)["threadRetention"] == "129600s"
    assert listed.out == "tenants/acme\t1.5 days\tAcme\ntenants/default\tas the server says\t\n"
    requests = [asked.request for asked in server.asked]
    assert (requests[0].tenant_id, requests[0].tenant.thread_retention.seconds) == ("acme", 129_600)
    assert requests[1].name == "tenants/acme"
    assert list(requests[2].update_mask.paths) == ["display_name"]
    assert list(requests[3].update_mask.paths) == ["thread_retention"]


async def test_a_retention_is_given_or_cleared_and_a_span_of_time(server: Server) -> None:
    both = ("--thread-retention-days", "1", "--clear-thread-retention")

    for options in (both, ("--thread-retention-days", "nan"), ("--thread-retention-days", "1e300")):
        refused = await finished(server, "tenants", "update", "acme", *options)
        assert (refused.code, "Traceback" in refused.err) == (2, False)
    assert server.asked == []


WAITS = Approval(
    name="threads/t1/approvals/a1",
    kind=Approval.TOOL_CALL,
    state=Approval.PENDING,
    tool="pay",
    arguments_json='{"eur":5}',
    arguments_digest="sha256:1",
    approvers_needed=2,
)


def settled(state: Approval.State.ValueType) -> Approval:
    approval = Approval(approvers_needed=2, decisions=[Approval.Vote(principal="ann")])
    approval.MergeFrom(Approval(name=WAITS.name, state=state))
    return approval


async def test_what_waits_for_people_is_listed(server: Server) -> None:
    server.play(*[answers(ListApprovalsResponse(approvals=[WAITS]))] * 2)

    listed = await finished(server, "approvals")
    all_of_one = await finished(server, "approvals", "list", "--all", "--thread", "t1", "--json")

    assert (
        listed.out == "\t".join([WAITS.name, "PENDING", "TOOL_CALL", "-", "0 of 2", 'pay {"eur":5}']) + "\n"
    )
    assert json.loads(all_of_one.out)["tool"] == "pay"
    inbox, whole = (asked.request for asked in server.asked)
    assert (inbox.parent, inbox.filter) == ("threads/-", "state = PENDING")
    assert (whole.parent, whole.filter) == ("threads/t1", "")


async def test_a_call_is_shown_before_it_is_approved(server: Server) -> None:
    server.play(answers(WAITS), answers(settled(Approval.PENDING)))

    ran = await finished(server, "approvals", "approve", WAITS.name, "--message", "ok", given="y\n")

    assert 'pay {"eur":5}' in ran.err
    assert ran.out == "threads/t1/approvals/a1 is PENDING, 1 of 2 approved\n"
    decided = server.asked[1].request
    assert (decided.decision, decided.arguments_digest, decided.message) == (
        Approval.APPROVE,
        "sha256:1",
        "ok",
    )


async def test_nothing_is_approved_without_a_yes(server: Server) -> None:
    server.play(answers(WAITS))

    ran = await finished(server, "approvals", "approve", WAITS.name, given="\n")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith(f"left as it is; --digest {WAITS.arguments_digest} approves it unasked\n")
    assert [asked.method for asked in server.asked] == ["GetApproval"]


async def test_arguments_that_were_seen_are_approved_by_their_digest(server: Server) -> None:
    server.play(answers(settled(Approval.APPROVED)), answers(settled(Approval.REJECTED)))

    approved = await finished(
        server, "approvals", "approve", WAITS.name, "--digest", "sha256:1", "--arguments", '{"eur": 4}'
    )
    rejected = await finished(server, "approvals", "reject", WAITS.name, "--message", "too dear")

    assert (approved.code, approved.out) == (0, "threads/t1/approvals/a1 is APPROVED\n")
    assert rejected.out == "threads/t1/approvals/a1 is REJECTED\n"
    first, second = (asked.request for asked in server.asked)
    assert (first.arguments_digest, first.arguments_json) == ("sha256:1", '{"eur": 4}')
    assert (second.decision, second.message) == (Approval.REJECT, "too dear")


async def test_arguments_that_are_no_json_are_not_sent(server: Server) -> None:
    ran = await finished(server, "approvals", "approve", WAITS.name, "--digest", "x", "--arguments", "{")

    assert ran.code == 2
    assert server.asked == []


async def test_a_live_inbox_asks_about_each_as_it_comes(server: Server) -> None:
    refused = refuses(grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_ALREADY_DECIDED")
    other = Approval()
    other.MergeFrom(WAITS)
    other.name = "threads/t2/approvals/a1"
    batch = WatchApprovalsResponse(approvals=[WAITS, WAITS, other, settled(Approval.APPROVED)], cursor="c1")
    end = refuses(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING", after=[batch])
    server.play(end, answers(settled(Approval.APPROVED)), refused)

    ran = await finished(server, "approvals", "watch", "--decide", given="a\nr\ntoo dear\n")

    assert ran.code == 1
    assert ran.out.count('pay {"eur":5}') == 2
    assert "threads/t1/approvals/a1 is APPROVED" in ran.out
    assert "APPROVAL_ALREADY_DECIDED" in ran.err
    _, approve, reject = (asked.request for asked in server.asked)
    assert (approve.decision, approve.name, approve.arguments_digest) == (
        Approval.APPROVE,
        WAITS.name,
        "sha256:1",
    )
    assert (reject.decision, reject.name, reject.message) == (Approval.REJECT, other.name, "too dear")


async def test_an_agent_is_made_whose_calls_wait_for_people(server: Server) -> None:
    server.play(answers(Agent(name="agents/a", version=1)))

    await finished(server, "agents", "create", "--model", "demo:react", "--approve", "pay*, send")

    rules = server.asked[0].request.agent.approval_policy.rules
    assert [(rule.tool_pattern, rule.approvers_needed) for rule in rules] == [("pay*", 1), ("send", 1)]
