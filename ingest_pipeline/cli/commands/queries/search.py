"""The command `search`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

import click
from rich.console import Console

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._hits import print_hits
from ingest_pipeline.cli._numbers import WholeNumber
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.postgres.catalog.corpora import read_access
from ingest_pipeline.postgres.catalog.documents import count_documents
from ingest_pipeline.search.configured_search import SearchClients, configured_search
from ingest_pipeline.search.expand import EXPANSIONS, Expand
from ingest_pipeline.types import SEARCH_MODES, SearchMode, counted


@command
@click.argument("question")
@click.option(
    "--mode",
    type=click.Choice(SEARCH_MODES),
    default="hybrid",
    show_default=True,
    help="Search by meaning, by words, or by both.",
)
@click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Search only documents that meet a condition such as key=docs/* or size>1000. Can be repeated.",
)
@click.option(
    "--principal",
    "principals",
    multiple=True,
    metavar="NAME",
    help="Search the documents that this user or group may find. Can be repeated.",
)
@click.option(
    "--expand",
    type=click.Choice(EXPANSIONS),
    help="Show each chunk with its neighbours, or the whole section around it.",
)
@click.option(
    "--limit", type=WholeNumber(1, 100_000), default=5, show_default=True, help="Maximum number of chunks to show."
)
@as_json
def search(
    question: str,
    *,
    mode: SearchMode,
    conditions: Sequence[str],
    principals: Sequence[str],
    expand: Expand | None,
    limit: int,
    as_json: bool,
) -> None:
    """Find the chunks at head that match a question best."""
    settings = _settings.settings()
    if not question.strip():
        raise ConfigurationError("The question is empty", "Write some words to search for.")
    with _session.corpus(settings) as corpus:
        hits = asyncio.run(
            configured_search(
                SearchClients.of(settings),
                corpus,
                question,
                limit,
                mode=mode,
                conditions=conditions,
                principals=principals or None,
                expand=expand,
            )
        )
        nothing = "" if hits else _why_nothing(corpus, mode, conditions, principals)
    if as_json:
        print_json([dataclasses.asdict(hit) for hit in hits])
        return
    if nothing:
        echo(nothing)
    print_hits(Console(), question, hits)


def _why_nothing(corpus: Corpus, mode: SearchMode, conditions: Sequence[str], principals: Sequence[str]) -> str:
    """A sentence for a search without hits: why there may be none, and what to try."""
    with corpus.database.transaction() as connection:
        documents = count_documents(connection, corpus.generation)
        is_restricted = read_access(connection, corpus.name).column is not None
    if not documents:
        return f"Corpus {corpus.name} has no documents yet. Run `ingest-pipeline ingest`."
    if is_restricted and not principals:
        return "Access to the documents is restricted. Name a user or group with --principal to find what it may find."
    what = f"Nothing matches in {counted(documents, 'document')} at version {corpus.head().head_version}."
    if conditions:
        return f"{what} Search with fewer --where conditions."
    if principals:
        return f"{what} Documents that {' and '.join(principals)} may not find are not searched."
    return f"{what} --mode hybrid searches by meaning too." if mode == "text" else what
