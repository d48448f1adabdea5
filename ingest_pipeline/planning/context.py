"""The ingest context: the source, recipe, partition scheme and limits of a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.columns.declaration import NO_COLUMNS, Columns
from ingest_pipeline.columns.sources import SIDECAR_SUFFIX, is_sidecar, sidecar_of
from ingest_pipeline.config.options.gates import GateSettings
from ingest_pipeline.config.spending_limits import NO_LIMITS, SpendingLimits
from ingest_pipeline.config.user_extensions import NO_EXTENSIONS, Extensions
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.partitioning import FILE, PartitionScheme
from ingest_pipeline.sources.filters import EVERYTHING, Selection
from ingest_pipeline.sources.local import ignore_excluded
from ingest_pipeline.sources.local_listing import OnExcluded
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.sources.sidecars import paired
from ingest_pipeline.types import Price, Recipe, SourceObject


@dataclass(frozen=True, slots=True)
class IngestContext:
    """Everything that an ingest needs: the corpus, its source and its settings."""

    corpus: Corpus
    source: ObjectSource
    chunker: Chunker
    recipe: Recipe
    scheme: PartitionScheme = FILE
    selection: Selection = EVERYTHING
    price: Price | None = None
    """Price of the recipe's embedding model, if it is configured."""
    embeds_for_free: bool = False
    """Whether the recipe's embedder bills nothing, so that limits on tokens do not apply to it."""
    limits: SpendingLimits = NO_LIMITS
    """Limits on chunks per document and on tokens."""
    extensions: Extensions = NO_EXTENSIONS
    """The user's own parsers, chunker and enrichers."""
    min_age_seconds: int = 0
    """An empty file that was modified more recently than this is skipped, because it may still be written to."""

    columns: Columns = NO_COLUMNS
    """The columns of the documents. With columns, sidecars are no documents."""
    gates: GateSettings | None = None
    """What a publication must pass before readers see it."""

    def listed(self, keys: Sequence[str]) -> list[SourceObject]:
        """The objects of these keys that are in the source and not excluded by the settings, by key."""
        named = [key for key in keys if self._name_exclusion_reason(key) is None]
        if not self.columns:
            return self._included(self.source.stat_all(named))
        documents = [key for key in named if not is_sidecar(key)]
        found = self.source.stat_all([*documents, *map(sidecar_of, documents)])
        return self._included(map(self._tagged, paired(found, self.source.stat)))

    def objects(
        self, after: str = "", folder: str = "", on_excluded: OnExcluded = ignore_excluded
    ) -> Iterator[SourceObject]:
        """The objects of the source. Excluded folders of a local source are not entered.

        Args:
            after: Only keys after this one.
            folder: Only keys below this folder.
            on_excluded: Called with the name and reason of what is not listed.
        """
        listed = self.source.list(after, folder, self._name_exclusion_reason, on_excluded)
        return map(self._tagged, paired(listed, self.source.stat)) if self.columns else listed

    def _name_exclusion_reason(self, key: str) -> str | None:
        """As of the selection. A sidecar is excluded with its document."""
        is_beside = bool(self.columns) and is_sidecar(key)
        return self.selection.name_exclusion_reason(key.removesuffix(SIDECAR_SUFFIX) if is_beside else key)

    def _included(self, found: Iterable[SourceObject]) -> list[SourceObject]:
        return [obj for obj in found if self.selection.exclusion_reason(obj) is None]

    def _tagged(self, obj: SourceObject) -> SourceObject:
        modified = obj.last_modified if self.source.has_metadata else None
        return replace(obj, column_tag=self.columns.tag(obj.sidecar.etag if obj.sidecar else None, modified))
