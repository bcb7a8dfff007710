"""Whether the server can listen where it was told to, asked before it changes anything."""

import os
import socket


class AddressUnusable(Exception):  # noqa: N818 - the text says what to do about it
    """The server cannot listen where it was told to, and why."""


def check_free(listen: str) -> None:
    """Raises AddressUnusable when another process has the port of HOST:PORT.

    A server that takes a file over must be able to serve it: one that is frozen keeps its port.
    """
    host, _, port = listen.rpartition(":")
    if port == "0":
        return
    try:
        found = socket.getaddrinfo(
            host.removeprefix("[").removesuffix("]"), int(port), type=socket.SOCK_STREAM
        )
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise AddressUnusable(f"cannot listen on {listen}: {why}") from error
