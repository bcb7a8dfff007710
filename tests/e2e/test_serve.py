"""`treadle serve` as an operator meets it: settings, signals, files, keys and TLS."""

import json
import os
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from treadle.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    server_info_pb2,
    thread_service_pb2,
    thread_service_pb2_grpc,
)

_admin: Any = admin_service_pb2
_agents: Any = agent_service_pb2
_threads: Any = thread_service_pb2
TREADLE = Path(sys.executable).with_name("treadle")
SECONDS = 30.0
LOOPBACK = ("--listen", "127.0.0.1:0")
FENCED = 75


class Served:
    """`treadle serve` in a folder of its own, with a clean environment."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        self.log = folder / "serve.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TREADLE_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [TREADLE, "serve", *options],
                cwd=folder,
                env={**clean, **environment},
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.address = ""

    def listening(self) -> "Served":
        """Returns once it serves."""
        assert self.process.stdout is not None
        said, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        match = (
            re.fullmatch(rb"listening on (\S+:[1-9]\d*)\n", self.process.stdout.readline()) if said else None
        )
        assert match is not None, self.log.read_text()
        self.address = match[1].decode()
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def refused(self) -> str:
        """What a server says that does not start."""
        output, _ = self.process.communicate(timeout=SECONDS)
        assert output == b""
        text = self.log.read_text()
        assert "Traceback" not in text
        return text

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Calls:
    """Stubs over one channel, untyped."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.admin: Any = admin_service_pb2_grpc.AdminServiceStub(channel)
        self.agents: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        self.threads: Any = thread_service_pb2_grpc.ThreadServiceStub(channel)

    def info(self, metadata: Any = ()) -> Any:
        request = _admin.GetServerInfoRequest()
        return self.admin.GetServerInfo(request, metadata=metadata, timeout=SECONDS)

    def run(self, metadata: Any = ()) -> Any:
        """An agent's answer."""
        agent = {"model": 'scripted:{"turns":[{"text":"Done."}]}'}
        made = self.agents.CreateAgent(
            _agents.CreateAgentRequest(agent=agent), metadata=metadata, timeout=SECONDS
        )
        request = _threads.ExecuteAgentRequest(thread={"agent": made.name, "input": {"text": "Go."}})
        return self.threads.ExecuteAgent(request, metadata=metadata, timeout=SECONDS)

    def __enter__(self) -> "Calls":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def calls(server: Served, credentials: grpc.ChannelCredentials | None = None) -> Calls:
    if credentials is None:
        return Calls(grpc.insecure_channel(server.address))
    return Calls(grpc.secure_channel(server.address, credentials))


def code_of(call: Any) -> grpc.StatusCode:
    """The status that a call must fail with."""
    try:
        answer = call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    raise AssertionError(f"the call succeeded: {answer}")


def treadle(server: Served, *arguments: str, **environment: str) -> str:
    """What a command of the client prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TREADLE_")}
    done = subprocess.run(
        [TREADLE, "--target", server.address, *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is entered here ends with the test."""
    with ExitStack() as entered:
        yield entered


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_free_port_is_taken_and_printed_and_a_signal_ends_the_server_well(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Served(tmp_path, *LOOPBACK) as server:
        with calls(server.listening()) as caller:
            assert caller.run().output.text == "Done."

        assert server.end(number) == 0

    assert (tmp_path / "treadle.db").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "treadle.db-wal").exists()


