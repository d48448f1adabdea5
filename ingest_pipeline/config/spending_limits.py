"""Limits on what a document, a run and a day may embed, so that a hostile file or a wrong setting costs little."""

from __future__ import annotations

from dataclasses import dataclass

from ingest_pipeline.errors import ConfigurationError

# An estimate by bytes assumes that chunks have at least an eighth of their maximum size, as those of real text do.
_LEAST_FILL = 8


@dataclass(frozen=True, slots=True)
class SpendingLimits:
    """The limits; None is no limit. Limits on tokens apply to models that are billed. The local model is not."""

    chunks_per_document: int | None = 50_000
    """About 35 MB of text in chunks of 1,000 characters."""
    tokens_per_run: int | None = 100_000_000
    """About 400 MB of text."""
    tokens_per_day: int | None = 500_000_000
    """All runs of a corpus together. Days begin at midnight UTC."""

    @classmethod
    def of(cls, chunks_per_document: int, tokens_per_run: int, tokens_per_day: int) -> SpendingLimits:
        """The limits of settings, in which 0 means no limit.

        Raises:
            ConfigurationError: One is negative.
        """
        given = (chunks_per_document, tokens_per_run, tokens_per_day)
        if min(given) < 0:
            raise ConfigurationError(
                f"A limit on chunks or tokens is {min(given)}", "Set it to a whole number; 0 means no limit."
            )
        return cls(chunks_per_document or None, tokens_per_run or None, tokens_per_day or None)

    def may_exceed_chunks(self, characters: int, step: int) -> bool:
        """Whether so many characters could make more chunks than a document may have.

        Args:
            characters: Number of characters at most.
            step: Characters by which a chunk advances: its size without the overlap.
        """
        return self.chunks_per_document is not None and characters > self.chunks_per_document * step // _LEAST_FILL


DEFAULT_LIMITS = SpendingLimits()
NO_LIMITS = SpendingLimits(None, None, None)
