"""The extensions of a corpus: the user's own parsers, chunker and enrichers, loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ingest_pipeline.chunking.user_chunker import UserChunker
from ingest_pipeline.enrichment.user_enrichers import UserEnricher
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.extensions.loader import Extension, only
from ingest_pipeline.parsing.user_parsers import UserParser, load_parsers, parser_of
from ingest_pipeline.types import Price


@dataclass(frozen=True)
class Extensions:
    """The user's own code that documents pass through."""

    parsers: tuple[UserParser, ...] = ()
    chunker: UserChunker | None = None
    enrichers: tuple[UserEnricher, ...] = ()

    @property
    def chunker_fingerprint(self) -> str | None:
        """Fingerprint of the chunker. None: there is none."""
        return None if self.chunker is None else self.chunker.hook.fingerprint

    @property
    def enricher_fingerprints(self) -> tuple[str, ...]:
        """Fingerprints of the enrichers, in order."""
        return tuple(enricher.hook.fingerprint for enricher in self.enrichers)

    @property
    def parser_fingerprints(self) -> tuple[tuple[str, str], ...]:
        """The fingerprint of the parser of each suffix."""
        found = {suffix: parser.hook.fingerprint for parser in self.parsers for suffix in parser.suffixes}
        return tuple(sorted(found.items()))

    def parser_of(self, document: str) -> UserParser | None:
        """The parser of the user that parses a document, None if there is none."""
        return parser_of(self.parsers, document) if self.parsers else None


NO_EXTENSIONS = Extensions()


@lru_cache(64)
def load_extensions(
    parser: tuple[Extension, ...],
    chunker: tuple[Extension, ...],
    enricher: tuple[Extension, ...],
    prices: tuple[Price, ...] = (),
) -> Extensions:
    """Load the extensions that options name, once in a process.

    Args:
        parser: The user's parsers.
        chunker: The user's chunker.
        enricher: The user's enrichers, in order.
        prices: Prices of enrichers, by dotted path.

    Raises:
        ConfigurationError: One cannot be loaded or does not fit its protocol, or a price is of another class.
    """
    if unknown := [price.model for price in prices if price.model not in {one.path for one in enricher}]:
        raise ConfigurationError(
            f"INGEST_ENRICHER_PRICES has a price of {unknown[0]}, which INGEST_ENRICHER does not name",
            "Write the dotted path of the class as INGEST_ENRICHER has it.",
        )
    cutter = None if (extension := only(chunker)) is None else UserChunker.load(extension)
    return Extensions(load_parsers(parser), cutter, tuple(UserEnricher.load(one, prices) for one in enricher))
