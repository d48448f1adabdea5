"""The command `recover`: settling what died, and deciding what becomes of a table that others wrote."""

from __future__ import annotations

from typing import Literal

import click

from ingest_pipeline.cli import _session
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._output import echo, plain, print_json
from ingest_pipeline.config import Settings
from ingest_pipeline.orchestration.build import pipeline_settings
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.restore.lost_corpus import open_for_rebuild
from ingest_pipeline.restore.rebuild import RebuildReport, rebuild_catalog
from ingest_pipeline.saga.generations import other_generations
from ingest_pipeline.saga.recover import recover as recover_corpus
from ingest_pipeline.saga.recover import take_over

_NAMED = 5


@command
@click.option("--adopt", "way", flag_value="adopt", help="Keep a version that something else wrote.")
@click.option("--restore", "way", flag_value="restore", help="Take back what something else or another database wrote.")
@click.option("--take-over", "way", flag_value="take-over", help="Let this database go on with another one's table.")
@click.option(
    "--rebuild-catalog", "way", flag_value="rebuild", help="Bring the catalog to what the table holds. Buys nothing."
)
@as_json
def recover(way: Literal["adopt", "restore", "take-over", "rebuild"] | None, *, as_json: bool) -> None:
    """Settle what writers left behind that died. Safe at any time without an option."""
    settings = Settings.from_environment()
    if way == "rebuild":
        _rebuild(settings, as_json=as_json)
    elif way == "take-over":
        _take_over(settings, as_json=as_json)
    else:
        _recover(settings, way, as_json=as_json)


def _recover(settings: Settings, foreign: Literal["adopt", "restore"] | None, *, as_json: bool) -> None:
    with _session.corpus(settings) as corpus:
        report = recover_corpus(corpus, foreign=foreign)
        beside = [recover_corpus(generation) for generation in other_generations(corpus)]
    if as_json:
        print_json(plain(report))
        return
    echo(
        f"{sum(len(each.compensated) for each in (report, *beside))} sagas undone, "
        f"{sum(len(each.abandoned) for each in (report, *beside))} abandoned; head {report.head_before} -> "
        f"{report.head_after}"
    )


def _take_over(settings: Settings, *, as_json: bool) -> None:
    with _session.corpus(settings) as corpus:
        versions = {each.generation: take_over(each) for each in (corpus, *other_generations(corpus))}
        head = corpus.head().head_version
    taken = {name: version for name, version in versions.items() if version is not None}
    if as_json:
        print_json({"taken_over": taken, "head": head})
        return
    if not taken:
        echo("The table is this database's already.")
    for name, version in taken.items():
        echo(f"{name}: this database goes on with the table; head is version {version}")


def _rebuild(settings: Settings, *, as_json: bool) -> None:
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        context = open_for_rebuild(database, pipeline_settings(running))
        report = rebuild_catalog(context)
    if as_json:
        print_json(None if report is None else plain(report))
        return
    if report is None:
        echo("Catalog and table agree already; nothing was changed.")
        return
    _print(report)


def _print(report: RebuildReport) -> None:
    echo(
        f"corpus {report.corpus}: head {report.head_before} -> {report.head_after}, which holds what version "
        f"{report.content_of} of the table did"
    )
    echo(
        f"{report.kept} documents kept, {report.added} read from the table, {len(report.removed)} taken out; nothing "
        f"was bought; {report.unknown_sagas} sagas were unknown"
    )
    for what, names in (
        ("newer versions were left out, for something of them is missing or they are no publication", report.left_out),
        ("documents whose rows did not fit together; the next ingest brings them again", report.incomplete),
        ("documents of which the source holds other bytes, or none; the next ingest decides", report.changed),
    ):
        if names:
            more = ", ..." if len(names) > _NAMED else ""
            echo(f"{len(names)} {what}: {', '.join(map(str, names[:_NAMED]))}{more}")
