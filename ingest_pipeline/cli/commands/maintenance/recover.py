"""The command `recover`."""

from __future__ import annotations

from typing import Literal

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._output import to_dict
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.erasure.unfinished import continue_erasures, has_erasures
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.restore.lost_corpus import open_for_rebuild
from ingest_pipeline.restore.rebuild import RebuildReport, rebuild_catalog
from ingest_pipeline.saga.generations import other_generations
from ingest_pipeline.saga.recover import recover as recover_corpus
from ingest_pipeline.saga.recover import take_over
from ingest_pipeline.types import counted

_MAX_NAMES = 5


@command
@click.option("--adopt", "way", flag_value="adopt", help="Keep a foreign version, which another program wrote.")
@click.option("--restore", "way", flag_value="restore", help="Undo what another program or another database wrote.")
@click.option(
    "--take-over", "way", flag_value="take-over", help="Let this database continue with the table of another one."
)
@click.option(
    "--rebuild-catalog", "way", flag_value="rebuild", help="Rebuild the catalog from the table. Embeds nothing."
)
@as_json
def recover(way: Literal["adopt", "restore", "take-over", "rebuild"] | None, *, as_json: bool) -> None:
    """Settle the sagas of dead writers, or resolve what another program or database wrote.

    Without an option, the command is safe at any time.
    """
    settings = _settings.settings()
    if way == "rebuild":
        _rebuild(settings, as_json=as_json)
    elif way == "take-over":
        _take_over(settings, as_json=as_json)
    else:
        _recover(settings, way, as_json=as_json)


def _recover(settings: CorpusConfig, foreign: Literal["adopt", "restore"] | None, *, as_json: bool) -> None:
    with _session.corpus(settings) as corpus:
        report = recover_corpus(corpus, foreign=foreign)
        beside = [recover_corpus(generation) for generation in other_generations(corpus)]
    _erase_again(settings)
    if as_json:
        print_json(to_dict(report))
        return
    if not any([*each.compensated, *each.abandoned] for each in (report, *beside)) and (
        report.head_before == report.head_after
    ):
        echo(f"There was nothing to settle; head is version {report.head_after}")
        return
    echo(
        f"{counted(sum(len(each.compensated) for each in (report, *beside)), 'saga')} undone, "
        f"{sum(len(each.abandoned) for each in (report, *beside))} abandoned; head "
        f"{report.head_before} -> {report.head_after}"
    )


def _take_over(settings: CorpusConfig, *, as_json: bool) -> None:
    with _session.corpus(settings) as corpus:
        versions = {each.generation: take_over(each) for each in (corpus, *other_generations(corpus))}
        head = corpus.head().head_version
    _erase_again(settings)
    taken = {name: version for name, version in versions.items() if version is not None}
    if as_json:
        print_json({"taken_over": taken, "head": head})
        return
    if not taken:
        echo("The table already belongs to this database.")
    for name, version in taken.items():
        echo(f"{name}: this database continues with the table; head is version {version}")


def _rebuild(settings: CorpusConfig, *, as_json: bool) -> None:
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        context = open_for_rebuild(database, running)
        report = rebuild_catalog(context)
    _erase_again(settings)
    if as_json:
        print_json(None if report is None else to_dict(report))
        return
    if report is None:
        echo("Catalog and table already agree; nothing was changed.")
        return
    _print(report)


def _erase_again(settings: CorpusConfig) -> None:
    """Finish erasures whose process died, and erase documents again that a restored backup brought back."""
    with _session.corpus(settings) as corpus:
        if not has_erasures(corpus):
            return
    from ingest_pipeline.cli import _dagster  # noqa: PLC0415  only an erasure needs Dagster
    from ingest_pipeline.cli.commands.maintenance.erase import print_receipt  # noqa: PLC0415
    from ingest_pipeline.reporting.erasure import DagsterRecords  # noqa: PLC0415
    from ingest_pipeline.resources.names import DagsterNames  # noqa: PLC0415

    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        corpus = find_corpus(database, running)
        with _dagster.instance(running) as instance:
            records = DagsterRecords(instance, DagsterNames.of(running))
            for receipt in continue_erasures(corpus, records, compare_keys=True):
                print_receipt(receipt, err=True)


def _print(report: RebuildReport) -> None:
    echo(
        f"corpus {report.corpus}: head {report.head_before} -> {report.head_after}, with the content of version "
        f"{report.content_of} of the table"
    )
    echo(
        f"{counted(report.kept, 'document')} kept, {report.added} read from the table, {len(report.removed)} removed; "
        f"nothing was embedded; {counted(report.unknown_sagas, 'unknown saga')}"
    )
    for what, names in (
        ("newer versions were skipped, because a file is missing or they are not a publication", report.skipped),
        ("documents with inconsistent rows; the next ingest publishes them again", report.incomplete),
        ("documents that the source lacks or has with other bytes; the next ingest decides", report.changed),
    ):
        if names:
            more = ", ..." if len(names) > _MAX_NAMES else ""
            echo(f"{len(names)} {what}: {', '.join(map(str, names[:_MAX_NAMES]))}{more}")
