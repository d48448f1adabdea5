"""Options of a corpus: how its documents are cut into chunks."""

from __future__ import annotations

from pydantic import BaseModel, Field

from ingest_pipeline.types import ChunkUnit


class ChunkOptions(BaseModel):
    """The options of a corpus that are about the size of its chunks."""

    chunk_size: int = Field(default=1000, description="Characters in a chunk, at most; see `chunk_unit`.")
    chunk_overlap: int = Field(
        default=0, description="Characters that a chunk repeats of the one before it, at most; see `chunk_unit`."
    )
    chunk_unit: ChunkUnit = Field(
        default="characters",
        description="Whether chunk_size and chunk_overlap are characters, or tokens of the embedding model.",
        examples=["tokens"],
    )
    tokenizer: str | None = Field(
        default=None,
        description="What counts tokens: the file tokenizer.json of the embedding model, or cl100k_base, "
        "wordllama-l2-256 or bytes. Default: that of OpenAI's models and of the local one; of any other, a token for "
        "each byte.",
        examples=["models/e5/tokenizer.json"],
    )
    embedding_max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that the embedding model takes of one text, at most. Larger chunks are divided. Default: "
        "what the documentation of the model says; no limit for unknown models.",
        examples=[512],
    )
