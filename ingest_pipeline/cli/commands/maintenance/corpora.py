"""The commands `corpora`, `relocate` and `drop`, which are about whole corpora."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._output import print_facts, to_dict
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.options.stores import absolute_location, check_lancedb_uri
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.ingestion.context import named_corpus
from ingest_pipeline.maintenance.drop import drop_corpus, generations_of
from ingest_pipeline.postgres.catalog.corpora import (
    Generation,
    GenerationState,
    GenerationSummary,
    generation_summaries,
)
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.restore.relocate import check_model, check_width, move_source, move_tables, rename_model
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.types import counted


@command
@as_json
def corpora(*, as_json: bool) -> None:
    """List the corpora of the database, with their tables, sources and models."""
    with (
        _session.postgres(_settings.settings()) as running,
        Database(running.database_url or "") as database,
        database.transaction() as connection,
    ):
        found = generation_summaries(connection)
    if as_json:
        print_json([_as_value(name, generations) for name, generations in _by_corpus(found).items()])
        return
    if not found:
        echo("The database has no corpus yet. `ingest-pipeline ingest` creates one.")
        return
    echo(counted(len(_by_corpus(found)), "corpus", "corpora"))
    for one in found:
        facts = [
            (
                "documents",
                f"{counted(one.documents, 'document')}, {counted(one.chunks, 'chunk')} at version {one.head_version}",
            ),
            ("model", one.embedding or "none"),
            ("source", one.source or "none: a table of your own"),
            ("table", one.table_uri),
        ]
        state = "" if one.state == GenerationState.CURRENT else f", {one.state} generation"
        print_facts(f"{one.corpus}{state}", facts)


def _by_corpus(found: Sequence[GenerationSummary]) -> Mapping[str, list[GenerationSummary]]:
    grouped: dict[str, list[GenerationSummary]] = defaultdict(list)
    for one in found:
        grouped[one.corpus].append(one)
    return grouped


def _as_value(name: str, generations: Sequence[GenerationSummary]) -> dict[str, object]:
    current = next((one for one in generations if one.state == GenerationState.CURRENT), generations[0])
    return {**to_dict(current), "corpus": name, "generations": [to_dict(one) for one in generations]}


@command
@click.option("--table", "folder", metavar="URI", help="Folder into which the LanceDB tables were copied.")
@click.option("--source", "url", metavar="URL", help="Where the same documents are now.")
@click.option(
    "--embedding-model", "model", metavar="NAME", help="New name of the same model, for example of a deployment."
)
@as_json
def relocate(folder: str | None, url: str | None, model: str | None, *, as_json: bool) -> None:
    """Point the corpus to a table folder, a source or a model that was moved or renamed.

    Nothing is copied or embedded. The command refuses a location or a model whose content differs from the old one.
    """
    if folder is None and url is None and model is None:
        raise click.UsageError("Name what was moved: --table, --source or --embedding-model.")
    settings = _settings.settings()
    done: dict[str, object] = {"corpus": settings.corpus}
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        if folder is not None:
            there = check_lancedb_uri(absolute_location(folder), "--table")
            done["tables"] = move_tables(database, settings.corpus, there)
        if url is not None:
            done["source"] = _move_source(
                named_corpus(database, settings.corpus), ObjectSource(absolute_location(url), settings.follow_links)
            )
        if model is not None:
            done |= _rename(named_corpus(database, settings.corpus), running, model)
    if as_json:
        print_json(done)
        return
    for name, value in done.items():
        echo(f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    echo("Now change the settings (variables or component) of everything that uses the corpus.")


def _move_source(corpus: Corpus, source: ObjectSource) -> str:
    if corpus.head().source is None:
        raise ConfigurationError(f"{corpus.name!r} is a table of your own and has no source. Nothing was changed")
    if next(source.list(), None) is None:
        raise ConfigurationError(f"The source {source.url} has no documents. Nothing was changed", "Correct the url.")
    move_source(corpus, source.url)
    return source.url


def _rename(corpus: Corpus, settings: CorpusConfig, model: str) -> dict[str, object]:
    old = check_width(corpus.head().embedding, settings.embedding_dimensions)
    recipe = replace(settings.recipe, embedding_model=old)
    asyncio.run(_check_model(corpus, settings, model))
    renamed = rename_model(corpus, recipe, model)
    return {"embedding_model": model, "was": old, **asdict(renamed)}


async def _check_model(corpus: Corpus, settings: CorpusConfig, model: str) -> None:
    """Embed one text of the corpus with the model, and compare the vectors."""
    embedder = settings.embedder if model == settings.embedding_model else None
    named = settings.replace(embedding_model=model, embedder=embedder)
    async with _session.embedder(named, named.recipe.embedding) as embedder:
        await check_model(corpus, embedder)


@command
@click.argument("name")
@click.option(
    "--yes-delete", "typed", metavar="NAME", help="Repeat the name to confirm. Without this option, the command asks."
)
@as_json
def drop(name: str, typed: str | None, *, as_json: bool) -> None:
    """Delete a corpus with its tables, its catalog, and its partitions in Dagster.

    Stop its sensors first, because a running sensor creates the corpus again. An interrupted drop can be repeated.
    """
    from ingest_pipeline.cli import _dagster  # noqa: PLC0415  the other commands need no Dagster
    from ingest_pipeline.reporting.partitions import forget_partitions  # noqa: PLC0415
    from ingest_pipeline.resources.names import DagsterNames  # noqa: PLC0415

    settings = _settings.settings()
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        _confirm(name, generations_of(database, name), typed)
        dropped = drop_corpus(database, name)
        with _dagster.instance(running) as instance:
            partitions = forget_partitions(instance, DagsterNames(name, settings.key_prefix_parts))
    if as_json:
        print_json({**to_dict(dropped), "partitions": partitions})
        return
    for uri in dropped.kept:
        echo(f"The table at {uri} was not created by this package and was not deleted.", err=True)
    echo(
        f"Corpus {name} is deleted: {counted(dropped.documents, 'document')}, "
        f"{counted(len(dropped.tables), 'table')}, {counted(partitions, 'partition')} in Dagster"
    )


def _confirm(name: str, found: Sequence[Generation], typed: str | None) -> None:
    if typed is None:
        for generation in found:
            if generation.state != GenerationState.DROPPED:
                echo(f"{counted(generation.documents, 'document')} in {generation.table_uri}", err=True)
        typed = click.prompt(f"This cannot be undone. Type {name} to delete it", err=True)
    if typed != name:
        raise ConfigurationError(f"{typed!r} is not {name!r}, so nothing was deleted", "Type the name of the corpus.")