def test_settings_come_from_options_the_environment_and_a_file_in_this_order(
    tmp_path: Path, stack: ExitStack
) -> None:
    (tmp_path / "treadle.toml").write_text(
        'listen = "127.0.0.1:0"\ndb = "file.db"\ndurability = "relaxed"\n'
        "running_threads_max = 11\nstreams_max = 12\nlog_format = 'json'\n"
    )

    server = stack.enter_context(
        Served(
            tmp_path,
            *("--config", "treadle.toml", "--db", "option.db"),
            TREADLE_DB="environment.db",
            TREADLE_STREAMS_MAX="13",
            TREADLE_LOG_LEVEL="debug",
        )
    )
    info = stack.enter_context(calls(server.listening())).info()

    assert (info.limits.running_threads_max, info.limits.streams_max) == (11, 13)
    assert info.durability == server_info_pb2.ServerInfo.RELAXED
    assert server.end() == 0
    assert (tmp_path / "option.db").exists()
    assert not (tmp_path / "environment.db").exists()
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert {"durability_relaxed", "call_answered", "stopping"} <= {line["event"] for line in lines}


def test_the_file_can_be_named_in_the_environment(tmp_path: Path, stack: ExitStack) -> None:
    (tmp_path / "treadle.toml").write_text('listen = "127.0.0.1:0"\ndurability = "relaxed"\n')
    environment = {"TREADLE_CONFIG": "treadle.toml", "TREADLE_DURABILITY": "full"}

    server = stack.enter_context(Served(tmp_path, **environment))

    info = stack.enter_context(calls(server.listening())).info()
    assert info.durability == server_info_pb2.ServerInfo.FULL


@pytest.mark.parametrize(
    ("options", "environment", "named"),
    [
        (("--listen", "127.0.0.1"), {}, "listen: '127.0.0.1' is not HOST:PORT"),
        (("--listen", "127.0.0.1:70000"), {}, "listen: "),
        ((), {"TREADLE_LISTEN": "::1:0"}, "listen: "),
        (("--listen", "0.0.0.0:0"), {}, "give tls_cert and tls_key, or insecure_no_tls"),
        (("--listen", "0.0.0.0:0", "--insecure-no-tls"), {}, "give require_keys, or insecure_no_keys"),
        (("--durability", "half"), {}, "durability: "),
        ((), {"TREADLE_STREAMS_MAX": "many"}, "streams_max: "),
        ((), {"TREADLE_TENANT_PENDING_THREADS_MAX": "0"}, "tenant_pending_threads_max: "),
        ((), {"TREADLE_TAKE_OVER": "perhaps"}, "take_over: "),
        (("--tls-cert", "none.pem", "--tls-key", "none.pem"), {}, "tls_cert: there is no file none.pem"),
        (("--tls-cert", "faulty.toml"), {}, "tls_cert and tls_key go together"),
        (("--config", "none.toml"), {}, "config: there is no file none.toml"),
        ((), {"TREADLE_CONFIG": "none.toml"}, "config: there is no file none.toml"),
        (("--config", "faulty.toml"), {}, "config: faulty.toml is not TOML"),
        (("--config", "unknown.toml"), {}, "lissten: there is no such setting; did you mean listen?"),
        (
            (),
            {"TREADLE_DRAIN_SECOND": "3"},
            "TREADLE_DRAIN_SECOND: there is no such setting; did you mean TREADLE_DRAIN_SECONDS?",
        ),
        ((), {"TREADLE_QQQQ": "3"}, "TREADLE_QQQQ: there is no such setting\n"),
        ((), {"TREADLE_PORTS": "3"}, "TREADLE_PORTS: there is no such setting"),
    ],
)
def test_a_faulty_setting_is_named_and_nothing_is_begun(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str], named: str
) -> None:
    (tmp_path / "faulty.toml").write_text("listen = here\n")
    (tmp_path / "unknown.toml").write_text('lissten = "127.0.0.1:0"\n')

    with Served(tmp_path, *options, **environment) as server:
        said = server.refused()

    assert server.process.returncode == 2
    assert said.startswith("treadle serve: ")
    assert named in said
    assert said.count("\n") == 1
    assert not (tmp_path / "treadle.db").exists()


