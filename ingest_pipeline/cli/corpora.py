"""The commands about corpora as wholes: listing them, letting one follow what was moved or renamed, deleting one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import click

from ingest_pipeline.cli import _session
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._output import echo, plain, print_json, print_rows
from ingest_pipeline.config import Settings, absolute_place
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.ingestion.context import named_corpus
from ingest_pipeline.maintenance.drop import drop_corpus, generations_of
from ingest_pipeline.orchestration.build import build_resources, pipeline_settings
from ingest_pipeline.postgres import generations
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.generations import GenerationSummary
from ingest_pipeline.reporting.partitions import forget_partitions
from ingest_pipeline.restore.relocate import check_model, check_width, move_source, move_tables, rename_model
from ingest_pipeline.sources.object_store import ObjectSource


@command
@as_json
def corpora(*, as_json: bool) -> None:
    """List the corpora of the database, with their tables, sources and models."""
    with (
        _session.postgres(Settings.from_environment()) as running,
        Database(running.database_url or "") as database,
        database.transaction() as connection,
    ):
        found = generations.summaries(connection)
    if as_json:
        print_json([_as_value(name, generations) for name, generations in _by_corpus(found).items()])
        return
    rows = [
        {
            "corpus": one.corpus,
            "state": one.state,
            "documents": one.documents,
            "chunks": one.chunks,
            "head": one.head_version,
            "table": one.table_uri,
            "source": one.source or "",
            "model": one.embedding or "",
        }
        for one in found
    ]
    print_rows(f"{len(_by_corpus(found))} corpora", rows)


def _by_corpus(found: Sequence[GenerationSummary]) -> Mapping[str, list[GenerationSummary]]:
    grouped: dict[str, list[GenerationSummary]] = defaultdict(list)
    for one in found:
        grouped[one.corpus].append(one)
    return grouped


def _as_value(name: str, generations: Sequence[GenerationSummary]) -> dict[str, object]:
    current = next((one for one in generations if one.state == "current"), generations[0])
    return {**plain(current), "corpus": name, "generations": [plain(one) for one in generations]}


@command
@click.option("--table", "folder", metavar="URI", help="Folder of the LanceDB tables, into which they were copied.")
@click.option("--source", "url", metavar="URL", help="Where the same documents are now.")
@click.option("--embedding-model", "model", metavar="NAME", help="Another name of the same model, as of a deployment.")
@as_json
def relocate(folder: str | None, url: str | None, model: str | None, *, as_json: bool) -> None:
    """Let the corpus follow what was moved or renamed: its tables, its source, the name of its model.

    Nothing is copied and nothing is bought. What is not the same thing at another place is refused.
    """
    if folder is None and url is None and model is None:
        raise click.UsageError("Say what was moved: --table, --source or --embedding-model.")
    settings = Settings.from_environment()
    done: dict[str, object] = {"corpus": settings.corpus}
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        if folder is not None:
            done["tables"] = move_tables(database, settings.corpus, absolute_place(folder))
        if url is not None:
            done["source"] = _move_source(
                named_corpus(database, settings.corpus), ObjectSource(absolute_place(url), settings.follow_links)
            )
        if model is not None:
            done |= _rename(named_corpus(database, settings.corpus), running, model)
    if as_json:
        print_json(done)
        return
    for name, value in done.items():
        echo(f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    echo("Set the same in the environment, or in the component, of everything that uses the corpus.")


def _move_source(corpus: Corpus, source: ObjectSource) -> str:
    if corpus.head().source is None:
        raise ConfigurationError(f"Table {corpus.name!r} has no source: its rows are a user's own")
    if next(source.list(), None) is None:
        raise ConfigurationError(f"The source {source.url} holds no document", "Correct the url. Nothing was changed.")
    move_source(corpus, source.url)
    return source.url


def _rename(corpus: Corpus, settings: Settings, model: str) -> dict[str, object]:
    old = check_width(corpus.head().embedding, settings.embedding_dimensions)
    recipe = replace(pipeline_settings(settings).recipe, embedding_model=old)
    asyncio.run(_check_model(corpus, settings, model))
    renamed = rename_model(corpus, recipe, model)
    return {"embedding_model": model, "was": old, **asdict(renamed)}


async def _check_model(corpus: Corpus, settings: Settings, model: str) -> None:
    """Ask the endpoint for one text that the corpus holds, and compare the vectors."""
    embedder = build_resources(replace(settings, embedding_model=model)).embedder
    async with embedder.create_embedder(f"{model}/{settings.embedding_dimensions}") as api:
        await check_model(corpus, api)


@command
@click.argument("name")
@click.option("--yes-delete", "typed", metavar="NAME", help="The name once more, instead of typing it when asked.")
@as_json
def drop(name: str, typed: str | None, *, as_json: bool) -> None:
    """Delete a corpus: its tables, all that the catalog and the ledger hold of it, and its partitions in Dagster.

    Stop its sensors first: a sensor that goes on creates it again. A drop that was interrupted may be repeated.
    """
    settings = Settings.from_environment()
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        _confirm(name, generations_of(database, name), typed)
        dropped = drop_corpus(database, name)
        with _session.instance(running) as instance:
            partitions = forget_partitions(instance, name)
    if as_json:
        print_json({**plain(dropped), "partitions": partitions})
        return
    for uri in dropped.kept:
        echo(f"The table at {uri} was made by something else, and was left alone.", err=True)
    echo(
        f"Corpus {name} is deleted: {dropped.documents} documents, {len(dropped.tables)} tables, {partitions} "
        "partitions in Dagster"
    )


def _confirm(name: str, found: Sequence[generations.Generation], typed: str | None) -> None:
    if typed is None:
        for generation in found:
            if generation.state != "dropped":
                echo(f"{generation.documents} documents in {generation.table_uri}", err=True)
        typed = click.prompt(f"This cannot be undone. Type {name} to delete it", err=True)
    if typed != name:
        raise ConfigurationError(f"{typed!r} is not {name!r}, so nothing was deleted", "Type the name of the corpus.")
