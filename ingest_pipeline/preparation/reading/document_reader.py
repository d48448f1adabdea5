"""Turns the bytes of one document into chunks. Documents of text are streamed and never in memory as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from time import perf_counter

from ingest_pipeline.chunking.blocks import Block, BlockRecorder, encoded, is_large_enough
from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.chunking.cut_texts import CutText, WholeText
from ingest_pipeline.chunking.recut import Recut, recut
from ingest_pipeline.columns.sources import MAX_FRONT_MATTER
from ingest_pipeline.config.spending_limits import NO_LIMITS, SpendingLimits
from ingest_pipeline.errors import DocumentTooLargeError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.parsing.built_in_parsers import is_markdown, is_parsed, parse
from ingest_pipeline.parsing.user_parsers import TEXT_BYTES, UserParser
from ingest_pipeline.preparation.reading.extension_calls import ExtensionCalls
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.telemetry.stopwatch import Stopwatch
from ingest_pipeline.types import Chunk, Recipe, SourceObject, TextPiece, counted


class DocumentReader:
    """Reads one document once. Its counts and its hash are complete after the last chunk was taken.

    Args:
        source: The document.
        recipe: The recipe, which names the encoding and whether headings are embedded.
        calls: Calls the user's parsers, chunker and enrichers. None: the built-in ones are used.
    """

    def __init__(self, source: SourceObject, recipe: Recipe, calls: ExtensionCalls | None = None) -> None:
        self.source = source
        self._recipe = recipe
        self._calls = calls
        self._parser = None if calls is None else calls.extensions.parser_of(source.key)
        self.columns: Mapping[str, object] = {}
        """What the user's parser and enrichers found. Known before the first chunk."""
        self.characters = 0
        """Number of characters of the text extracted so far."""
        self.chunk_count = 0
        self.head = ""
        """The beginning of the text: its first piece."""
        self.work = Stopwatch()
        """Seconds of reading, parsing and chunking."""
        self.reading = Stopwatch()
        """Seconds of reading and parsing."""
        self._digest = hashlib.sha256()
        self._recorder = BlockRecorder()
        self._blocks: list[Block] | None = None
        self._content: bytes | None = None
        self._cut_text: CutText | None = None
        self._has_places = False

    @property
    def content_hash(self) -> str:
        """SHA-256 of the bytes read so far, hexadecimal."""
        return self._digest.hexdigest()

    @property
    def blocks(self) -> bytes | None:
        """The record of the document's blocks. None: it is small, its text has pages, or code of the user cuts it."""
        if self._has_places or self.is_whole:
            return None
        if self._cut_text is not None:
            return self._cut_text.blocks
        return encoded(self._recorder.blocks if self._blocks is None else self._blocks)

    def read_whole(self, store: ObjectSource) -> WholeText:
        """Read all bytes of a document of text. `chunks` takes them from memory then.

        Raises:
            DocumentError, DocumentChangedError, SourceUnavailableError: As `chunks`.
        """
        start = perf_counter()
        self._content = b"".join(self._hashed(store.read(self.source)))
        seconds = perf_counter() - start
        self.reading.seconds += seconds
        self.work.seconds += seconds
        return WholeText(self.source.key, self._content, is_large_enough(self.source.size))

    def take(self, text: CutText) -> None:
        """Let `chunks` return what another process has cut."""
        self._cut_text, self.characters, self._content = text, text.characters, None
        self.work.seconds += text.seconds

    def recut(self, store: ObjectSource, chunker: Chunker, blocks: Sequence[Block], most: int) -> Recut | None:
        """Cut the document where it differs from an earlier one, instead of `chunks`.

        Args:
            store: The source.
            chunker: The chunker that cut the earlier document.
            blocks: The blocks of the earlier document.
            most: Chunks to cut again, at most.

        Returns:
            The chunks. None: more would have to be cut again, or the text has pages. The reader is used up then.

        Raises:
            DocumentError, DocumentChangedError, SourceUnavailableError: As `chunks`.
        """
        key = self.source.key
        pieces = self._counted(parse(key, self._hashed(store.read(self.source)), encoding=self._recipe.encoding))
        texts = (piece.text for piece in takewhile(lambda _: not self._has_places, pieces))
        start = perf_counter()
        found = recut(chunker, texts, markdown=is_markdown(key), blocks=blocks, most=most)
        self.work.seconds += perf_counter() - start
        if found is None or self._has_places:
            return None
        self.chunk_count, self._blocks = found.chunk_count, found.blocks
        return found

    def chunks(self, store: ObjectSource, chunker: Chunker, limits: SpendingLimits = NO_LIMITS) -> Iterator[Chunk]:
        """The document's chunks, without reading ahead of what they need. An empty document has none.

        A document that may have too many chunks is counted before its first chunk is returned.

        Raises:
            DocumentTooLargeError: It has more chunks than the limits allow for a document.
            DocumentError: The document cannot be ingested as it is.
            DocumentChangedError: The object is not the one that was listed.
            SourceUnavailableError: The store does not answer.
        """
        return self.work.timed(self._chunks(store, chunker, limits))

    def _chunks(self, store: ObjectSource, chunker: Chunker, limits: SpendingLimits) -> Iterator[Chunk]:
        if self.is_whole:
            cut = list(self._cut(self._whole(store), chunker))
            self.limit(len(cut), limits)  # before anything is paid for them
            if self._calls is not None and self._calls.enriches:
                cut = self._calls.enrich_chunks(self.source.key, self.content_hash, cut)
            chunks = iter(cut)
        else:
            chunks = self._streamed(store, chunker, limits)
        for chunk in chunks:
            self.chunk_count += 1
            self.limit(self.chunk_count, limits)
            yield chunk

    def _streamed(self, store: ObjectSource, chunker: Chunker, limits: SpendingLimits) -> Iterator[Chunk]:
        if self._cut_text is not None:
            self.limit(len(self._cut_text.chunks), limits)
            return iter(self._cut_text.chunks)
        key, encoding = self.source.key, self._recipe.encoding
        step = chunker.step
        if not is_parsed(key) and limits.may_exceed_chunks(self.source.size, step):
            content = store.read(self.source) if self._content is None else [self._content]
            self._check(parse(key, content, encoding=encoding), chunker, limits)
        content = self._hashed(store.read(self.source)) if self._content is None else [self._content]
        pieces: Iterable[TextPiece] = self._counted(parse(key, content, encoding=encoding))
        if is_parsed(key):
            pieces = list(pieces)  # the parser has the whole text in any case
            if limits.may_exceed_chunks(self.characters, step):
                self._check(pieces, chunker, limits)
        recorder = self._recorder if is_parsed(key) or is_large_enough(self.source.size) else None
        return chunker.chunks(pieces, markdown=is_markdown(key), blocks=recorder)

    @property
    def is_whole(self) -> bool:
        """Whether the whole document is read at once, because code of the user gets it."""
        if self._calls is None:
            return False
        extensions, enriches = self._calls.extensions, self._calls.enriches
        return bool(extensions.chunker or self._parser or (enriches and extensions.enrichers))

    def _whole(self, store: ObjectSource) -> list[TextPiece]:
        """The whole text. Sets the columns that the user's parser and enrichers find."""
        key = self.source.key
        blocks = self._hashed(store.read(self.source))
        if self._parser is None:
            pieces = list(self._counted(parse(key, blocks, encoding=self._recipe.encoding), TEXT_BYTES))
        else:
            pieces = list(self._counted(self._parsed(self._parser, blocks)))
        if self._calls is not None and self._calls.enriches:
            self.columns = self._calls.enrich(key, self.content_hash, pieces, self.columns)
        return pieces

    def _parsed(self, parser: UserParser, blocks: Iterable[bytes]) -> Iterator[TextPiece]:
        key, content = self.source.key, bytearray()
        for block in blocks:
            content += block
            if len(content) > TEXT_BYTES:
                raise DocumentTooLargeError(
                    key, f"has more than {TEXT_BYTES} bytes, which is too large for a parser of the user"
                )
        if not content.strip():
            return
        assert self._calls is not None  # noqa: S101  the parser is one of its extensions
        pieces, self.columns = self._calls.parse(parser, key, self.content_hash, bytes(content))
        yield from pieces

    def _cut(self, pieces: Sequence[TextPiece], chunker: Chunker) -> Iterator[Chunk]:
        key = self.source.key
        if self._calls is not None and (cutter := self._calls.extensions.chunker) is not None:
            return cutter.chunks(key, pieces, chunker.size, chunker.overlap, chunker.model_input)
        return chunker.chunks(pieces, markdown=self._parser is not None or is_markdown(key))

    def _check(self, pieces: Iterable[TextPiece], chunker: Chunker, limits: SpendingLimits) -> None:
        for count, _ in enumerate(chunker.chunks(pieces, markdown=is_markdown(self.source.key)), 1):
            self.limit(count, limits)

    def limit(self, chunks: int, limits: SpendingLimits) -> None:
        """Refuse a document of so many chunks if the limits do not allow it.

        Raises:
            DocumentTooLargeError: It has more chunks.
        """
        most = limits.chunks_per_document
        if most is not None and chunks > most:
            raise DocumentTooLargeError(
                self.source.key,
                f"has more than {counted(most, 'chunk')}",
                "Its published version, if any, was not changed. To ingest it, raise INGEST_MAX_CHUNKS (max_chunks of "
                "a component) and run `ingest-pipeline retry`. To exclude it, set INGEST_EXCLUDE.",
            )

    def _hashed(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        with boundary(Boundary.SOURCE_READ):
            for block in blocks:
                self._digest.update(block)
                yield block

    def _counted(self, pieces: Iterable[TextPiece], most: int | None = None) -> Iterator[TextPiece]:
        for piece in self.reading.timed(pieces):
            self.head = self.head or piece.text[:MAX_FRONT_MATTER]
            self.characters += len(piece.text)
            self._has_places = self._has_places or piece.page is not None or piece.heading is not None
            if most is not None and self.characters > most:
                problem = f"has more than {most} characters, which is too large for a chunker or enricher of the user"
                raise DocumentTooLargeError(self.source.key, problem)
            yield piece


def content_hash(store: ObjectSource, source: SourceObject) -> str:
    """SHA-256 of an object's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with boundary(Boundary.SOURCE_READ):
        for block in store.read(source):
            digest.update(block)
    return digest.hexdigest()