def test_variables_that_are_no_settings_of_its_own_do_not_keep_a_server_from_starting(
    tmp_path: Path, stack: ExitStack
) -> None:
    others = {
        "TREADLE_TARGET": "127.0.0.1:1",
        "TREADLE_API_KEY": "k",
        "TREADLE_FAILPOINTS": "",
        "TREADLE_SOAK_MINUTES": "1",
        "TREADLE_SERVICE_HOST": "10.0.0.1",
        "TREADLE_SERVICE_PORT": "50051",
        "TREADLE_SERVICE_PORT_GRPC": "50051",
        "TREADLE_PORT": "tcp://10.0.0.1:50051",
        "TREADLE_PORT_50051_TCP_ADDR": "10.0.0.1",
        "treadle_log_level": "debug",
    }

    server = stack.enter_context(Served(tmp_path, *LOOPBACK, **others)).listening()

    assert stack.enter_context(calls(server)).info().version
    assert server.end() == 0
    assert "call_answered" in server.log.read_text()


def test_a_second_server_is_refused_and_told_by_whom(tmp_path: Path, stack: ExitStack) -> None:
    first = stack.enter_context(Served(tmp_path, *LOOPBACK)).listening()
    (tmp_path / "second").mkdir()

    second = stack.enter_context(Served(tmp_path / "second", *LOOPBACK, "--db", "../treadle.db"))

    assert f"treadle.db is served by process {first.process.pid}" in second.refused()
    assert second.process.returncode == 1
    assert stack.enter_context(calls(first)).run().output.text == "Done."


def test_an_address_in_use_is_named_and_the_file_let_go(tmp_path: Path, stack: ExitStack) -> None:
    taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    address = f"127.0.0.1:{taken.getsockname()[1]}"

    refused = stack.enter_context(Served(tmp_path, "--listen", address))

    assert f"treadle serve: cannot listen on {address}" in refused.refused()
    assert refused.process.returncode == 1
    assert stack.enter_context(Served(tmp_path, *LOOPBACK)).listening().end() == 0


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (value)")
    connection.close()


def _newer(path: Path) -> None:
    with Served(path.parent, *LOOPBACK) as server:
        assert server.listening().end() == 0
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET schema = 999")
    connection.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), "cannot be opened"),
        (_foreign, "is a database of another program"),
        (_newer, "was written by a newer release"),
        (lambda path: path.mkdir(), "cannot be opened"),
    ],
    ids=["no database", "of another program", "of a newer release", "a folder"],
)
def test_a_file_that_cannot_be_served_is_refused_and_left_alone(tmp_path: Path, make: Any, said: str) -> None:
    path = tmp_path / "treadle.db"
    make(path)
    before = _content(path)
    (tmp_path / "again").mkdir()

    with Served(tmp_path / "again", *LOOPBACK, "--db", str(path)) as server:
        text = server.refused()

    assert server.process.returncode == 1
    assert f"{path} {said}" in text
    assert _content(path) == before


def _content(path: Path) -> bytes:
    """All but the header, in which SQLite counts who opened the file."""
    return path.read_bytes()[100:] if path.is_file() else b""


def test_a_file_of_which_the_middle_is_damaged_is_not_served_as_if_nothing_were(
    tmp_path: Path, stack: ExitStack
) -> None:
    server = stack.enter_context(Served(tmp_path, *LOOPBACK))
    with calls(server.listening()) as caller:
        for _ in range(5):
            caller.run()
    assert server.end() == 0
    path = tmp_path / "treadle.db"
    data = bytearray(path.read_bytes())
    data[8192:-8192] = b"\xff" * (len(data) - 2 * 8192)
    path.write_bytes(data)

    again = stack.enter_context(Served(tmp_path, *LOOPBACK))

    again.refused()
    assert again.process.returncode == 1
    assert "treadle serve: " in again.log.read_text()


