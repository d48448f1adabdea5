"""The commands `history` and `rollback`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import KEY, as_json, command, exit_with
from ingest_pipeline.cli._numbers import VERSION, WholeNumber
from ingest_pipeline.cli._output import local_time, print_rows, short_id
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import UnknownDocumentError
from ingest_pipeline.ingestion.context import documents_on_hold
from ingest_pipeline.postgres.catalog import history as versions
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.catalog.history import PublicationRow, VersionDifference
from ingest_pipeline.postgres.ledger import failures
from ingest_pipeline.saga.rollback import check_rollback, plan_rollback, retained_versions
from ingest_pipeline.types import counted

_REMOVED: Mapping[str | None, str] = {
    "retention": "Retention removed {}.",
    "erasure": "An erasure removed {}.",
    "rebuild": "The table lacked {} when the catalog was rebuilt.",
    None: "The table lacks {}.",
}
"""What became of versions that are not retained, by what the ledger says of them."""


@command
@click.argument("key", type=KEY, required=False)
@click.option(
    "--limit", type=WholeNumber(1, 100_000), default=20, show_default=True, help="Maximum number of rows to show."
)
@as_json
def history(key: str | None, limit: int, *, as_json: bool) -> None:
    """List the publications of the corpus, or of one document, newest first.

    You can roll back to every publication that is retained.
    """
    with _session.corpus(_settings.settings()) as corpus:
        rows = _publications(corpus, limit) if key is None else _changes(corpus, key, limit)
        if key is not None and not rows and not _has_failed(corpus, key):
            raise UnknownDocumentError(
                f"Corpus {corpus.name!r} never had a document {key!r}",
                "Keys are paths below the source; `ingest-pipeline plan` lists the documents that differ.",
            )
        there = retained_versions(corpus, [row["version"] for row in rows])
    rows = [{**row, "retained": row["version"] in there and row["removed_by"] is None} for row in rows]
    if as_json:
        print_json(rows)
        return
    noun = "publication" if key is None else "change"
    print_rows(f"{counted(len(rows), noun)}, newest first" if rows else "Nothing is published yet", _shown(rows))
    if rows:
        echo(_kept(rows))


def _shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as a table of 80 columns shows them. `--json` has the rest."""
    has_costs, has_removals = any(row["cost"] for row in rows), any(row.get("removed") for row in rows)
    return [
        {
            "version": row["version"],
            "published": local_time(datetime.fromisoformat(row["at"])),
            "what": row["what"] if row.get("change", "published") == "published" else row["change"],
            **({} if "document" in row else {"documents": row["documents"] - row["removed"]}),
            **({"removed": row["removed"]} if has_removals else {}),
            **({} if has_costs else {"chunks": row["chunks"]}),
            "embedded": row["embedded"],
            **({"cost": row["cost"]} if has_costs else {}),
            **{name: row[name] for name in ("enricher_tokens", "enricher_cost") if name in row},
            "saga": short_id(row["saga"]),
        }
        for row in rows
    ]


def _kept(rows: Sequence[dict[str, Any]]) -> str:
    """Sentences that say to which of the versions a rollback is possible, and what removed the others."""
    if all(row["retained"] for row in rows):
        return "`ingest-pipeline rollback --to VERSION` returns to any of these."
    sentences: list[str] = []
    if kept := _versions(rows, [row["retained"] for row in rows]):
        sentences.append(f"`ingest-pipeline rollback --to VERSION` accepts {kept}.")
    else:
        sentences.append("No rollback to these versions is possible.")
    for by, sentence in _REMOVED.items():
        if gone := _versions(rows, [not row["retained"] and row["removed_by"] == by for row in rows]):
            sentences.append(sentence.format(gone))
    return " ".join(sentences)


def _versions(rows: Sequence[dict[str, Any]], chosen: Sequence[bool]) -> str:
    """The versions of the chosen rows, such as "2 and 5 to 9". Those of one document are named one by one."""
    found: list[str] = []
    for is_chosen, group in groupby(reversed(list(zip(rows, chosen, strict=True))), key=itemgetter(1)):
        versions = [str(row["version"]) for row, _ in group] if is_chosen else []
        if len(versions) > 1 and "document" not in rows[0]:
            found.append(f"{versions[0]} to {versions[-1]}")
        else:
            found += versions
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _has_failed(corpus: Corpus, key: str) -> bool:
    with corpus.database.transaction() as connection:
        return any(failure.key == key for failure in failures.read_failures(connection, corpus.generation))


