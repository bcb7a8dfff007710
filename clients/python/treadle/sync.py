"""The client that blocks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import grpc
from google.protobuf.message import Message

from treadle.calls import (
    admin,
    agents,
    approvals,
    backups,
    controls,
    memories,
    sessions,
    streams,
    tenants,
    threads,
)
from treadle.calls.call import Pages, Stream, Unary, path_of
from treadle.connection import Connection, options
from treadle.errors import Failure, TreadleError, error_of
from treadle.signatures import as_method

P = ParamSpec("P")
R = TypeVar("R", bound=Message)
T = TypeVar("T")


def answers(call: Callable[P, Unary[R]]) -> Callable[Concatenate[SyncClient, P], R]:
    """A method that makes the call and blocks until its answer is there."""

    def method(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._answer(call(*args, **kwargs))

    return as_method(method, call)


def lists(
    call: Callable[P, Pages[T]],
) -> Callable[Concatenate[SyncClient, P], Generator[T, None, None]]:
    """A method that gives the items of all pages."""

    def method(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return self._items(call(*args, **kwargs))

    return as_method(method, call)


def follows(
    call: Callable[P, Stream[T]],
) -> Callable[Concatenate[SyncClient, P], Generator[T, None, None]]:
    """A method that gives what a stream brings, across disconnects."""

    def method(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return self._follow(call(*args, **kwargs))

    return as_method(method, call)


class SyncClient(Connection[grpc.Channel]):
    """`Client` for programs without an event loop; safe to share between threads.

    The same methods, but they block, and iterators are plain generators. Ctrl-C interrupts any of them.
    """

    create_agent = answers(agents.create_agent)
    get_agent = answers(agents.get_agent)
    list_agents = lists(agents.list_agents)
    update_agent = answers(agents.update_agent)
    delete_agent = answers(agents.delete_agent)
    undelete_agent = answers(agents.undelete_agent)
    get_agent_version = answers(agents.get_agent_version)
    list_agent_versions = lists(agents.list_agent_versions)
    rollback_agent = answers(agents.rollback_agent)

    execute = answers(threads.execute)
    stream = follows(streams.stream)
    create_thread = answers(threads.create_thread)
    watch = follows(streams.watch)
    watch_threads = follows(streams.watch_threads)
    watch_tree = follows(streams.watch_tree)
    get_thread = answers(threads.get_thread)
    list_threads = lists(threads.list_threads)
    list_events = lists(threads.list_events)
    list_iterations = lists(threads.list_iterations)
    update_thread = answers(threads.update_thread)
    delete_thread = answers(threads.delete_thread)

    pause_thread = answers(controls.pause_thread)
    resume_thread = answers(controls.resume_thread)
    cancel_thread = answers(controls.cancel_thread)
    complete_thread = answers(controls.complete_thread)
    send_thread_input = answers(controls.send_thread_input)
    submit_tool_result = answers(controls.submit_tool_result)
    fork_thread = answers(controls.fork_thread)
    retry_thread = answers(controls.retry_thread)

    get_session = answers(sessions.get_session)
    lookup_session = answers(sessions.lookup_session)
    list_sessions = lists(sessions.list_sessions)
    update_session = answers(sessions.update_session)
    delete_session = answers(sessions.delete_session)
    list_session_messages = lists(sessions.list_session_messages)
    watch_session = follows(sessions.watch_session)

    get_memory = answers(memories.get_memory)
    put_memory = answers(memories.put_memory)
    delete_memory = answers(memories.delete_memory)
    list_memories = lists(memories.list_memories)
    search_memories = lists(memories.search_memories)

    get_approval = answers(approvals.get_approval)
    list_approvals = lists(approvals.list_approvals)
    watch_approvals = follows(approvals.watch_approvals)
    decide_approval = answers(approvals.decide_approval)

    list_builtin_tools = lists(admin.list_builtin_tools)
    get_server_info = answers(admin.get_server_info)
    create_api_key = answers(admin.create_api_key)
    get_api_key = answers(admin.get_api_key)
    list_api_keys = lists(admin.list_api_keys)
    update_api_key = answers(admin.update_api_key)
    delete_api_key = answers(admin.delete_api_key)
    create_tenant = answers(tenants.create_tenant)
    get_tenant = answers(tenants.get_tenant)
    list_tenants = lists(tenants.list_tenants)
    update_tenant = answers(tenants.update_tenant)
    create_backup = answers(backups.create_backup)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what is still in flight. The client cannot be used again."""
        for channel in self._channels.close():
            channel.close()

    def _connect(self) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(self.target, options=options())
        return grpc.secure_channel(self.target, self._credentials, options=options())

    def _answer(self, call: Unary[R]) -> R:
        attempts = self._attempts(call.timeout)
        while True:
            try:
                with self._channels.for_stream() if call.lasting else self._channels.for_call() as channel:
                    return self._ask(channel, call, attempts.timeout())
            except grpc.RpcError as failure:
                pause = attempts.delay(self._error_of(failure))
            time.sleep(pause)

    def _ask(self, channel: grpc.Channel, call: Unary[R], seconds: float | None) -> R:
        ask: grpc.UnaryUnaryMultiCallable[Message, R] = channel.unary_unary(
            path_of(call.request.DESCRIPTOR.full_name),
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response.FromString,
        )
        return ask(call.request, timeout=seconds, metadata=self._metadata)

    def _items(self, pages: Pages[T]) -> Generator[T, None, None]:
        while True:
            page = self._answer(Unary(pages.request, pages.response))
            yield from pages.items(page)
            if not page.next_page_token:
                return
            pages.request.page_token = page.next_page_token

    def _follow(self, stream: Stream[T]) -> Generator[T, None, None]:
        attempts = self._attempts(math.inf if stream.timeout is None else stream.timeout)
        follower = stream.follower()
        while True:
            request = follower.request()
            with self._channels.for_stream() as channel:
                call = self._watch(channel, stream, request, attempts.timeout())
                try:
                    for response in call:
                        attempts.progressed()
                        yield from follower.take(response)
                    return
                except grpc.RpcError as failure:
                    error = self._error_of(failure)
                    if not follower.interrupted(error):
                        return
                    pause = attempts.delay(error)
                finally:
                    call.cancel()  # a call that is only dropped stays open at the server
            time.sleep(pause)

    def _watch(
        self, channel: grpc.Channel, stream: Stream[T], request: Message, seconds: float | None
    ) -> Any:
        ask: grpc.UnaryStreamMultiCallable[Message, Message] = channel.unary_stream(
            path_of(request.DESCRIPTOR.full_name),
            request_serializer=type(request).SerializeToString,
            response_deserializer=stream.response.FromString,
        )
        return ask(request, timeout=seconds, metadata=self._metadata)

    def _error_of(self, failure: grpc.RpcError) -> TreadleError:
        # Errors of calls have the methods of calls, which grpc's type does not say.
        error = error_of(cast("Failure", failure))
        if self._channels.closed:
            raise error
        return error
