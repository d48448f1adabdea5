"""Cuts text into chunks, as a stream, so that an edit changes only the chunks around it.

Two cuts, one inside the other. The outer one cuts the text into *windows* at places that the text itself chooses: of
the paragraph breaks between a least and a greatest distance, the first that a heading follows, or whose preceding
characters hash to a given residue with no heading near. The choice depends on nothing far away, so after an edit the
windows fall back into step within one or two, and where a section begins they nearly always are in step. This is
content-defined chunking as in LBFS (Muthitacharoen et al., SOSP 2001) and FastCDC (Xia et al., USENIX ATC 2016), on
paragraph breaks instead of bytes. The inner cut packs each window into chunks with semantic-text-splitter, which
starts afresh in every window. Then the last chunk of a window is joined with the first chunk of the next window, if one
chunk has room for both and no heading begins that window. Windows up to the next one that is not joined are a *run*: no
edit moves a cut beyond the end of its own run, except where a join depends on the first chunk after it.

The constants were chosen by counting over edits of one place and moves of a section. Windows from 0.5 to 4 chunk sizes,
at headings and at one other break in six, change 1 chunk in the median and 2 to 3 at the 95th percentile. Joins save
one chunk in fifteen and change neither. Sections shorter than the least window are what a move still costs: windows
from 0.2 sizes make it cheaper. `docs/chunking.md` has the figures of this way and of a dozen others, which fill chunks
further and make edits dearer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from ingest_pipeline.chunking.blocks import BlockRecorder, CutState, Place
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.chunking.sections import Sections
from ingest_pipeline.chunking.tokenizer import Splitter, token_bound
from ingest_pipeline.chunking.windows import AHEAD, GREATEST_WINDOW, WindowCut
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.types import GREATEST_HEADER, Chunk, ChunkUnit, TextPiece

CHUNKER: Final = "joined-windows-1/semantic-text-splitter-0.33"
"""Part of the recipe. A new value means that the same text may be cut at other positions."""

LEAST_SIZE: Final = 50
GREATEST_SIZE: Final = 16_384
"""Four chunks of this size fill a window of 64 KB. The splitter's cost per character grows with its input."""

CHARACTERS_PER_TOKEN: Final = 4
"""Of English text. It sets the size of windows if the size of chunks is in tokens."""
_BYTES_PER_CHARACTER: Final = 4
_USUAL_HEADER: Final = 128
"""Characters of headings that chunks leave room for if they are embedded. Longer ones divide chunks."""

_GREATEST_RUN: Final = 16
"""Chunk sizes after which the last chunk of a window is not continued, so that runs of windows have an end."""
_ANY_INPUT: Final = ModelInput()

_WORD_START: Final = re.compile(r"\s(?=\S)")
_NO_SPACE: Final = re.compile(r"\S")


