"""Listening addresses."""

from __future__ import annotations

import socket

from permaflow.errors import ServerError


def open_socket(host: str, port: int, setting: str = "a setting") -> socket.socket:
    """A listening address: who connects now waits to be served. Port 0 picks a free one.

    Raises `ServerError`, which names `setting` as what to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1_024)
    except OSError as error:
        listener.close()
        raise ServerError(
            f"Port {port} of {host} cannot be used: {error.strerror}. Stop what listens there, or "
            f"choose another with {setting}; 0 picks one."
        ) from error
    return listener
