"""The encoding of text that carries no mark: UTF-8, or the one that the settings name for what is not UTF-8."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from ingest_pipeline.errors import ConfigurationError

_ASCII = bytes([9, 10, 13, *range(0x20, 0x7F)])
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_WINDOW_BYTES = 64 << 10


def fallback_encoding(name: str) -> str:
    """The encoding under the one name that Python has for it, if text without a mark can be in it.

    Raises:
        ConfigurationError: It is unknown, or its bytes for ASCII are not those of ASCII.
    """
    try:
        agrees = _ASCII.decode(name) == _ASCII.decode("ascii")
    except (LookupError, UnicodeError):
        agrees = False
    if not agrees:
        raise ConfigurationError(
            f"The encoding {name!r} is not one that text which is not UTF-8 can be in",
            "Name one that extends ASCII, such as cp1252, latin-1, shift_jis or gb18030.",
        )
    return codecs.lookup(name).name


def with_encoding(blocks: Iterable[bytes], fallback: str | None) -> Iterator[tuple[bytes, str]]:
    """Blocks of text, each with its encoding: up to the first byte beyond ASCII it does not matter, then it is decided.

    The text is UTF-8 if the 64 KB from that byte on are. So the encoding follows from the bytes, however they are
    divided into blocks, and no more than this window and a block is held in memory.

    Args:
        blocks: The bytes of the text, in order.
        fallback: The encoding if it is not UTF-8. None: it has to be.
    """
    source = iter(blocks)
    for block in source:
        found = None if fallback is None else _BEYOND_ASCII.search(block)
        if fallback is None or found is None:
            yield block, "utf-8"
            continue
        yield block[: found.start()], "utf-8"
        window = bytearray(block[found.start() :])
        while len(window) < _WINDOW_BYTES and (more := next(source, None)) is not None:
            window += more
        encoding = "utf-8" if _is_utf8(bytes(window)) else fallback
        yield bytes(window), encoding
        yield from ((rest, encoding) for rest in source)


def encoding_of(text: bytes, fallback: str | None) -> str:
    """The encoding of a text that is there as a whole; arguments as of `with_encoding`."""
    *_, (_, encoding) = with_encoding([text], fallback)
    return encoding


def _is_utf8(window: bytes) -> bool:
    """Whether the first 64 KB are UTF-8; their last character may be cut off, if more follows."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(window[:_WINDOW_BYTES], final=len(window) < _WINDOW_BYTES)
    except UnicodeDecodeError:
        return False
    return True