class Chunker:
    """Cuts extracted text into chunks of at most ``size`` characters, or tokens.

    Args:
        size: Characters in a chunk at most, 50 to 16,384, or tokens, 50 to 4,096.
        overlap: Characters or tokens at most that a chunk repeats of the one before it, white space at either end not
            counted.
        unit: Whether both are characters or tokens.
        model_input: What the model is sent with a chunk, and how much it takes. Chunks that it would not take as a
            whole are divided.

    Raises:
        ConfigurationError: ``size`` is out of bounds, ``overlap`` is negative or not smaller than ``size``, or what is
            sent with each text leaves too little room for it.
    """

    def __init__(
        self, size: int, overlap: int, *, unit: ChunkUnit = "characters", model_input: ModelInput = _ANY_INPUT
    ) -> None:
        greatest = GREATEST_SIZE if unit == "characters" else GREATEST_SIZE // CHARACTERS_PER_TOKEN
        if not LEAST_SIZE <= size <= greatest:
            raise ConfigurationError(
                f"A chunk size of {size} is out of bounds",
                f"Set INGEST_CHUNK_SIZE between {LEAST_SIZE} and {greatest} {unit}.",
            )
        if not 0 <= overlap < size:
            raise ConfigurationError(
                f"A chunk overlap of {overlap} does not fit a chunk size of {size}",
                "Set INGEST_CHUNK_OVERLAP to 0 or more, and below INGEST_CHUNK_SIZE.",
            )
        self.unit: ChunkUnit = unit
        self.model_input = model_input
        self.size = min(size, self._greatest_that_fits(size))
        self.overlap = min(overlap, self.size // 2) if self.size < size else overlap

    @property
    def characters(self) -> int:
        """Characters of a full chunk: at most, or about so many if sizes are in tokens."""
        return self.size if self.unit == "characters" else self.size * CHARACTERS_PER_TOKEN

    @property
    def step(self) -> int:
        """Characters of a full chunk that it does not repeat, of text that the model divides into many tokens."""
        room = self.model_input.room
        return self.size - self.overlap if room is None else max(1, min(self.size - self.overlap, room))

    @property
    def max_tokens(self) -> int:
        """Tokens of what is sent for one chunk, at most, whatever the text."""
        given = self.model_input
        header = GREATEST_HEADER if given.heading_context else 0
        size = self.size if self.unit == "tokens" else self.size * _BYTES_PER_CHARACTER
        most = size + header * _BYTES_PER_CHARACTER + token_bound(given.prefix)
        return most if given.max_tokens is None else min(most, given.max_tokens)

    def _greatest_that_fits(self, size: int) -> int:
        """The size of chunks that the model takes as a whole, where it can be known without their text."""
        room = self.model_input.room
        if room is None:
            return size
        if room < LEAST_SIZE:
            raise ConfigurationError(
                f"The embedding model takes {self.model_input.max_tokens} tokens, and what is sent with each text "
                f"leaves {room} of them",
                "Shorten INGEST_DOCUMENT_PREFIX, or raise INGEST_EMBEDDING_MAX_TOKENS.",
            )
        if self.unit == "characters" and self.model_input.tokenizer.is_exact:
            return size  # characters may be more or fewer tokens
        if not self.model_input.heading_context:
            return room
        return max(
            LEAST_SIZE, room - (_USUAL_HEADER // (CHARACTERS_PER_TOKEN if self.model_input.tokenizer.is_exact else 1))
        )

    def splitter(self, *, markdown: bool) -> Splitter:
        """The inner cut."""
        if self.unit == "tokens":
            return self.model_input.tokenizer.splitter(self.size, self.overlap, markdown=markdown)
        return (MarkdownSplitter if markdown else TextSplitter)(self.size, self.overlap)

    def chunks(
        self, pieces: Iterable[TextPiece], *, markdown: bool, blocks: BlockRecorder | None = None
    ) -> Iterator[Chunk]:
        """Cut the concatenated texts of ``pieces``. How the text is divided into pieces does not move a cut.

        Holds little more than three windows in memory, 4 ``characters`` each at most.

        Args:
            pieces: The extracted text, in order.
            markdown: Whether headings, lists, tables and code blocks of Markdown are kept together. Else headings are
                titles that are underlined.
            blocks: Records the blocks of the text, so that an edited text can be cut from them.

        Yields:
            Chunks by ascending offset, none of them blank. Without overlap no two share a character, and every
            character that is not white space is in one. The headings of a chunk are those above its first character
            that it does not repeat.
        """
        sections = Sections(markdown=markdown, model_input=self.model_input)
        cutting = Cutting(self, sections, markdown=markdown)
        for window in cutting.cut.windows(sections.texts(pieces)):
            if cutting.closes_before(window):
                yield from cutting.last()
                if blocks is not None and blocks.begins:
                    blocks.begin(cutting.place())
            yield from cutting.chunks(window)
            if blocks is not None:
                blocks.add(window)
        yield from cutting.last()
        if blocks is not None:
            blocks.end(cutting.chunk_count)

    def takes(self, text: str) -> bool:
        """Whether a text is short enough for one chunk."""
        fits = len(text) <= self.size if self.unit == "characters" else self.model_input.tokenizer.fits(text, self.size)
        return fits and self.model_input.fits(text)

    def repeated(self, window: str) -> str:
        """The end of a window that the next one sees again: at most ``overlap`` long, from a word's start."""
        if self.overlap == 0:
            return ""
        if self.unit == "characters":
            return _from_word(window[-self.overlap :])
        tail = _from_word(window[-self.overlap * CHARACTERS_PER_TOKEN :])
        while not self.model_input.tokenizer.fits(tail, self.overlap):
            tail = _from_word(tail[len(tail) // 4 + 1 :])
        return tail

    @property
    def greatest_lead(self) -> int:
        """Characters before a window, at most, that the window may repeat."""
        return self.overlap if self.unit == "characters" else self.overlap * CHARACTERS_PER_TOKEN

    @property
    def greatest_window(self) -> int:
        """Characters that decide where a window ends, from its beginning on, at most."""
        return GREATEST_WINDOW * self.characters + AHEAD


class Cutting:
    """Cuts one document, window after window.

    Args:
        chunker: The chunker, with its sizes.
        sections: The sections of the document, at the beginning of the first window.
        markdown: Whether the text is Markdown.
        start: Offset of the first window.
        lead: The end of the window before, which the first window sees again.
        end: Where the chunk before the first window ends.
    """

    def __init__(
        self, chunker: Chunker, sections: Sections, *, markdown: bool, start: int = 0, lead: str = "", end: int = 0
    ) -> None:
        self._chunker = chunker
        self._sections = sections
        self._splitter = chunker.splitter(markdown=markdown)
        self._start = start
        self._end = end
        self._lead = lead
        self._run_start = start
        self._last: _Span | None = None
        """The last chunk of the last window, which the next window may continue."""
        self._last_to_end = ""
        """The text from there to the end of that window."""
        self._next: list[_Span] = []
        self.cut = WindowCut.of_chunks(chunker.characters, markdown=markdown)

    def closes_before(self, window: str) -> bool:
        """Whether the last chunk ends before the next window. Else it is joined with the first chunk of that window.

        They are joined if one chunk has room for both, unless a heading begins the window.
        """
        self._next = self._spans(window)
        if self._last is None or not self._next or self.cut.begins_with_heading(window):
            return True
        if self._start - self._run_start >= _GREATEST_RUN * self._chunker.characters:
            return True
        first, *others = self._next
        if others and others[0].begin <= self._last.begin:  # it repeats more than the last chunk has
            return True
        joined = _Span(self._last.begin, self._last_to_end + window[: first.end - self._start])
        if not self._chunker.takes(joined.text):
            return True
        self._next = [joined, *others]
        return False

    def last(self) -> Iterator[Chunk]:
        """The last chunk, after `closes_before` or at the end of the text."""
        if self._last is not None:
            yield from self._numbered(self._last)
        self._last, self._last_to_end, self._run_start = None, "", self._start

    def chunks(self, window: str) -> Iterator[Chunk]:
        """The chunks of the next window, after `closes_before`. The last of them waits for the window after it."""
        self._sections.read(window)
        text, begin = self._last_to_end + window, self._start - len(self._last_to_end)
        if self._lead and not self._last_to_end:
            text, begin = self._lead + window, self._start - len(self._lead)
        for span in self._next[:-1]:
            yield from self._numbered(span)
        if self._next:
            self._last = self._next[-1]
            self._last_to_end = text[self._last.begin - begin :]
        self._start += len(window)
        self._lead = self._chunker.repeated(window)
        keep = self._start - len(self._lead)
        self._sections.forget(keep if self._last is None else min(keep, self._last.begin))

    def _spans(self, window: str) -> list[_Span]:
        """How the splitter cuts the next window."""
        found: list[_Span] = []
        for offset, text in self._splitter.chunk_indices(self._lead + window):
            span = _Span(self._start - len(self._lead) + offset, text)
            # What ends inside the lead was in a chunk already; the splitter's idea of white space is not Python's.
            if span.end > self._start and not text.isspace():
                found.append(span)
        return found

    def _numbered(self, span: _Span) -> Iterator[Chunk]:
        new = _NO_SPACE.search(span.text, max(0, self._end - span.begin))
        self._end = span.end
        yield from self._sections.chunks(span.begin, span.text, span.begin + new.start() if new else span.begin)

    @property
    def chunk_count(self) -> int:
        """Number of the document's chunks so far."""
        return self._sections.chunk_count

    def place(self) -> Place:
        """All that the next windows depend on, besides their texts."""
        known = self._sections.place(self._start)
        # Chunks of the next window begin in the lead, at the earliest.
        state = CutState(
            len(self._lead),
            max(self._end - self._start, -len(self._lead)),
            max(known.last_begin - self._start, -len(self._lead) - 1),
            known.headings,
        )
        return Place(self._start, known.chunk_count, known.context, self._lead, state)


@dataclass(frozen=True, slots=True)
class _Span:
    """A text and its offset in the document."""

    begin: int
    text: str

    @property
    def end(self) -> int:
        return self.begin + len(self.text)


def _from_word(text: str) -> str:
    word = _WORD_START.search(text)
    return text[word.end() :] if word else ""
