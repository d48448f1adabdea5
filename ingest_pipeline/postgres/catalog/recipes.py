"""The recipes of a generation, current and earlier ones, as the row of the generation records them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import Recipe

_SETTINGS = {
    "chunk_size": "INGEST_CHUNK_SIZE (chunk_size)",
    "chunk_overlap": "INGEST_CHUNK_OVERLAP (chunk_overlap)",
    "chunk_unit": "INGEST_CHUNK_UNIT (chunk_unit)",
    "tokenizer": "INGEST_TOKENIZER (tokenizer)",
    "max_tokens": "INGEST_EMBEDDING_MAX_TOKENS (embedding_max_tokens)",
    "prompt": "INGEST_DOCUMENT_PREFIX and INGEST_DOCUMENT_FIELDS",
    "heading_context": "INGEST_HEADING_CONTEXT (heading_context)",
    "parser": "the parser of this release",
    "chunker": "the chunker of this release",
    "user_chunker": "INGEST_CHUNKER (chunker)",
    "enrichers": "INGEST_ENRICHER (enricher)",
    "parsers": "INGEST_PARSER (parser)",
}
# Parts that a release determines, and the model, which only re-embedding changes.
_NOT_SETTINGS = {"parser", "chunker", "embedding_model", "embedding_dimensions"}


@dataclass(frozen=True, slots=True)
class RecordedRecipe:
    """A recipe as it was recorded, possibly by a release whose recipes had other parts."""

    fingerprint: str
    parts: dict[str, object]
    since: datetime


@dataclass(frozen=True, slots=True)
class DocumentsByRecipe:
    """Counts of the documents at head, by whether a given recipe made them."""

    latest: int
    of_other_recipes: int
    """Number of documents that another recipe made."""
    characters: int
    """Total text length of those that would be cut and embedded again. An enricher alone embeds nothing."""


def read_recipes(connection: Connection, generation: str) -> list[RecordedRecipe]:
    """Return the recipes, oldest first, the last one in force; [] before the first run over the whole source."""
    return _parsed(connection.execute(query("read_recipes"), {"name": generation}).fetchone())


def put_in_force(connection: Connection, generation: str, recipe: Recipe) -> None:
    """Put a recipe in force. The previous one is kept in the list of earlier recipes."""
    found = _parsed(connection.execute(query("lock_recipes"), {"name": generation}).fetchone())
    if found and found[-1].fingerprint == recipe.fingerprint:
        return
    values = {"name": generation, "fingerprint": recipe.fingerprint, "parts": json.dumps(asdict(recipe))}
    connection.execute(query("put_recipe_in_force"), values)


def documents_by_recipe(connection: Connection, generation: str, recipe: Recipe) -> DocumentsByRecipe:
    """Count the documents at head that this recipe made, and those that other recipes made."""
    values = {"generation": generation, **recipe_values(recipe)}
    row = connection.execute(query("documents_by_recipe"), values).fetchone()
    return DocumentsByRecipe(**row) if row else DocumentsByRecipe(0, 0, 0)


def recipe_values(recipe: Recipe) -> dict[str, object]:
    """Parameters of a query that compares recipes of documents: fingerprints by the suffix of the key."""
    suffixes = list(dict(recipe.parsers))
    return {
        "recipe": recipe.for_suffix("").fingerprint,
        "suffixes": suffixes,
        "recipes": [recipe.for_suffix(suffix).fingerprint for suffix in suffixes],
    }


def difference(old: RecordedRecipe, new: Recipe) -> str:
    """Describe the parts that differ between two recipes, each with its old and new value."""
    return ", ".join(_changes(old, new).values())


def changed_settings(old: RecordedRecipe, new: Recipe) -> dict[str, str]:
    """Describe the parts that differ between two recipes, without those that no setting can change."""
    return {name: change for name, change in _changes(old, new).items() if name not in _NOT_SETTINGS}


def _changes(old: RecordedRecipe, new: Recipe) -> dict[str, str]:
    parts: dict[str, object] = json.loads(json.dumps(asdict(new)))  # as they were recorded
    names = [name for name in {**old.parts, **parts} if old.parts.get(name) != parts.get(name)]
    return {name: f"{_SETTINGS.get(name, name)} from {old.parts.get(name)} to {parts.get(name)}" for name in names}


def _parsed(row: dict[str, list[dict[str, object]]] | None) -> list[RecordedRecipe]:
    found: Sequence[dict[str, object]] = row["recipes"] if row else ()
    return [
        RecordedRecipe(str(one["fingerprint"]), _mapping(one["parts"]), datetime.fromisoformat(str(one["since"])))
        for one in found
    ]


def _mapping(value: object) -> dict[str, object]:
    return {str(name): part for name, part in value.items()} if isinstance(value, dict) else {}
