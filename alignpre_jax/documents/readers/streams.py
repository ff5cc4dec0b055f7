"""Streams give the bytes and lines of a file, decompressed on the way, in bounded memory."""

from __future__ import annotations

import contextlib
import functools
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from etils import epath

from alignpre_jax.foundation import UserError

_PIECE = 1 << 16  # bytes of a compressed file read at once
_ZSTD_PIECE = 1 << 9  # 4 bytes may stand for a block of 128 KiB, so the output is at most 16 MiB at once
_ZSTD_WINDOW = 1 << 31  # what `zstd --ultra --long=31` needs, as some public corpora do


class UnreadableError(OSError):
    """An `UnreadableError` says why the rest of a file is left out."""


@contextlib.contextmanager
def open_stream(path: str) -> Iterator[BinaryIO]:
    """Opens a local or remote file for reading; .gz and .zst files are decompressed.

    Reading raises `OSError` for a file that cannot be read, is damaged or ends too early. The checksums of gzip and
    zstd come last, so that damage may show only after lines that it has changed.
    """
    with epath.Path(path).open("rb") as file:
        if path.endswith(".gz"):
            yield io.BufferedReader(_Decompressed(file, _Gzip, padding=b"\0"), _PIECE)
        elif path.endswith(".zst"):
            yield io.BufferedReader(_Decompressed(file, _zstd_codecs(path)), _PIECE)
        else:
            yield file


def read_lines(stream: BinaryIO, max_bytes: int) -> Iterator[bytes | None]:
    r"""Yields the lines of a stream with their "\n"; None for a line of more than `max_bytes`, which is never held."""
    read_line = functools.partial(stream.readline, max_bytes + 1)
    for line in iter(read_line, b""):
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = read_line()
        yield None


class _Gzip:
    """This is zlib's decompressor of one gzip member, with bounded output."""

    error: type[Exception] = zlib.error

    def __init__(self) -> None:
        self._codec = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    @property
    def at_end(self) -> bool:
        """Whether the member is complete and its checksum right."""
        return self._codec.eof

    def decompress(self, data: bytes) -> tuple[bytes, bytes]:
        """Returns some output, and the input that is still to be given."""
        output = self._codec.decompress(data, 16 * _PIECE)
        return output, self._codec.unused_data if self._codec.eof else self._codec.unconsumed_tail


class _Zstd:
    """This is zstandard's decompressor of one frame; its output is bounded only by feeding it little by little."""

    def __init__(self, codec: Any, error: type[Exception]):
        self._codec, self.error = codec, error

    @property
    def at_end(self) -> bool:
        """Whether the frame is complete and its checksum, if it has one, right."""
        return self._codec.eof

    def decompress(self, data: bytes) -> tuple[bytes, bytes]:
        """Returns some output, and the input that is still to be given."""
        output = self._codec.decompress(data[:_ZSTD_PIECE])
        left = data[_ZSTD_PIECE:]
        return output, self._codec.unused_data + bytes(left) if self._codec.eof else left


def _zstd_codecs(path: str) -> Callable[[], _Zstd]:
    try:
        import zstandard
    except ImportError:
        raise UserError("reading .zst files needs zstandard", where=path, fix="pip install zstandard") from None
    codec = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    return lambda: _Zstd(codec.decompressobj(), zstandard.ZstdError)


class _Decompressed(io.RawIOBase):
    """This stream concatenates the contents of all members (gzip) or frames (zstd) of a file.

    The readers that come with zstandard and zlib either take the end of a truncated file for its proper end, or lose
    what they had read before the damage.
    """

    def __init__(self, file: BinaryIO, make_codec: Callable[[], _Gzip | _Zstd], padding: bytes = b""):
        self._file, self._make_codec, self._padding = file, make_codec, padding
        self._codec: _Gzip | _Zstd | None = None
        self._is_new = True
        self._input: Any = b""  # a view, so that what is left of a piece is not copied each time
        self._output: Any = b""

    def readable(self) -> bool:
        """Returns True, as `io` asks of a stream that can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills some of `buffer` and returns the number of bytes; 0 at the end."""
        while not self._output:
            self._input = self._input or memoryview(self._file.read(_PIECE))
            if self._codec is None:
                if not self._input and not self._is_new:
                    return 0
                if not self._input:
                    raise UnreadableError("the file is empty, which a compressed file never is")
                if self._padding:
                    self._input = bytes(self._input).lstrip(self._padding)
                if self._input:
                    self._codec, self._is_new = self._make_codec(), False
                continue
            if not self._input:
                raise UnreadableError("the compressed data ends too early")
            try:
                output, self._input = self._codec.decompress(self._input)
            except self._codec.error as error:
                raise UnreadableError(f"the compressed data is damaged: {error}") from error
            self._output = memoryview(output)
            if self._codec.at_end:
                self._codec = None
        size = min(len(buffer), len(self._output))
        buffer[:size], self._output = self._output[:size], self._output[size:]
        return size
