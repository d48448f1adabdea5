"""The command `gate`."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command, exit_with
from ingest_pipeline.cli._output import local_time, print_rows, short_id, to_dict
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.ingestion.gate_decisions import Waiting, waiting, waiting_for
from ingest_pipeline.types import counted


@command
@click.argument("action", type=click.Choice(["status", "release", "drop"]))
@click.argument("publication", required=False)
@as_json
def gate(action: Literal["status", "release", "drop"], publication: str | None, *, as_json: bool) -> None:
    """Show what did not pass its gates, and release or drop it. A decision is one Dagster run.

    release publishes it as it was prepared, and embeds nothing. drop ends it, and the next run plans its documents
    again. After a re-embedding, release lets the next `reembed` switch readers, and drop aborts it. PUBLICATION is the
    id that status shows, or its beginning, and may be omitted if there is one only.
    """
    settings = _settings.settings()
    with _session.corpus(settings) as corpus:
        found = waiting(corpus) if action == "status" else [waiting_for(corpus, publication)]
    if action == "status":
        if as_json:
            print_json([to_dict(one) for one in found])
        else:
            rows = [row for one in found for row in _rows(one)]
            title = f"{counted(len(found), 'publication')} did not pass the gates"
            print_rows(title if found else "No publication waits for a decision", rows)
        return
    from ingest_pipeline.cli import _runs  # noqa: PLC0415  `status` needs no Dagster

    done = _runs.decide_gate(settings, action, str(found[0].id))
    with _session.corpus(settings) as corpus:
        head = corpus.head().head_version
    if as_json:
        print_json({"run_id": done.run_id, "id": str(found[0].id), "head_version": head, "problems": done.problems})
    elif not done.problems:
        what = "released" if action == "release" else "dropped"
        echo(f"{found[0]} was {what}; head is version {head}")
    exit_with(done.problems, misconfigured=done.misconfigured)


def _rows(one: Waiting) -> list[dict[str, str]]:
    return [
        {
            "id": short_id(one.id) if isinstance(one.id, UUID) else one.id,
            "since": local_time(one.judged_at),
            "documents": f"{one.documents + one.removed:,}",
            "figure": finding.figure,
            "value": f"{finding.value:.4g}",
            "limit": "" if finding.limit is None else f"{finding.limit:g}",
            "ids": ", ".join(finding.ids),
        }
        for finding in one.findings
        if not finding.passed
    ]
