"""Fingerprints, to compare many rows of two stores in little memory: a count and a sum of hashes for each document.

Equal sets of rows have equal sums, in any order. Unequal sets have equal sums only by accident, once in 2**64, which is
no defence against an attacker. Rows arrive in blocks and are hashed as arrays. Memory grows with the number of
documents, and by 12 bytes with each row of the table, to find ids that occur twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest_pipeline.types import embedded_text

Words = npt.NDArray[np.uint64]
# Constants of the mixing function splitmix64 (Steele, Lea and Flood, 2014).
_STEP, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_UUID_LENGTH = 36
_DIGITS = [index for index in range(_UUID_LENGTH) if index not in (8, 13, 18, 23)]
_NO_DIGIT = 255
_NIBBLES = np.full(256, _NO_DIGIT, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint8)


@dataclass(slots=True)
class Fingerprints:
    """Counts and sums of one store, by document number."""

    counts: npt.NDArray[np.int64]
    sums: Words

    @classmethod
    def of(cls, documents: int) -> Fingerprints:
        """Fingerprints of no rows."""
        return cls(np.zeros(documents, np.int64), np.zeros(documents, np.uint64))

    def add(self, numbers: npt.NDArray[np.int64], hashes: Words) -> None:
        """Add rows.

        Args:
            numbers: The document number of each row, shape (n,); arrays grow for numbers beyond their end.
            hashes: The hash of each row, shape (n,).
        """
        missing = int(numbers.max(initial=-1)) + 1 - len(self.counts)
        if missing > 0:
            self.counts = np.append(self.counts, np.zeros(missing, np.int64))
            self.sums = np.append(self.sums, np.zeros(missing, np.uint64))
        np.add.at(self.counts, numbers, 1)
        np.add.at(self.sums, numbers, hashes)


@dataclass(slots=True)
class TableRows:
    """The rows of a table as they are read: their fingerprints, and which documents have invalid rows."""

    keys: dict[str, int]
    """The number of each document; documents that the catalog does not have are added."""
    prints: Fingerprints
    suspects: set[int] = field(default_factory=set[int])
    """Documents with a row that is invalid in itself, whatever the catalog contains."""
    _ids: list[Words] = field(default_factory=list[Words])
    _owners: list[npt.NDArray[np.int32]] = field(default_factory=list[npt.NDArray[np.int32]])

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a batch with the columns of a chunk."""
        numbers = self._numbers(batch.column("document"))
        uuids, good = zip(*(uuid_words(batch.column(name)) for name in ("id", "text_hash", "saga")), strict=True)
        ordinal, start, end = (
            batch.column(name).to_numpy(zero_copy_only=False).astype(np.int64)
            for name in ("ordinal", "start_offset", "end_offset")
        )
        page, last_page = (
            batch.column(name).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            for name in ("page", "last_page")
        )
        headings = _text_words(batch.column("heading"))
        self.prints.add(numbers, row_hashes([*uuids, headings], ordinal, start, end, page, last_page))
        valid = np.logical_and.reduce([*good, _texts_fit(batch, uuids[1], end - start), _finite(batch)])
        self.suspects.update(np.unique(numbers[~valid]).tolist())
        self._ids.append(uuids[0][:, 0] ^ uuids[0][:, 1])
        self._owners.append(numbers.astype(np.int32))

    def duplicates(self) -> set[int]:
        """Documents with an id that occurs twice in the table, and perhaps a few more."""
        if not self._ids:
            return set()
        ids, owners = np.concatenate(self._ids), np.concatenate(self._owners)
        ascending = np.argsort(ids)
        same = np.flatnonzero(ids[ascending][1:] == ids[ascending][:-1])
        return set(owners[ascending[same]].tolist()) | set(owners[ascending[same + 1]].tolist())

    def _numbers(self, column: pa.Array) -> npt.NDArray[np.int64]:
        encoded = column.dictionary_encode()
        known = [self.keys.setdefault(key, len(self.keys)) for key in encoded.dictionary.to_pylist()]
        codes: npt.NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False)
        return np.array(known, np.int64)[codes]


def row_hashes(uuids: Sequence[Words], *numbers: npt.NDArray[np.int64]) -> Words:
    """One hash for each row.

    Args:
        uuids: Id, text hash, saga and the hash of the heading, each of shape (n, 2).
        numbers: Ordinal, start offset, end offset, page and last page, each of shape (n,). A missing page is 0.
    """
    words = [half for uuid in uuids for half in (uuid[:, 0], uuid[:, 1])]
    words += [one.astype(np.uint64) for one in numbers]
    mixed = np.zeros(len(uuids[0]), np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            mixed = _mix(mixed + word + _STEP)
    return mixed


def _mix(words: Words) -> Words:
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


def uuid_words(column: pa.Array) -> tuple[Words, npt.NDArray[np.bool_]]:
    """Ids from their text form, as two numbers each, shape (n, 2); and which of them are valid, shape (n,)."""
    lengths = pc.call_function("binary_length", [column]).to_numpy(zero_copy_only=False)
    good = lengths == _UUID_LENGTH
    if not good.all():
        column = pc.call_function("if_else", [pa.array(good), column, pa.scalar("0" * _UUID_LENGTH)])
    text = np.frombuffer("".join(column.to_pylist()).encode(), np.uint8)
    nibbles = _NIBBLES[text.reshape(-1, _UUID_LENGTH)[:, _DIGITS]]
    good = good & (nibbles != _NO_DIGIT).all(axis=1)
    whole = np.ascontiguousarray((nibbles[:, ::2] << 4) | (nibbles[:, 1::2] & 15))
    return whole.view(">u8").astype(np.uint64).reshape(-1, 2), good


def _texts_fit(batch: pa.RecordBatch, stated: Words, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each text has, with its header, the recorded hash, and the length that its offsets give."""
    texts = batch.column("text")
    embedded = map(embedded_text, batch.column("header").to_pylist(), texts.to_pylist())
    real = _words(embedded)
    characters = pc.call_function("utf8_length", [texts]).to_numpy(zero_copy_only=False)
    return np.asarray((real == stated).all(axis=1) & (characters == lengths), np.bool_)


def _text_words(column: pa.Array) -> Words:
    """Hashes of texts that occur in many rows, as two numbers each, shape (n, 2). A missing text counts as empty."""
    encoded = column.fill_null("").dictionary_encode()
    codes: npt.NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False)
    return _words(encoded.dictionary.to_pylist())[codes]


def _words(texts: Iterable[str]) -> Words:
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:16] for text in texts)
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)


def _finite(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    vectors = batch.column("vector")
    width = vectors.type.list_size
    flat = vectors.values.slice(vectors.offset * width, len(vectors) * width).to_numpy(zero_copy_only=False)
    whole = vectors.is_valid().to_numpy(zero_copy_only=False)
    return np.asarray(np.isfinite(flat.reshape(-1, width)).all(axis=1) & whole, np.bool_)


def differing(catalog: Fingerprints, table: Fingerprints) -> Iterable[int]:
    """The numbers of the documents whose rows differ."""
    size = max(len(catalog.counts), len(table.counts))
    pairs = ((catalog.counts, table.counts), (catalog.sums, table.sums))
    wrong = np.zeros(size, np.bool_)
    for one, other in pairs:
        wrong |= np.pad(one, (0, size - len(one))) != np.pad(other, (0, size - len(other)))
    return np.flatnonzero(wrong).tolist()
