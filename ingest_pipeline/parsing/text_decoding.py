"""Detects the encoding of text without a byte order mark: UTF-8, or the configured encoding for other text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from ingest_pipeline.errors import ConfigurationError

_ASCII = bytes([9, 10, 13, *range(0x20, 0x7F)])
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_WINDOW_BYTES = 64 << 10


def fallback_encoding(name: str) -> str:
    """Check the encoding that is configured for text that is not UTF-8, and return Python's name for it.

    Raises:
        ConfigurationError: The encoding is unknown, or does not extend ASCII.
    """
    try:
        agrees = _ASCII.decode(name) == _ASCII.decode("ascii")
    except (LookupError, UnicodeError):
        agrees = False
    if not agrees:
        raise ConfigurationError(
            f"The encoding {name!r} is unknown or does not extend ASCII",
            "Use one such as cp1252, latin-1, shift_jis or gb18030.",
        )
    return codecs.lookup(name).name


def with_encoding(blocks: Iterable[bytes], fallback: str | None) -> Iterator[tuple[bytes, str]]:
    """Blocks of text, each with its encoding. The encoding is decided at the first byte that is not ASCII.

    The text is UTF-8 if the 64 KB from that byte on are valid UTF-8. So the encoding depends on the bytes and not on
    how they are divided into blocks, and only this window and one block are in memory.

    Args:
        blocks: The bytes of the text, in order.
        fallback: The encoding of text that is not UTF-8. None: all text must be UTF-8.
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
    """The encoding of a complete text. Arguments as for `with_encoding`."""
    *_, (_, encoding) = with_encoding([text], fallback)
    return encoding


def _is_utf8(window: bytes) -> bool:
    """Whether the first 64 KB are UTF-8. If more follows, the last character may be incomplete."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(window[:_WINDOW_BYTES], final=len(window) < _WINDOW_BYTES)
    except UnicodeDecodeError:
        return False
    return True
