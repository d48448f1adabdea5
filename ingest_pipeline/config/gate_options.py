"""The options of golden sets, by which searches are scored."""

from __future__ import annotations

from pydantic import BaseModel, Field

from ingest_pipeline.types import SearchMode


class GateOptions(BaseModel):
    """The options of a corpus that are about golden sets."""

    golden_set: str | None = Field(
        default=None,
        description="File of questions with the documents, chunks or texts that a search must find: JSON Lines, YAML "
        "or CSV. `eval` scores it.",
        examples=["golden.jsonl"],
    )
    golden_k: int = Field(default=5, ge=1, le=1000, description="The first chunks of a search that count for a score.")
    golden_mode: SearchMode = Field(
        default="hybrid",
        description="How the questions of the golden set search: vector, text or hybrid. `vector` shows faults of a "
        "model most clearly.",
        examples=["vector"],
    )
