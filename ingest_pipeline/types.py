"""The values that all packages share. Nothing here reads or writes anything."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Literal, get_args
from uuid import UUID

import numpy as np
import numpy.typing as npt

from ingest_pipeline.errors import ConfigurationError

OnUnreadable = Literal["skip", "fail"]
"""What a run does about files that cannot be read."""
ChunkUnit = Literal["characters", "tokens"]
"""What the size and the overlap of chunks count."""
SearchMode = Literal["vector", "text", "hybrid"]
SEARCH_MODES: tuple[SearchMode, ...] = get_args(SearchMode)
GREATEST_HEADER = 1_000
"""Characters of the headings that are embedded with a chunk, at most."""
HEADING_SEPARATOR = " > "
"""Between the headings of a path."""
TAG_MARK = "+columns:"
"""Separates the ETag of an object from the tag of its columns, in the ETag of a document."""
_ENRICHERS_MARK = "+"
"""In the fingerprint of a recipe, precedes the part that the enrichers decide."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 document`, `1,200 documents`.

    Args:
        number: The number.
        noun: The noun after 1.
        plural: The noun after any other number. Default: with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


@dataclass(frozen=True, slots=True)
class SourceObject:
    """A document as a listing of the source shows it."""

    key: str
    """Path under the source prefix."""
    etag: str
    size: int
    """Bytes."""
    last_modified: datetime
    sidecar: SourceObject | None = field(default=None, compare=False)
    """The object beside it with values of columns, if the corpus has columns and there is one."""
    column_tag: str = field(default="", compare=False)
    """Differs if something besides the object's bytes changed that its columns depend on. Empty: no columns."""

    @property
    def document_etag(self) -> str:
        """The ETag that the catalog records: that of the object, and the tag of its columns if the corpus has some."""
        return f"{self.etag}{TAG_MARK}{self.column_tag}" if self.etag and self.column_tag else self.etag

    def is_too_recent(self, min_age_seconds: int, now: datetime) -> bool:
        """Whether the object was modified so recently that it may still be incomplete. Clocks may differ."""
        modified = max(self.last_modified, self.sidecar.last_modified) if self.sidecar else self.last_modified
        return abs((now - modified).total_seconds()) < min_age_seconds


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A part of a document's extracted text. The texts of all its pieces, concatenated, are the extracted text."""

    text: str
    page: int | None = None
    """Page on which the piece begins, from 1. None: the format has no pages."""
    heading: tuple[str, ...] | None = None
    """Path of headings above the piece, outermost first. None: headings are found in the text."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A contiguous piece of a document's extracted text: ``text == extracted[start:end]``."""

    ordinal: int
    """Position among the document's chunks, from 0."""
    start: int
    """Offset of the first character, in code points."""
    end: int
    """Offset after the last character, in code points."""
    text: str
    page: int | None = None
    """Page on which it begins, from 1. None: the format has no pages."""
    last_page: int | None = None
    """Page on which it ends."""
    headings: tuple[str, ...] = ()
    """Path of the headings above it, outermost first."""
    header: str | None = None
    """What is embedded before its text. None: the text alone is embedded."""
    columns: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)
    """Values of its own columns, as enrichers found them."""

    @property
    def heading(self) -> str | None:
        """The path of headings as one line, None if there is none."""
        return joined_headings(self.headings)

    @property
    def embedded_text(self) -> str:
        """What is sent to the model and hashed."""
        return embedded_text(self.header, self.text)

    @property
    def text_hash(self) -> UUID:
        """Key of the vector in all look-ups."""
        return text_hash(self.embedded_text)


def joined_headings(path: tuple[str, ...]) -> str | None:
    """A path of headings as one line, None if it is empty."""
    return HEADING_SEPARATOR.join(path) or None


def embedded_text(header: str | None, text: str) -> str:
    """What is sent to the model for a chunk with this header and text."""
    return text if header is None else f"{header}\n\n{text}"


def object_etag(document_etag: str) -> str:
    """The ETag of the object alone, from the one that the catalog records of a document."""
    return document_etag.rpartition(TAG_MARK)[0] if TAG_MARK in document_etag else document_etag


