"""Results of asset checks: whether a check passed, its severity, and the affected documents and chunks."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import dagster as dg

from ingest_pipeline.assets.tables import table
from ingest_pipeline.maintenance.audit import AuditReport, Violation
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.run_backoff import RunBackoff
from ingest_pipeline.postgres.catalog.holds import Hold
from ingest_pipeline.postgres.ledger.failures import Failure, count_reasons

CHECKED = {
    "audit": "metadata",
    "chunks_match": "metadata",
    "single_publication": "metadata",
    "texts_match": "chunks",
    "unique_chunk_ids": "embeddings",
    "valid_vectors": "embeddings",
    "freshness": "metadata",
    "quarantine": "metadata",
    "on_hold": "metadata",
    "access_listed": "metadata",
    "gate": "head",
    "run_audit": "metadata",
    "run_freshness": "metadata",
}
"""The asset of each check."""
MAX_ROWS = 50
# The sensor compares every 30 seconds, and a run takes some minutes.
_GRACE = timedelta(minutes=15)
# The recovery sensor and the sweep correct these, and readers do not see them.
_SELF_CORRECTING = {"nothing in doubt", "no orphan files"}


def audit_results(report: AuditReport, dimensions: int) -> dict[str, dg.AssetCheckResult]:
    """A result for each invariant that one document can break, and one for the whole audit, by name of the check."""
    counts: dict[str, int] = {"head": report.head_version, "documents": report.documents, "chunks": report.chunks}
    names = ("chunks match", "single publication", "texts match", "unique chunk ids")
    results = {
        name.replace(" ", "_"): _audit_result([v for v in report.violations if v.invariant == name], counts)
        for name in names
    }
    unsound = [violation for violation in report.violations if violation.invariant == "valid vectors"]
    results["valid_vectors"] = _audit_result(unsound, counts | {"dimensions": dimensions})
    files = {"files_to_sweep": report.files, "files_of_unknown_sagas": report.unknown_files}
    return results | {"audit": _audit_result(report.violations, counts | files)}


def _audit_result(violations: Sequence[Violation], counts: dict[str, int]) -> dg.AssetCheckResult:
    rows = [
        {
            "invariant": found.invariant,
            "document": found.document or "",
            "what": found.what,
            "ids": ", ".join(found.ids),
        }
        for found in violations[:MAX_ROWS]
    ]
    serious = any(found.invariant not in _SELF_CORRECTING for found in violations)
    return dg.AssetCheckResult(
        passed=not violations,
        severity=dg.AssetCheckSeverity.ERROR if serious else dg.AssetCheckSeverity.WARN,
        metadata={
            **counts,
            "violations": len(violations),
            **_found(rows, ("invariant", "document", "what", "ids")),
        },
    )


def freshness_result(
    plans: Iterable[DocumentPlan], now: datetime, backoff: RunBackoff | None = None
) -> dg.AssetCheckResult:
    """The result for documents that differ from the source. A removal has no time, so it counts at once.

    Args:
        plans: The documents that differ.
        now: The time.
        backoff: Why runs over the corpus fail as a whole, if they do.
    """
    differ = removed = 0
    oldest: datetime | None = None
    shown: list[DocumentPlan] = []
    for plan in plans:
        differ += 1
        if plan.source is None:
            removed += 1
        else:
            oldest = min(oldest or plan.source.last_modified, plan.source.last_modified)
        insort(shown, plan, key=_since)
        del shown[MAX_ROWS:]
    rows = [{"document": plan.key, "change": _change(plan), "since": _since(plan)} for plan in shown]
    late = removed > 0 or (oldest is not None and now - oldest > _GRACE)
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "differ": differ,
            "removed": removed,
            **({"runs": dg.MetadataValue.text(backoff.note)} if backoff else {}),
            **({"since": dg.MetadataValue.timestamp(oldest)} if oldest else {}),
            **_found(rows, ("document", "change", "since")),
        },
    )


def quarantine_result(failures: Sequence[Failure]) -> dg.AssetCheckResult:
    """The result for documents that are skipped because they cannot be read or keep failing."""
    left = [failure for failure in failures if failure.unreadable or failure.is_quarantined]
    stale = [failure.stale_since for failure in left if failure.stale_since is not None]
    rows = [
        {
            "document": failure.key,
            "reason": failure.reason,
            "attempts": str(failure.attempts),
            "stale since": "" if failure.stale_since is None else failure.stale_since.isoformat(timespec="seconds"),
            "error": failure.error,
        }
        for failure in left[:MAX_ROWS]
    ]
    reasons = count_reasons(failure for failure in left if failure.unreadable)
    return dg.AssetCheckResult(
        passed=not left,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "quarantined": sum(failure.is_quarantined for failure in left),
            "unreadable": reasons.total(),
            **{f"unreadable_{reason.replace(' ', '_')}": count for reason, count in reasons.items()},
            "stale": len(stale),
            **({"stale_since": dg.MetadataValue.timestamp(min(stale))} if stale else {}),
            **_found(rows, ("document", "reason", "attempts", "stale since", "error")),
        },
    )


def on_hold_result(holds: Sequence[Hold]) -> dg.AssetCheckResult:
    """The result for documents that are on hold after a rollback."""
    rows = [
        {
            "document": hold.key,
            "rolled back to": str(hold.version),
            "since": hold.held_at.isoformat(timespec="seconds"),
            "etag on hold": hold.etag or "",
        }
        for hold in holds[:MAX_ROWS]
    ]
    return dg.AssetCheckResult(
        passed=not holds,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"on_hold": len(holds), **_found(rows, ("document", "rolled back to", "since", "etag on hold"))},
    )


def access_result(found: int, keys: Sequence[str]) -> dg.AssetCheckResult:
    """The result for documents that no search finds, because they name no principals.

    Args:
        found: Number of these documents.
        keys: The first of them.
    """
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"without_list": found, **_found([{"document": key} for key in keys[:MAX_ROWS]], ("document",))},
    )


def _change(plan: DocumentPlan) -> str:
    if plan.source is None:
        return "removed"
    return "new" if plan.latest is None or plan.latest.removed else "changed"


def _since(plan: DocumentPlan) -> str:
    return plan.source.last_modified.isoformat(timespec="seconds") if plan.source else ""


def _found(rows: Sequence[dict[str, str]], columns: Sequence[str]) -> dict[str, dg.TableMetadataValue]:
    """The rows as a table, if there are any."""
    return {"found": table(dict.fromkeys(columns, "string"), rows)} if rows else {}
