"""Listening addresses."""

from __future__ import annotations

import socket


def open_socket(host: str, port: int) -> socket.socket:
    """A listening address: who connects now waits to be served. Port 0 picks a free one.

    Raises `OSError`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1_024)
    except OSError:
        listener.close()
        raise
    return listener
