"""Texts as Postgres can store them."""

from __future__ import annotations


def sanitize_text(text: str) -> str:
    """Escape what Postgres cannot store in a text: NUL characters and lone surrogates."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
