"""Decompression with a limit, for what strangers send."""

from __future__ import annotations

import zlib

from permaflow.errors import UnreachableError


class Inflater:
    """Undoes gzip and deflate and never makes more than `limit` bytes and one."""

    def __init__(self, limit: int) -> None:
        self._room = limit + 1
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._fed = False

    @property
    def complete(self) -> bool:
        return self._stream.eof or not self._fed

    def feed(self, data: bytes) -> bytes:
        made: list[bytes] = []
        while data and self._room > 0:
            if self._stream.eof:  # a further member of a gzip file
                self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
            part = self._inflate(data)
            self._fed = True
            self._room -= len(part)
            made.append(part)
            data = self._stream.unused_data
        return b"".join(made)

    def _inflate(self, data: bytes) -> bytes:
        try:
            return self._stream.decompress(data, self._room)
        except zlib.error as error:
            if self._fed:
                raise UnreachableError("The compressed answer is damaged.") from error
        # Some servers send deflate without the wrapper that the standard asks for.
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            return self._stream.decompress(data, self._room)
        except zlib.error as error:
            raise UnreachableError("The compressed answer is damaged.") from error
