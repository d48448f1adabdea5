"""Limits on what a document, a run and a day may embed: a hostile file or a wrong setting must not spend a fortune."""

from __future__ import annotations

from dataclasses import dataclass

from ingest_pipeline.errors import ConfigurationError

# Of what bytes alone say: that a chunk is shorter than an eighth of its greatest size is not seen in real text.
_LEAST_FILL = 8


@dataclass(frozen=True, slots=True)
class SpendingLimits:
    """None is no limit. The limits on tokens are of models that are paid for; the local one costs nothing."""

    chunks_per_document: int | None = 50_000
    """Some 35 MB of text at 1,000 characters to a chunk."""
    tokens_per_run: int | None = 100_000_000
    """Some 400 MB of text."""
    tokens_per_day: int | None = 500_000_000
    """Of a corpus, all of its runs together. Days are those of UTC."""

    @classmethod
    def of(cls, chunks_per_document: int, tokens_per_run: int, tokens_per_day: int) -> SpendingLimits:
        """From settings, in which 0 is no limit.

        Raises:
            ConfigurationError: One is negative.
        """
        given = (chunks_per_document, tokens_per_run, tokens_per_day)
        if min(given) < 0:
            raise ConfigurationError(
                f"A limit on chunks or tokens is {min(given)}", "Set it to a whole number; 0 is no limit."
            )
        return cls(chunks_per_document or None, tokens_per_run or None, tokens_per_day or None)

    def may_exceed_chunks(self, characters: int, step: int) -> bool:
        """Whether so many characters could make more chunks than a document may have.

        Args:
            characters: At most.
            step: Characters of a chunk that it does not repeat, at most.
        """
        return self.chunks_per_document is not None and characters > self.chunks_per_document * step // _LEAST_FILL


DEFAULT_LIMITS = SpendingLimits()
NO_LIMITS = SpendingLimits(None, None, None)