def test_a_frozen_server_is_replaced_and_ends_when_it_thaws(tmp_path: Path, stack: ExitStack) -> None:
    frozen = stack.enter_context(Served(tmp_path, *LOOPBACK)).listening()
    old = stack.enter_context(calls(frozen))
    assert old.run().success
    frozen.process.send_signal(signal.SIGSTOP)
    (tmp_path / "second").mkdir()

    second = stack.enter_context(
        Served(tmp_path / "second", *LOOPBACK, "--db", "../treadle.db", "--take-over")
    )
    new = stack.enter_context(calls(second.listening()))
    assert new.run().success
    assert new.info().epoch == 2

    frozen.process.send_signal(signal.SIGCONT)
    assert code_of(old.run) is grpc.StatusCode.UNAVAILABLE
    assert frozen.process.wait(SECONDS) == FENCED
    assert "another server has taken the file over" in frozen.log.read_text()
    assert new.run().success
    assert second.end() == 0


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("TLS IS NOT TESTED: there is no openssl to make a certificate with")
    cert, key = folder / "cert.pem", folder / "key.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    command = [openssl, "req", "-x509", *kind, *names, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    return cert, key


def test_the_first_key_is_made_without_keys_and_opens_the_server_by_tls(
    tmp_path: Path, stack: ExitStack
) -> None:
    cert, key = certificate(tmp_path)
    with Served(tmp_path, *LOOPBACK) as open_server:
        open_server.listening()
        secret = treadle(open_server, "keys", "create", "--tenant", "acme", "--principal", "svc")
        assert open_server.end() == 0
    tls = ("--tls-cert", str(cert), "--tls-key", str(key), "--require-keys")

    server = stack.enter_context(Served(tmp_path, *LOOPBACK, *tls)).listening()
    trusted = grpc.ssl_channel_credentials(cert.read_bytes())
    caller = stack.enter_context(calls(server, trusted))
    bearer = (("authorization", f"Bearer {secret}"),)

    assert code_of(caller.info) is grpc.StatusCode.UNAUTHENTICATED
    assert code_of(caller.run) is grpc.StatusCode.UNAUTHENTICATED
    assert code_of(lambda: caller.info((("authorization", "Bearer x"),))) is grpc.StatusCode.UNAUTHENTICATED
    ran = caller.run(bearer)
    assert (ran.success, ran.trigger.triggered_by) == (True, "svc")
    shown = treadle(server, "--ca-file", str(cert), "threads", "list", "--json", TREADLE_API_KEY=secret)
    assert json.loads(shown)["name"] == ran.name
    for unfit in (calls(server), calls(server, grpc.ssl_channel_credentials())):
        with unfit:
            assert code_of(unfit.info) is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("no certificate")

    with Served(tmp_path, *LOOPBACK, "--tls-cert", "cert.pem", "--tls-key", "key.pem") as server:
        text = server.refused()

    assert server.process.returncode == 1
    assert "treadle serve: cannot listen on 127.0.0.1:0" in text


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_secret_is_in_the_log_or_in_the_file(tmp_path: Path, stack: ExitStack, log_format: str) -> None:
    options = ("--log-level", "debug", "--log-format", log_format)
    environment = {"GEMINI_API_KEY": "the-providers-secret"}
    server = stack.enter_context(Served(tmp_path, *LOOPBACK, *options, **environment)).listening()
    secrets = [treadle(server, "keys", "create", "--principal", f"svc-{n}") for n in range(2)]
    caller = stack.enter_context(calls(server))

    for secret in secrets:
        bearer = (("authorization", f"Bearer {secret}"),)
        assert caller.run(bearer).success
        forged = (("authorization", f"Bearer {secret[:-1]}"),)
        assert code_of(lambda forged=forged: caller.info(forged)) is grpc.StatusCode.UNAUTHENTICATED
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    written = b"".join(path.read_bytes() for path in files)
    assert server.end() == 0
    written += b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())

    log = server.log.read_text()
    assert "CreateApiKey" in log
    assert "svc-1" in log
    for random_part in (*(secret.split("_", 2)[2][:-1] for secret in secrets), "the-providers-secret"):
        assert random_part.encode() not in written
        assert random_part not in log
