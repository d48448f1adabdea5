"""Cuts an edited text: blocks whose text is known keep their chunks, and only what is between them is cut again.

Where a window ends depends on the text from its beginning on, up to a window's greatest extent. So a block is known if
its text is the recorded one, what the chunker knows where it begins is the recorded state, and enough of the text after
it belongs to known blocks too. The chunks are those of a chunker that reads the whole text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from ingest_pipeline.chunking.blocks import LEAST_BLOCK, Block, CutState, Place, text_digest
from ingest_pipeline.chunking.content_defined import Chunker, Cutting
from ingest_pipeline.chunking.headings import CONTEXT
from ingest_pipeline.chunking.sections import SectionPlace, Sections
from ingest_pipeline.types import Chunk, MovedChunks

# Compared before the chunks of any of them are kept, so that little of a long text is in memory.
_BLOCKS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class CutAgain:
    """Consecutive chunks before an edit, and those that were cut in their place."""

    first: int
    """Ordinal of the first of them before the edit."""
    last: int
    """Ordinal after the last of them."""
    chunks: list[Chunk]


@dataclass(slots=True)
class Recut:
    """An edited text as chunks that are kept and chunks that were cut again."""

    kept: list[MovedChunks] = field(default_factory=list[MovedChunks])
    cut: list[CutAgain] = field(default_factory=list[CutAgain])
    blocks: list[Block] = field(default_factory=list[Block])
    """The blocks of the edited text."""
    chunk_count: int = 0


def recut(
    chunker: Chunker, texts: Iterable[str], *, markdown: bool, blocks: Sequence[Block], most: int
) -> Recut | None:
    """Cut an edited text.

    Args:
        chunker: The chunker that cut the text before the edit.
        texts: The edited text, in pieces without pages and headings of their own.
        markdown: As for the chunker.
        blocks: The blocks of the text before the edit.
        most: Chunks to cut again, at most.

    Returns:
        The chunks. None: more would have to be cut again.
    """
    return _Recutting(chunker, texts, markdown=markdown, blocks=blocks).run(most)


class _Recutting:
    def __init__(self, chunker: Chunker, texts: Iterable[str], *, markdown: bool, blocks: Sequence[Block]) -> None:
        self._chunker = chunker
        self._markdown = markdown
        self._text = _Text(texts)
        self._old = blocks
        self._starts = [0, *accumulate(block.length for block in blocks)]
        self._ordinals = [0, *accumulate(block.chunks for block in blocks)]
        self._by_context: defaultdict[bytes, list[int]] = defaultdict(list)
        for index, block in enumerate(blocks):
            self._by_context[block.context].append(index)
        self._before = max(CONTEXT, chunker.greatest_lead)
        self._start = 0
        self._index = 0
        """The first old block that was not passed yet."""
        self._done = Recut()

    def run(self, most: int) -> Recut | None:
        known = self._known(0, 0)
        while not self._text.ends_at(self._start):
            if known:
                self._keep(known)
                known = self._known(self._start, self._index)
                continue
            cut = self._cut(most)
            if cut is None:
                return None
            chunks, index, known = cut
            self._done.cut.append(CutAgain(self._ordinals[self._index], self._ordinals[index], chunks))
            self._index = index
            most -= len(chunks)
        if self._index < len(self._old):  # the text ends where an old block began
            self._done.cut.append(CutAgain(self._ordinals[self._index], self._ordinals[-1], []))
        return self._done

    def _known(self, start: int, index: int) -> int:
        """How many blocks of the text from an offset on are the old ones from an index on."""
        count, end = 0, start
        for block in self._old[index : index + _BLOCKS_AT_ONCE]:
            text = self._text.get(end, end + block.length)
            if len(text) < block.length or text_digest(text) != block.digest:
                break
            count += 1
            end += block.length
        if index + count == len(self._old) and self._text.ends_at(end):
            return count
        following = 0
        while count and following < self._chunker.greatest_window:
            count -= 1
            following += self._old[index + count].length
        return count

    def _keep(self, count: int) -> None:
        first, last = self._ordinals[self._index], self._ordinals[self._index + count]
        done, shift = self._done, self._start - self._starts[self._index]
        if last > first:
            done.kept.append(MovedChunks(first, last, done.chunk_count - first, shift))
        done.chunk_count += last - first
        done.blocks += self._old[self._index : self._index + count]
        self._index += count
        self._start = self._starts[self._index] + shift
        self._text.forget(self._start - self._before)

    def _cut(self, most: int) -> tuple[list[Chunk], int, int] | None:
        """Cut windows until an old block is found again, or the text ends.

        Returns:
            The chunks, the index of that block, and how many blocks are known from there on. None: too many chunks.
        """
        cutting = self._cutting()
        chunks: list[Chunk] = []
        runs: list[tuple[Place, str]] = []
        place, run = cutting.place(), ""
        while not self._text.ends_at(self._start):
            piece = self._text.get(self._start, self._start + self._chunker.greatest_window + 1)
            window = piece[: cutting.cut.first(piece, 0, is_end=len(piece) <= self._chunker.greatest_window)]
            if cutting.closes_before(window) and run:
                chunks += cutting.last()
                runs.append((place, run))
                place, run = cutting.place(), ""
                if found := self._found(place):
                    return self._add(runs, place.chunk_count, chunks), *found
            chunks += cutting.chunks(window)
            run += window
            self._start += len(window)
            if len(chunks) > most:
                return None
        chunks += cutting.last()
        runs.append((place, run))
        return self._add(runs, cutting.chunk_count, chunks), len(self._old), 0

    def _add(self, runs: Sequence[tuple[Place, str]], chunk_count: int, chunks: list[Chunk]) -> list[Chunk]:
        """Record the blocks of runs that were cut into chunks."""
        self._done.chunk_count += len(chunks)
        self._done.blocks += _blocks(runs, chunk_count)
        return chunks

    def _found(self, place: Place) -> tuple[int, int] | None:
        """The old block that begins at a place, and how many are known from there on."""
        for index in self._by_context.get(place.digest, ()):
            if index >= self._index and self._old[index].state == place.state:
                known = self._known(place.start, index)
                if known:
                    return index, known
        return None

    def _cutting(self) -> Cutting:
        """The chunker at the beginning of a block that is no longer known."""
        start, state = self._start, self._old[self._index].state if self._index < len(self._old) else CutState()
        before = self._text.get(max(0, start - self._before), start)
        context = (before if start > self._before else f"\n{before}")[-CONTEXT:]
        lead = before[len(before) - state.repeated :]
        at = SectionPlace(start, self._done.chunk_count, start + state.last_begin, context, state.headings)
        sections = Sections(markdown=self._markdown, model_input=self._chunker.model_input, place=at)
        return Cutting(self._chunker, sections, markdown=self._markdown, start=start, lead=lead, end=start + state.end)


def _blocks(runs: Sequence[tuple[Place, str]], chunk_count: int) -> list[Block]:
    """The blocks of consecutive runs of windows. `chunk_count` is the number of chunks up to their end."""
    groups: list[list[tuple[Place, str]]] = []
    length = LEAST_BLOCK
    for place, run in runs:
        if length >= LEAST_BLOCK:
            groups.append([])
            length = 0
        groups[-1].append((place, run))
        length += len(run)
    if length < LEAST_BLOCK and len(groups) > 1:
        short = groups.pop()
        groups[-1] += short
    counts = [*(group[0][0].chunk_count for group in groups), chunk_count]
    return [
        Block(
            sum(len(run) for _, run in group),
            after - before,
            text_digest(*(run for _, run in group)),
            group[0][0].digest,
            group[0][0].state,
        )
        for group, before, after in zip(groups, counts, counts[1:], strict=False)
    ]


class _Text:
    """A text that arrives in pieces. Only the part in use is in memory."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._buffer = ""
        self._start = 0
        self._is_complete = False

    def get(self, start: int, end: int) -> str:
        """The text between two offsets; a shorter one at the end of the document."""
        self._read(end)
        return self._buffer[start - self._start : end - self._start]

    def ends_at(self, offset: int) -> bool:
        """Whether the document ends at an offset, or before it."""
        self._read(offset + 1)
        return self._start + len(self._buffer) <= offset

    def forget(self, before: int) -> None:
        """Drop what precedes an offset."""
        gone = before - self._start
        if gone > len(self._buffer) // 2:  # so that the rest is not copied too often
            self._buffer = self._buffer[gone:]
            self._start += gone

    def _read(self, end: int) -> None:
        parts, length = [self._buffer], len(self._buffer)
        while self._start + length < end and not self._is_complete:
            piece = next(self._pieces, None)
            if piece is None:
                self._is_complete = True
            else:
                parts.append(piece)
                length += len(piece)
        if len(parts) > 1:
            self._buffer = "".join(parts)
