"""Connections that say nothing, stop reading, stay half open, or are too many."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc

from tests.abuse import wire
from tests.abuse.guard import Guard
from tests.abuse.observed import MIB, Witness, faults_in, open_files
from tests.abuse.wire import END_HEADERS, HEADERS, PREFACE, Wire
from tests.server_process import ServerProcess
from tests.waiting import until
from treadle.v1 import admin_service_pb2, admin_service_pb2_grpc

WATCH_THREADS = "/treadle.v1.ThreadService/WatchThreads"
CREATE_AGENT = "/treadle.v1.AgentService/CreateAgent"
HANDSHAKE_SECONDS = 10.0
REQUEST_SECONDS = 20.0


def test_those_for_whom_the_server_waits_are_let_go_in_time(guard: Guard) -> None:
    """All at one time: each of them waits for a limit of time to be over."""
    scenes = (_say_nothing, _answer_neither_settings_nor_pings, _send_no_request)
    with ThreadPoolExecutor() as threads:
        for scene in [threads.submit(scene, guard.address) for scene in scenes]:
            scene.result()


def _say_nothing(address: str) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(Wire(address, greet=False)) for _ in range(400)]
        for half in silent[::2]:
            half.send(PREFACE[:10])

        deadline = time.monotonic() + 2 * HANDSHAKE_SECONDS
        for connection in silent:
            connection.frames(deadline - time.monotonic())
        assert all(connection.ended for connection in silent)


def _answer_neither_settings_nor_pings(address: str) -> None:
    with Wire(address, polite=False) as connection:
        connection.frames(2 * HANDSHAKE_SECONDS)
        assert connection.ended


def _send_no_request(address: str) -> None:
    with Wire(address) as connection:
        for stream in range(1, 401, 2):
            connection.send(_headers(stream, wire.GET_SERVER_INFO if stream % 4 == 1 else WATCH_THREADS))

        assert connection.status(399, REQUEST_SECONDS + 10) == "grpc 3"


def _headers(stream: int, path: str) -> bytes:
    """A call without its request."""
    return wire.frame(HEADERS, wire.request_fields(path), flags=END_HEADERS, stream=stream)


def test_calls_whose_request_never_comes_lock_nobody_out(guard: Guard) -> None:
    guard.growth_bytes_max = 192 * MIB
    with ExitStack() as stack:
        crowd = [stack.enter_context(Wire(guard.address)) for _ in range(3)]
        for connection in crowd:
            connection.send(b"".join(_headers(n, wire.GET_SERVER_INFO) for n in range(1, 2_000, 2)))

        until(lambda: any(one.status(1, 0.1) == "grpc 8" for one in crowd), what="the oldest gave way")
        guard.during(guard.witness.create_agent)


def test_calls_whose_request_never_comes_leave_with_their_connection(guard: Guard) -> None:
    def flood() -> None:
        for _ in range(5):
            with Wire(guard.address) as connection:
                for stream in range(1, 2_000, 2):
                    connection.send(_headers(stream, WATCH_THREADS))

    guard.during(flood)


def test_readers_without_a_window_cost_little(guard: Guard) -> None:
    """They ask for answers and allow not one byte of them."""
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(Wire(guard.address, greet=False))
            connection.send(PREFACE + wire.settings(_4=0) + wire.frame(wire.SETTINGS, flags=wire.ACK))
            connection.send(b"".join(wire.call(stream) for stream in range(1, 400, 2)))
            connection.send(b"".join(wire.call(stream, path=WATCH_THREADS) for stream in range(401, 420, 2)))
        until(lambda: guard.witness.ask().statistics.stream_count == 200, what="the streams are open")

        guard.during(lambda: None)


def test_connections_that_come_and_go_leave_nothing(guard: Guard) -> None:
    def storm() -> None:
        for number in range(1_500):
            with Wire(guard.address, greet=bool(number % 2)) as connection:
                if number % 3 == 0:
                    connection.send(wire.call(1))
                if number % 5 == 0:  # closes with RST instead of FIN
                    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    guard.during(storm)


def test_a_crowd_of_connections_is_served(guard: Guard) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(Wire(guard.address)) for _ in range(700)]
        for connection in crowd:
            connection.send(wire.call(1))

        assert {connection.status(1) for connection in crowd} == {"grpc 0"}


def test_connections_beyond_the_limit_of_files_are_closed_and_the_others_served(tmp_path: Path) -> None:
    process = ServerProcess(
        tmp_path / "treadle.db", module="tests.abuse.few_files", environment={"FILES_MAX": "128"}
    )
    with process as server:
        witness = Witness(server.start().address)
        witness.ask()
        with ExitStack() as stack:
            crowd = [stack.enter_context(Wire(server.address)) for _ in range(300)]
            until(lambda: open_files(server.pid) >= 64, what="half of its files are used")

            witness.ask_while(lambda: False)
            _changes_something(witness)
            assert open_files(server.pid) < 120
            crowd[-1].send(wire.call(1))
            assert crowd[-1].status(1) == "closed"

        until(lambda: open_files(server.pid) < 60, what="the files are closed")
        _is_served(server)
        witness.close()
        assert server.running
        assert faults_in(server.log_path) == []
        assert server.log_path.stat().st_size < 64 * 1024


def _changes_something(witness: Witness) -> None:
    """What it needs that was not open yet, it can still open."""
    before = witness.ask().statistics.commit_count
    witness.create_agent()
    assert witness.ask().statistics.commit_count > before


def _is_served(server: ServerProcess) -> None:
    deadline = time.monotonic() + 30
    with grpc.insecure_channel(server.address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        stub = admin_service_pb2_grpc.AdminServiceStub(channel)
        left = deadline - time.monotonic()
        assert stub.GetServerInfo(admin_service_pb2.GetServerInfoRequest(), timeout=left, wait_for_ready=True)
