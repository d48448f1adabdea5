"""The commands `maintain` and `sweep`."""

from __future__ import annotations

import dataclasses

import click
from rich.filesize import decimal

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._output import to_dict
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.maintenance.maintain import MaintenanceReport
from ingest_pipeline.maintenance.maintain import maintain as maintain_corpus
from ingest_pipeline.maintenance.sweep import SweepReport
from ingest_pipeline.maintenance.sweep import sweep as sweep_corpus
from ingest_pipeline.saga.generations import drop_retired, other_generations
from ingest_pipeline.types import counted


@command
@as_json
def maintain(*, as_json: bool) -> None:
    """Compact small fragments, update indices, remove old versions, and sweep. Safe at any time."""
    settings = _settings.settings()
    with _session.corpus(settings) as corpus:
        report = maintain_corpus(corpus, settings.retention)
    if as_json:
        print_json(to_dict(report))
        return
    echo(f"Corpus {report.corpus} is maintained; head is version {report.head_version}.")
    for line in _done(report):
        echo(f"  {line}")


def _done(report: MaintenanceReport) -> list[str]:
    """What a maintenance did, in sentences."""
    lines: list[str] = []
    if report.compaction.groups:
        lines.append(
            f"{counted(report.compaction.fragments, 'small data file')} rewritten into {report.compaction.groups:,}."
        )
    if report.compaction.skipped:
        lines.append(
            f"{counted(report.compaction.skipped, 'group')} of data files skipped, because other writers changed them."
        )
    lines += [
        f"{counted(index.built, 'row')} added to the index {index.name}." for index in report.indices if index.built
    ]
    if report.retention.versions:
        lines.append(f"{counted(report.retention.versions, 'old version')} removed.")
    if swept := len(report.sweep.files) + len(report.sweep.versions) + report.sweep.rows:
        lines.append(f"{counted(swept, 'file, version or row', 'files, versions and rows')} without an owner swept.")
    if not lines:
        lines.append("There was nothing to do.")
    before, after = report.before, report.after
    lines.append(
        f"The table has {counted(after.files, 'file')} with {decimal(after.bytes)} (before: {before.files:,} with "
        f"{decimal(before.bytes)}), {counted(after.fragments, 'data file')} and {counted(after.versions, 'version')}."
    )
    return lines


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
    if not report.files and not report.versions and not report.rows:
        echo("There is nothing to remove" if dry_run else "There was nothing to remove")
    else:
        echo(
            f"{counted(len(report.files), 'file')}, {counted(len(report.versions), 'version')} and "
            f"{counted(report.rows, 'row')} {verb}"
        )
    if report.unknown:
        echo(f"Not touched: {counted(len(report.unknown), 'file')} of sagas that this database does not know")
