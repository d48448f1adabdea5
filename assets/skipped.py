"""Documents that a run skips without failing, and how it reports them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import dagster as dg

from ingest_pipeline.assets.tables import table
from ingest_pipeline.ingestion.outcome import SkippedDocument
from ingest_pipeline.postgres.ledger.failures import Failure
from ingest_pipeline.types import counted

_MAX_LISTED = 50
_MAX_PARTITIONS = 50
_COUNTS, _TABLE = "skipped_reasons", "skipped_documents"
_STALE_COLUMNS = ("document", "reason", "stale since", "published as", "problem")


@dataclass(frozen=True, slots=True)
class SkippedDocuments:
    """The documents that a run skipped."""

    reasons: Counter[str]
    """Number of documents, by reason."""
    listed: Sequence[SkippedDocument]
    """The first of the documents."""

    @classmethod
    def of(cls, skipped: Iterable[SkippedDocument]) -> SkippedDocuments:
        """Count documents, and list the first of them."""
        found = sorted(skipped, key=lambda document: document.document)
        return cls(Counter(document.reason for document in found), found[:_MAX_LISTED])

    @classmethod
    def reported_by(cls, result: dg.JobExecutionResult | dg.ExecuteInProcessResult) -> SkippedDocuments:
        """The documents that a run in this process reported as skipped."""
        reasons: Counter[str] = Counter()
        listed: list[SkippedDocument] = []
        for event in result.get_asset_observation_events():
            metadata = event.asset_observation_data.asset_observation.metadata
            counts, rows = metadata.get(_COUNTS), metadata.get(_TABLE)
            if isinstance(counts, dg.JsonMetadataValue) and isinstance(rows, dg.TableMetadataValue):
                reasons.update({str(reason): int(count) for reason, count in dict(counts.value or {}).items()})
                names = SkippedDocument.__slots__
                listed += [SkippedDocument(*(str(row.data[name]) for name in names)) for row in rows.records]
        return cls(reasons, listed)

    def __bool__(self) -> bool:
        return bool(self.reasons)

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.reasons.items()))
        return f"{counted(self.reasons.total(), 'document was', 'documents were')} skipped: {reasons}"

    @property
    def metadata(self) -> Mapping[str, dg.MetadataValue]:
        """Counts for the UI to plot, and a table of the documents."""
        named = {f"skipped_{reason.replace(' ', '_')}": count for reason, count in self.reasons.items()}
        return {
            "skipped": dg.MetadataValue.int(self.reasons.total()),
            **{name: dg.MetadataValue.int(count) for name, count in named.items()},
            _COUNTS: dg.MetadataValue.json(dict(self.reasons)),
            _TABLE: table(dict.fromkeys(SkippedDocument.__slots__, "string"), [asdict(found) for found in self.listed]),
        }


def stale_observations(key: dg.AssetKey, failures: Iterable[Failure]) -> Iterator[dg.AssetObservation]:
    """Observations of partitions where readers see earlier files, because the source's files cannot be read.

    Args:
        key: Key of the asset.
        failures: Documents that cannot be read.
    """
    partitions: defaultdict[str, list[Failure]] = defaultdict(list)
    for failure in failures:
        if failure.stale_since is not None:
            partitions[failure.partition].append(failure)
    for partition, stale in sorted(partitions.items())[:_MAX_PARTITIONS]:
        metadata: dict[str, dg.MetadataValue] = {
            "stale_since": dg.MetadataValue.timestamp(min(failure.since for failure in stale)),
            "stale_documents": table(
                dict.fromkeys(_STALE_COLUMNS, "string"), [_stale_row(failure) for failure in stale[:_MAX_LISTED]]
            ),
        }
        yield dg.AssetObservation(key, partition=partition, metadata=metadata)


def _stale_row(failure: Failure) -> dict[str, str]:
    since = failure.since.isoformat(timespec="seconds")
    values = (failure.key, failure.reason, since, f"version {failure.published_version}", failure.error)
    return dict(zip(_STALE_COLUMNS, values, strict=True))
