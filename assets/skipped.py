"""Documents that a run leaves as they are without failing for it, and how the run says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import dagster as dg

_MAX_LISTED = 50
_COLUMNS = ("document", "reason", "problem")
_SCHEMA = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in _COLUMNS])
_TABLE = "skipped_documents"


@dataclass(frozen=True, slots=True)
class SkippedDocument:
    """A document that was not published by a run, although it differs from the source."""

    document: str
    reason: str
    """A word or two, by which such documents are counted."""
    problem: str
    """What is wrong with it, and what to do."""


def skipped_line(skipped: Iterable[SkippedDocument]) -> str:
    """How many documents were skipped for which reason, in a sentence."""
    reasons = Counter(document.reason for document in skipped)
    counted = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f"{reasons.total()} documents were skipped: {counted}"


def skipped_metadata(skipped: Sequence[SkippedDocument]) -> Mapping[str, dg.MetadataValue]:
    """Counts for the UI to plot, and a table of the first documents."""
    reasons = Counter(document.reason for document in skipped)
    rows = [dg.TableRecord(asdict(document)) for document in sorted(skipped, key=lambda found: found.document)]
    return {
        "skipped": dg.MetadataValue.int(len(skipped)),
        **{f"skipped_{reason.replace(' ', '_')}": dg.MetadataValue.int(count) for reason, count in reasons.items()},
        _TABLE: dg.MetadataValue.table(rows[:_MAX_LISTED], schema=_SCHEMA),
    }


def skipped_by(result: dg.ExecuteInProcessResult) -> list[SkippedDocument]:
    """The documents that a run in this process says it skipped, at most 50 of them."""
    found: list[SkippedDocument] = []
    for observation in result.get_asset_observation_events():
        table = observation.asset_observation_data.asset_observation.metadata.get(_TABLE)
        if isinstance(table, dg.TableMetadataValue):
            found += [SkippedDocument(*(str(record.data[column]) for column in _COLUMNS)) for record in table.records]
    return found
