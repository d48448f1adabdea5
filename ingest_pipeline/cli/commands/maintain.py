"""The commands `maintain` and `sweep`."""

from __future__ import annotations

import dataclasses

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._output import print_rows, to_dict
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.maintenance.maintain import maintain as maintain_corpus
from ingest_pipeline.maintenance.sweep import SweepReport
from ingest_pipeline.maintenance.sweep import sweep as sweep_corpus
from ingest_pipeline.saga.generations import drop_retired, other_generations


@command
@as_json
def maintain(*, as_json: bool) -> None:
    """Compact small fragments, update indices, remove old versions, and sweep. Safe at any time."""
    settings = _settings.settings()
    with _session.corpus(settings) as corpus:
        report = maintain_corpus(corpus, settings.retention, log=lambda text: echo(text, err=True))
    if as_json:
        print_json(to_dict(report))
        return
    rows = [
        {"": name, "before": before, "after": after}
        for (name, before), after in zip(to_dict(report.before).items(), to_dict(report.after).values(), strict=True)
    ]
    print_rows(f"corpus {report.corpus}, head {report.head_version}", rows)


@command
@click.option("--dry-run", is_flag=True, help="List what would be removed.")
@as_json
def sweep(*, dry_run: bool, as_json: bool) -> None:
    """Remove files, versions and rows that belong to no publication and to no running saga."""
    with _session.corpus(_settings.settings()) as corpus:
        report = sweep_corpus(corpus, dry_run=dry_run)
        for generation in other_generations(corpus):
            other = sweep_corpus(generation, dry_run=dry_run)
            report = SweepReport(
                [*report.files, *other.files],
                [*report.versions, *other.versions],
                report.rows + other.rows,
                [*report.unknown, *other.unknown],
            )
        if not dry_run:
            drop_retired(corpus)
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    for name in report.files:
        echo(name)
    verb = "would be removed" if dry_run else "removed"
    echo(f"{len(report.files)} files, {len(report.versions)} versions and {report.rows} rows {verb}")
    if report.unknown:
        echo(f"{len(report.unknown)} files of sagas that this database does not know were not touched")
