"""What a model is sent for a chunk, and how much of it the model takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ingest_pipeline.chunking.tokenizer import IN_BYTES, Tokenizer, token_bound
from ingest_pipeline.types import GREATEST_HEADER

_RESERVED: Final = 16
"""Tokens for the special tokens that a model adds, and for a prompt that its server adds."""
_HEADER_SHARE: Final = 4
"""A header takes up to a quarter of the room, so that most of it is left for the text."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """Everything that the model is sent with the text of a chunk, and its limit on all of it."""

    tokenizer: Tokenizer = IN_BYTES
    max_tokens: int | None = None
    """The model's limit on one input. None: it is not known, and nothing is split because of it."""
    prefix: str = ""
    """The document prefix of the model."""
    heading_context: bool = False
    """Whether the headings above a chunk are embedded with it."""

    @property
    def room(self) -> int | None:
        """Tokens for the header and the text, None if there is no limit."""
        return None if self.max_tokens is None else self.max_tokens - _RESERVED - token_bound(self.prefix)

    def header(self, heading: str | None) -> str | None:
        """What is embedded before a text with these headings, shortened if it would leave too little room for it."""
        if heading is None or not self.heading_context:
            return None
        return _header(self, heading)

    def fits(self, embedded_text: str) -> bool:
        """Whether the model takes a header and a text, with the prefix before them."""
        most = self.max_tokens
        return most is None or self.tokenizer.fits(self.prefix + embedded_text, most - _RESERVED)


@lru_cache(16)  # the chunks of a section, one after another, have the same headings
def _header(given: ModelInput, heading: str) -> str:
    header = heading[:GREATEST_HEADER]
    if given.room is not None:
        while len(header) > 1 and not given.tokenizer.fits(header, given.room // _HEADER_SHARE):
            header = header[: len(header) * 3 // 4]
    return header
