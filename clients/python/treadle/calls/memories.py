"""Calls of MemoryService."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from treadle.calls import names
from treadle.calls.call import Pages, Unary, request_id_or_new
from treadle.v1 import memory_service_pb2 as rpc
from treadle.v1.memory_pb2 import Memory

ALL = "-"
"""Stands for all namespaces."""


def get_memory(namespace: str, key: str = "") -> Unary[Memory]:
    """Answers a memory, by namespace and key or by its whole name alone."""
    return Unary(rpc.GetMemoryRequest(name=names.memory(namespace, key)), Memory)


def put_memory(
    namespace: str, key: str = "", *, text: str, etag: str = "", request_id: str = ""
) -> Unary[Memory]:
    """Makes a memory or replaces its text. With etag `0` it must not be there."""
    request = rpc.PutMemoryRequest(
        memory=Memory(name=names.memory(namespace, key), text=text, etag=etag),
        request_id=request_id_or_new(request_id),
    )
    return Unary(request, Memory)


def delete_memory(namespace: str, key: str = "", *, etag: str = "", request_id: str = "") -> Unary[Empty]:
    """Deletes a memory for good."""
    request = rpc.DeleteMemoryRequest(
        name=names.memory(namespace, key), etag=etag, request_id=request_id_or_new(request_id)
    )
    return Unary(request, Empty)


def list_memories(namespace: str = ALL, *, page_size: int = 0) -> Pages[Memory]:
    """Lists the memories of a namespace, or all, newest first."""
    request = rpc.ListMemoriesRequest(parent=names.memory_namespace(namespace), page_size=page_size)
    return Pages(request, rpc.ListMemoriesResponse, lambda page: page.memories)


def search_memories(query: str, namespace: str = ALL, *, page_size: int = 0) -> Pages[Memory]:
    """Finds memories of a namespace, or of all, by words; those that fit best come first."""
    request = rpc.SearchMemoriesRequest(
        parent=names.memory_namespace(namespace), query=query, page_size=page_size
    )
    return Pages(request, rpc.SearchMemoriesResponse, lambda page: page.memories)
