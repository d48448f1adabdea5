"""Asset checks on `metadata`: do the two stores agree, and which documents are left alone because they keep failing."""

from collections.abc import Mapping, Sequence

import dagster as dg

from ingest_pipeline import ledger
from ingest_pipeline.audit import AuditReport, audit
from ingest_pipeline.errors import IngestError
from ingest_pipeline.holds import Hold
from ingest_pipeline.ledger import MAX_ATTEMPTS, Failure
from ingest_pipeline.pipeline import PipelineSettings, documents_of, held_documents
from ingest_pipeline.preparation import Workshop
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource

_SHOWN = 50


def corpus_checks(settings: PipelineSettings) -> list[dg.AssetChecksDefinition]:
    """The checks of one corpus."""
    asset = dg.AssetKey([settings.corpus, "metadata"])
    required = {resource_key(settings.corpus, VersionedLanceDBResource)}

    @dg.asset_check(
        asset=asset,
        name="audit",
        description="LanceDB and Postgres hold the same chunks at head. In a run of partitions, of those only.",
        required_resource_keys=required,
    )
    def check_audit(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        lancedb = resource_of(context.resources, settings.corpus, VersionedLanceDBResource)
        try:
            with lancedb.workshop(settings) as workshop:
                return _audit_result(audit(workshop.corpus, _keys(workshop, context.run.tags)))
        except IngestError as error:
            raise dg.Failure(str(error)) from error

    @dg.asset_check(
        asset=asset,
        name="quarantine",
        description=f"No document failed {MAX_ATTEMPTS} times with the same bytes and recipe.",
        required_resource_keys=required,
    )
    def check_quarantine(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        lancedb = resource_of(context.resources, settings.corpus, VersionedLanceDBResource)
        try:
            with lancedb.workshop(settings) as workshop, workshop.corpus.database.transaction() as connection:
                failures = ledger.failures(connection, workshop.corpus.name)
        except IngestError as error:
            raise dg.Failure(str(error)) from error
        return _quarantine_result([failure for failure in failures if failure.attempts >= MAX_ATTEMPTS])

    @dg.asset_check(
        asset=asset,
        name="held",
        description="No document is left as a person rolled it back, while the source holds other bytes.",
        required_resource_keys=required,
    )
    def check_held(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        lancedb = resource_of(context.resources, settings.corpus, VersionedLanceDBResource)
        try:
            with lancedb.workshop(settings) as workshop:
                return _held_result(held_documents(workshop.corpus))
        except IngestError as error:
            raise dg.Failure(str(error)) from error

    return [check_audit, check_quarantine, check_held]


def _keys(workshop: Workshop, tags: Mapping[str, str]) -> list[str] | None:
    """The documents of the run's partition; None for a run over many partitions."""
    return documents_of(workshop, tags["dagster/partition"]) if "dagster/partition" in tags else None


def _audit_result(report: AuditReport) -> dg.AssetCheckResult:
    rows = [
        {
            "invariant": found.invariant,
            "document": found.document or "",
            "what": found.what,
            "ids": ", ".join(found.ids),
        }
        for found in report.violations[:_SHOWN]
    ]
    return dg.AssetCheckResult(
        passed=not report.violations,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "head": report.head_version,
            "documents": report.documents,
            "chunks": report.chunks,
            "violations": len(report.violations),
            **_found(rows, ("invariant", "document", "what", "ids")),
        },
    )


def _quarantine_result(quarantined: Sequence[Failure]) -> dg.AssetCheckResult:
    rows = [
        {"document": failure.key, "attempts": str(failure.attempts), "error": failure.error}
        for failure in quarantined[:_SHOWN]
    ]
    return dg.AssetCheckResult(
        passed=not quarantined,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"quarantined": len(quarantined), **_found(rows, ("document", "attempts", "error"))},
    )


def _held_result(holds: Sequence[Hold]) -> dg.AssetCheckResult:
    rows = [
        {
            "document": hold.key,
            "rolled back to": str(hold.version),
            "since": hold.held_at.isoformat(timespec="seconds"),
            "held etag": hold.etag or "",
        }
        for hold in holds[:_SHOWN]
    ]
    return dg.AssetCheckResult(
        passed=not holds,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"held": len(holds), **_found(rows, ("document", "rolled back to", "since", "held etag"))},
    )


def _found(rows: Sequence[dict[str, str]], columns: Sequence[str]) -> dict[str, dg.TableMetadataValue]:
    """The rows as a table, where there are any."""
    if not rows:
        return {}
    schema = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in columns])
    return {"found": dg.MetadataValue.table([dg.TableRecord(row) for row in rows], schema=schema)}