def column_tag(document_etag: str) -> str:
    """The tag of the columns, from the ETag that the catalog records of a document."""
    return document_etag.rpartition(TAG_MARK)[2] if TAG_MARK in document_etag else ""


def corpus_name(name: str) -> str:
    """Return the name if it can name a corpus, a table and a part of an asset key.

    Raises:
        ConfigurationError: The name is not valid.
    """
    return _checked_name("corpus", name, "Correct INGEST_CORPUS.")


def table_name(name: str) -> str:
    """Return the name if it can name a table of the user's own.

    Raises:
        ConfigurationError: It cannot.
    """
    return _checked_name("table", name, "Rename the table.")


def _checked_name(kind: str, name: str, remedy: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"The {kind} name {name!r} must be lower-case letters, digits and underscores, beginning with a letter",
            remedy,
        )
    return name


def text_hash(text: str) -> UUID:
    """The first 128 bits of a text's SHA-256."""
    return UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])


def chunk_id(document: str, hashed: UUID, occurrence: int) -> UUID:
    """The id of a chunk. A chunk keeps its id when other parts of the document are edited.

    Args:
        document: Key of the document.
        hashed: Hash of the chunk's text.
        occurrence: Number of earlier chunks in the document with the same text.
    """
    name = b"\0".join((document.encode(), hashed.bytes, str(occurrence).encode()))
    return UUID(bytes=hashlib.sha256(name).digest()[:16])


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings that decide what a document becomes, besides its bytes."""

    parser: str
    chunker: str
    chunk_size: int
    """Maximum number of characters or tokens in a chunk, see `chunk_unit`."""
    chunk_overlap: int
    """Characters or tokens that a chunk repeats from the one before it."""
    embedding_model: str
    embedding_dimensions: int
    encoding: str | None = None
    """Encoding of text that is neither UTF-8 nor marked."""
    user_chunker: str | None = None
    """Fingerprint of the user's chunker. None: there is none."""
    parsers: tuple[tuple[str, str], ...] = ()
    """Suffixes that the user's parsers parse, each with the fingerprint of its parser, by suffix."""
    heading_context: bool = False
    """Whether the headings above a chunk are embedded and indexed with it."""
    prompt: str = ""
    """What the model is sent with each text of a document, encoded; see `embedding.prompts`."""
    chunk_unit: ChunkUnit = "characters"
    """What `chunk_size` and `chunk_overlap` count."""
    tokenizer: str = ""
    """What counts tokens; see `chunking.tokenizer`."""
    max_tokens: int | None = None
    """The model's limit on one input. Chunks that exceed it are divided."""
    enrichers: tuple[str, ...] = ()
    """Fingerprints of the user's enrichers, in order. Only columns depend on them."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal recipes, and short enough to read. `chunks_fingerprint` returns its first part."""
        return _fingerprint(self)

    def of(self, key: str) -> Recipe:
        """The recipe of one document. Of the user's parsers it has only the one that parses the document."""
        return self.for_suffix(PurePosixPath(key).suffix.lower()) if self.parsers else self

    def fingerprint_of(self, key: str) -> str:
        """Fingerprint of the recipe of one document."""
        return self.of(key).fingerprint

    def for_suffix(self, suffix: str) -> Recipe:
        """The recipe of documents whose keys end like this, in lower case."""
        return _for_suffix(self, suffix)

    @property
    def fingerprints(self) -> frozenset[str]:
        """Fingerprints of all recipes that documents may have."""
        return frozenset(self.for_suffix(suffix).fingerprint for suffix in ("", *dict(self.parsers)))

    @property
    def embedding(self) -> str:
        """Model, dimensions and prompt: equal for all vectors of one table."""
        return join_embedding(self.embedding_model, self.embedding_dimensions, self.prompt)


@lru_cache(256)
def _fingerprint(recipe: Recipe) -> str:
    parts = asdict(recipe)
    enrichers = parts.pop("enrichers")
    return _digest(parts, 16) + (f"{_ENRICHERS_MARK}{_digest(enrichers, 8)}" if enrichers else "")