def _publications(corpus: Corpus, limit: int) -> list[dict[str, Any]]:
    with corpus.database.transaction() as connection:
        publications = versions.publication_history(connection, corpus.generation, limit)
    reported = any(row.enricher_tokens or row.enricher_requests or row.enricher_costs for row in publications)
    return [
        {
            "version": row.version,
            "at": row.published_at.isoformat(timespec="seconds"),
            "what": _what(row.kind, row.target_version),
            "documents": row.documents,
            "removed": row.removed,
            "chunks": row.chunks,
            "embedded": row.embedded,
            "cached": row.cached,
            "tokens": row.tokens,
            "cost": _cost(row.cost, row.currency),
            **(_of_enrichers(row) if reported else {}),
            "saga": str(row.saga),
            "run": row.run_id or "",
            "removed_by": row.retired_by,
        }
        for row in publications
    ]


def _changes(corpus: Corpus, key: str, limit: int) -> list[dict[str, Any]]:
    with corpus.database.transaction() as connection:
        changes = reports.history(connection, corpus.generation, key, limit)
    return [
        {
            "version": change.published_version,
            "at": change.published_at.isoformat(timespec="seconds"),
            "what": _what(change.kind, change.target_version),
            "document": change.key,
            "change": "removed" if change.removed else "published",
            "chunks": change.chunk_count,
            "embedded": change.embedded,
            "cached": change.cached,
            "tokens": change.tokens,
            "cost": _cost(change.cost, change.currency),
            "saga": str(change.saga),
            "run": change.run_id or "",
            "removed_by": change.retired_by,
        }
        for change in changes
    ]


def _of_enrichers(row: PublicationRow) -> dict[str, object]:
    """What the enrichers of the user took."""
    costs = ", ".join(f"{amount:.6f} {currency}" for currency, amount in sorted(row.enricher_costs.items()))
    return {
        "enricher_tokens": row.enricher_tokens,
        "enricher_requests": row.enricher_requests,
        "enricher_cost": costs,
    }


def _cost(amount: Decimal | None, currency: str | None) -> str:
    return "" if amount is None else f"{amount:.6f} {currency}"


def _what(kind: str, target_version: int | None) -> str:
    return kind if target_version is None else f"rollback to {target_version}"


@command
@click.argument("keys", type=KEY, nargs=-1, metavar="[KEY]...")
@click.option(
    "--to", "version", type=VERSION, required=True, metavar="VERSION", help="Version of a publication, see `history`."
)
@click.option("--dry-run", is_flag=True, help="List what would change.")
@click.option("--confirm-removals", is_flag=True, help="Remove documents, even if that is most of the corpus.")
@as_json
def rollback(keys: Sequence[str], version: int, *, dry_run: bool, confirm_removals: bool, as_json: bool) -> None:
    """Roll documents, or the whole corpus, back to an earlier publication, in one Dagster run.

    These documents stay on hold until their files change, or until `ingest KEY` or `retry KEY`.
    """
    from ingest_pipeline.cli import _runs  # noqa: PLC0415  `history` needs no Dagster

    settings = _settings.settings()
    with _session.corpus(settings) as corpus:
        differences = plan_rollback(corpus, version, keys)
        refusal = None if confirm_removals else check_rollback(corpus, version, differences)
    if dry_run and refusal is not None:
        echo(f"Warning: {refusal}", err=True)
    if dry_run:
        rows = _rows(differences)
        if as_json:
            print_json(rows)
        else:
            shown = [{name.replace("_", " "): value for name, value in row.items()} for row in rows]
            print_rows(f"{counted(len(differences), 'document')} would change", shown)
        return
    if refusal is not None:
        raise refusal
    done = _runs.roll_back(settings, version, keys, confirm_removals=confirm_removals) if differences else None
    with _session.corpus(settings) as corpus:
        head, held = corpus.head().head_version, len(documents_on_hold(corpus))
    problems = done.problems if done else []
    published, removed = (done.progress.published, done.progress.removed) if done else (0, 0)
    summary = {"run_id": done and done.run_id, "rolled_back_to": version, "head_version": head}
    if as_json:
        counts = {"documents": published - removed, "removed": removed, "on_hold": held}
        print_json({**summary, **counts, "changes": _rows(differences), "problems": problems})
    else:
        echo(
            f"{counted(published - removed, 'document')} rolled back to version {version}, {removed:,} removed; head "
            f"is version {head}; {counted(held, 'document')} on hold until {'its' if held == 1 else 'their'} "
            f"{'file changes' if held == 1 else 'files change'}"
        )
    exit_with(problems, misconfigured=done is not None and done.misconfigured)


def _rows(differences: Sequence[VersionDifference]) -> list[dict[str, Any]]:
    return [
        {
            "document": difference.key,
            "change": difference.change,
            "chunks_at_head": difference.chunks_at_head,
            "chunks": difference.chunk_count,
        }
        for difference in differences
    ]
