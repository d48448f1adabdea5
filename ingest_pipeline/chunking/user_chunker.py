"""Loads the chunker of the user and calls it, from the parent process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ingest_pipeline.chunking.base import Span
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.chunking.sections import Sections
from ingest_pipeline.chunking.user_chunker_role import read_answer, request
from ingest_pipeline.errors import ExtensionError
from ingest_pipeline.extensions.loader import Extension
from ingest_pipeline.extensions.pool import Hook
from ingest_pipeline.extensions.protocol import InvalidResultError
from ingest_pipeline.types import Chunk, TextPiece

_ROLE = "ingest_pipeline.chunking.user_chunker_role"
_RESULT_BYTES = 32 << 20
_ANY_INPUT: Final = ModelInput()


@dataclass(frozen=True)
class UserChunker:
    """A chunker of the user. It runs in a child process because nothing else ends code that hangs or exits."""

    hook: Hook

    @classmethod
    def load(cls, extension: Extension) -> UserChunker:
        """Load a chunker.

        Raises:
            ConfigurationError: It cannot be loaded or does not fit the protocol.
        """
        return cls(Hook.load(extension, _ROLE, ["chunks"], ExtensionError))

    def chunks(
        self,
        document: str,
        pieces: Sequence[TextPiece],
        size: int,
        overlap: int,
        model_input: ModelInput = _ANY_INPUT,
    ) -> Iterator[Chunk]:
        """Cut a document. Chunks get pages and headings as those of the built-in chunker do.

        Args:
            document: Its key.
            pieces: Its text.
            size: Characters of a chunk, at most.
            overlap: Characters that a chunk may repeat, at most.
            model_input: What the model is sent with a chunk. Spans that it would not take as a whole are divided.

        Yields:
            Chunks by ascending offset, none of them blank.

        Raises:
            DocumentError: The chunker failed with this document.
            ConfigurationError: Its child process does not start.
        """
        text = "".join(piece.text for piece in pieces)
        if not text or text.isspace():
            return
        sections = Sections(markdown=True, model_input=model_input)
        for part in sections.texts(pieces):
            sections.read(part)
        before = 0
        for span in self._spans(document, pieces, text, size, overlap):
            yield from sections.chunks(
                span.start, text[span.start : span.end], max(span.start, before), headings=span.heading
            )
            before = span.end

    def _spans(self, document: str, pieces: Sequence[TextPiece], text: str, size: int, overlap: int) -> Sequence[Span]:
        try:
            data = request(pieces)
        except InvalidResultError as error:
            raise ExtensionError(document, f"cannot be sent to the {self.hook.name}: {error}") from None
        found = self.hook.run(document, {"key": document, "chunk_size": size, "overlap": overlap}, data, _RESULT_BYTES)
        return self.hook.checked(document, found, lambda result: read_answer(result, text, size, overlap))