def _digest(value: object, digits: int) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:digits]


def chunks_fingerprint(fingerprint: str) -> str:
    """The part of a recipe's fingerprint that is equal for equal chunks and vectors, whatever the enrichers."""
    return fingerprint.partition(_ENRICHERS_MARK)[0]


@lru_cache(256)
def _for_suffix(recipe: Recipe, suffix: str) -> Recipe:
    return replace(recipe, parsers=tuple(one for one in recipe.parsers if one[0] == suffix))


def join_embedding(model: str, dimensions: int, prompt: str = "") -> str:
    """One name for a model, the width of its vectors and the encoded document prompt, if there is one."""
    return f"{model}/{dimensions}" + (f"?{prompt}" if prompt else "")


def split_embedding(embedding: str) -> tuple[str, int, str]:
    """Model, dimensions and encoded prompt from the form that `join_embedding` gives them."""
    model, _, rest = embedding.rpartition("/")
    dimensions, _, prompt = rest.partition("?")
    return model, int(dimensions), prompt


@dataclass(frozen=True, slots=True)
class Retention:
    """How long versions are kept. A version is kept as long as either rule keeps it."""

    days: int = 7
    """Days since a version ceased to be head."""
    publications: int = 20
    """The newest publications that added or removed rows. Versions made by maintenance do not count."""


DEFAULT_RETENTION = Retention()


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk's row in the catalog."""

    id: UUID
    document: str
    ordinal: int
    start_offset: int
    end_offset: int
    text_hash: UUID
    saga: UUID
    page: int | None = None
    last_page: int | None = None
    heading: str | None = None
    columns: dict[str, str | int | float | bool | list[str]] = field(
        default_factory=dict[str, str | int | float | bool | list[str]], hash=False
    )
    """Recorded values of the columns of chunks."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a gate found in a prepared publication."""

    figure: str
    """Name of the figure, such as `recall`, or of the gate of the user."""
    value: float
    limit: float | None = None
    """None: the figure has no limit."""
    passed: bool = True
    ids: tuple[str, ...] = ()
    """Documents, chunks or questions that exceed the limit, the first of them."""

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" (limit {self.limit:g})"
        return f"{self.figure} {self.value:.4g}{limit}"


@dataclass(frozen=True, slots=True)
class MovedChunks:
    """Consecutive chunks of a document that an edit moves and does not change."""

    first: int
    """Ordinal of the first of them before the edit."""
    last: int
    """Ordinal after the last of them, before the edit."""
    ordinal_shift: int
    """What the edit adds to their ordinals."""
    offset_shift: int
    """What the edit adds to their offsets."""


Vectors = npt.NDArray[np.float32]


Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Usage:
    """The work and tokens that embedding some chunks took."""

    embedded: int = 0
    """Chunks whose text was sent to the model."""
    cached: int = 0
    """Chunks for which a vector existed."""
    tokens: int = 0
    """Tokens as the API bills them, 0 if the API does not report them. Includes billed answers that are unusable."""
    requests: int = 0
    """Requests sent, retries included."""
    retries: int = 0
    """Requests that were sent again after a temporary fault."""
    seconds: float = 0.0
    """Wall time: of a batch's requests, or of a document from its first byte to its last row."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.embedded + other.embedded,
            self.cached + other.cached,
            self.tokens + other.tokens,
            self.requests + other.requests,
            self.retries + other.retries,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Price:
    """One entry of a price list."""

    model: str
    per_million_tokens: Decimal
    currency: str
    """Three letters, as in ISO 4217."""
    as_of: date
    """Date of the price list."""
    per_million_tokens_in_batch: Decimal | None = None
    """Price at the Batch endpoint. None: not configured; it is not derived from the other price."""

    def cost(self, tokens: int) -> Decimal:
        """The cost of a number of tokens."""
        return self.per_million_tokens * tokens / 1_000_000

    def in_batch(self) -> Price | None:
        """The price at the Batch endpoint, None if it is not configured."""
        amount = self.per_million_tokens_in_batch
        return None if amount is None else replace(self, per_million_tokens=amount)
