"""The corpus that a command works on: that of the project around the current folder, or that of the environment."""

from __future__ import annotations

import click

from ingest_pipeline.cli._group import CORPUS, RENAME
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.origin import ENVIRONMENT
from ingest_pipeline.config.project import ConfiguredCorpus, configured_corpus
from ingest_pipeline.errors import CorpusMismatchError
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.catalog.recipes import changed_settings, read_recipes

_CHOSEN = f"{__name__}.chosen"
_OPTIONS = {
    "chunk_size": {"chunk_size"},
    "chunk_overlap": {"chunk_overlap"},
    "encoding": {"encoding"},
    "heading_context": {"heading_context"},
    "embedding_model": {"embedding_model", "embedder"},
    "embedding_dimensions": {"embedding_dimensions"},
    "user_chunker": {"chunker"},
    "enrichers": {"enricher"},
    "parsers": {"parser"},
    "prompt": {"document_prefix", "document_fields"},
}
"""Options that determine each part of a recipe."""


def settings(name: str | None = None) -> CorpusConfig:
    """The configuration of the corpus that `--corpus`, INGEST_CORPUS or the project names.

    Args:
        name: Name of the corpus, instead of the one that `--corpus` names.

    Raises:
        ConfigurationError: There is no such corpus, the choice is not clear, or a value is wrong.
    """
    meta = click.get_current_context().meta
    chosen = meta[_CHOSEN] = configured_corpus(name or meta.get(CORPUS))
    meta[RENAME] = chosen.origin.renamed
    return chosen.config


def chosen_corpus() -> ConfiguredCorpus | None:
    """The corpus that `settings` has returned, with the place of its definition. None: `settings` was not called."""
    context = click.get_current_context(silent=True)
    return context.meta.get(_CHOSEN) if context else None


def check_recipe(context: IngestContext, *, confirmed: bool = False) -> None:
    """Refuse to write with another recipe than the definition of the corpus says.

    In a project, the file is the definition, and variables may not change the recipe. Elsewhere the recipe in force is
    all that is known of the definition. Changes of the file or of the release are left to the recipe guard.

    Args:
        context: The ingest context of the corpus.
        confirmed: Whether the user confirmed the other recipe.

    Raises:
        CorpusMismatchError: The recipe is another one. Nothing was changed.
    """
    chosen = chosen_corpus()
    origin = ENVIRONMENT if chosen is None else chosen.origin
    with context.corpus.database.transaction() as connection:
        known = read_recipes(connection, context.corpus.generation)
    if confirmed or (known and known[-1].fingerprint == context.recipe.fingerprint):
        return
    changes = changed_settings(known[-1], context.recipe) if known else {}
    if origin.file is not None:
        overriding = {part for part, options in _OPTIONS.items() if origin.variables & options}
        changes = {part: changes.get(part, origin.setting(part)) for part in overriding if part in changes or not known}
    if changes:
        name, file = context.corpus.name, origin.file
        whose = f"corpus {name!r}" if file is None else f"{file} says for corpus {name!r}"
        raise CorpusMismatchError(
            f"The settings have another recipe than {whose}: {', '.join(changes.values())}. Nothing was changed",
            "Run the command in the project that defines the corpus, or set these settings back. To ingest the "
            "documents again with these settings, run `ingest-pipeline ingest --confirm-recipe`.",
        )
