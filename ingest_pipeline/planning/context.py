"""What a corpus is ingested with: its source, its recipe, its partitions and its limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.partitioning import FILE, PartitionScheme
from ingest_pipeline.sources.filters import EVERYTHING, Selection
from ingest_pipeline.sources.local import OnExcluded, ignore_excluded
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.spending_limits import NO_LIMITS, SpendingLimits
from ingest_pipeline.types import Price, Recipe, SourceObject


@dataclass(frozen=True, slots=True)
class IngestContext:
    """What preparing needs besides the saga."""

    corpus: Corpus
    source: ObjectSource
    chunker: Chunker
    recipe: Recipe
    scheme: PartitionScheme = FILE
    selection: Selection = EVERYTHING
    price: Price | None = None
    """Of the recipe's embedding model, if it is configured."""
    limits: SpendingLimits = NO_LIMITS
    """On chunks of a document and on tokens."""
    min_age_seconds: int = 0
    """A file that is empty and was modified so little time ago is left as it is: it may still be written."""

    def listed(self, keys: Sequence[str]) -> list[SourceObject]:
        """Those of the documents that the source holds now and the settings do not leave out, by key."""
        named = [key for key in keys if self.selection.name_exclusion_reason(key) is None]
        return [found for found in self.source.stat_all(named) if self.selection.exclusion_reason(found) is None]

    def objects(
        self, after: str = "", folder: str = "", on_excluded: OnExcluded = ignore_excluded
    ) -> Iterator[SourceObject]:
        """What the source holds; of a local one, without looking into folders that the settings leave out.

        Args:
            after: Only keys behind this one.
            folder: Only what lies below this folder.
            on_excluded: Takes note of what is not listed, by name and reason.
        """
        return self.source.list(after, folder, self.selection.name_exclusion_reason, on_excluded)
