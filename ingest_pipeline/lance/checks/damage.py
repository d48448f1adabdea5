"""Distinguishes a damaged file of a table from a store that does not answer.

Lance raises the same errors for both, and a repair that mistook an outage for damage would remove good rows. So a
fragment counts as damaged only if the store lists the folder and the file is missing or has another size than the
manifest says, or if the whole file was fetched and cannot be decoded.

Lance keeps no checksums. If bytes change and the format stays valid, the audit finds the change in a text, an offset or
an id, but not in a vector that is still finite.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import lance
from lance.file import LanceFileReader, LanceFileSession
from lance.fragment import LanceFragment

from ingest_pipeline.lance.changes import signature

_BATCH_ROWS = 1024
# Errors of object_store for a request without a response. An error about a range beyond an object's end is a response.
_UNANSWERED = ("Generic S3 error", "Generic GCS error", "Generic MicrosoftAzure error", "error sending request")
_ANSWERED = ("416", "InvalidRange")


@dataclass(frozen=True, slots=True)
class DamagedFragment:
    """A fragment of a version whose rows cannot be read."""

    number: int
    file: str
    """The damaged file, relative to the table's folder."""
    reason: str
    signature: str
    """Equal signatures mean the same fragment, also in another version."""

    def __str__(self) -> str:
        return f"fragment {self.number} cannot be read: {self.file} {self.reason}"


def may_be_damage(reason: str) -> bool:
    """Whether a damaged file may have caused an error of Lance, so that a check is worth its time."""
    return not any(text in reason for text in _UNANSWERED) or any(text in reason for text in _ANSWERED)


def damaged_fragments(
    dataset: lance.LanceDataset, files: LanceFileSession, numbers: Iterable[int] | None, *, read: bool
) -> list[DamagedFragment]:
    """The fragments of a version that cannot be read.

    Args:
        dataset: The table at the version.
        files: The files of the table's folder.
        numbers: Ids of the fragments to check. None: all.
        read: Read the fragments to their end. Otherwise only compare the sizes of their files with the manifest.

    Raises:
        OSError, ValueError, RuntimeError: The store does not answer, so nothing is known.
    """
    wanted = None if numbers is None else set(numbers)
    listed = dataset.all_files().read_all()
    sizes = dict(zip(listed["path"].to_pylist(), listed["size_bytes"].to_pylist(), strict=True))
    return [
        damage
        for fragment in dataset.get_fragments()
        if wanted is None or fragment.fragment_id in wanted
        if (damage := _damage(fragment, files, sizes, read=read)) is not None
    ]


def _damage(
    fragment: LanceFragment, files: LanceFileSession, sizes: Mapping[str, int], *, read: bool
) -> DamagedFragment | None:
    metadata = fragment.metadata
    data = {f"data/{file.path}": file.file_size_bytes for file in metadata.files}
    deletions = None if metadata.deletion_file is None else metadata.deletion_file.path(metadata.id)
    for name, size in {**data, **({deletions: None} if deletions else {})}.items():
        if name not in sizes:
            return DamagedFragment(metadata.id, name, "is missing", signature(fragment))
        if size is not None and size != sizes[name]:
            reason = f"has {sizes[name]} bytes instead of {size}"
            return DamagedFragment(metadata.id, name, reason, signature(fragment))
    if not read or _failure_of(lambda: _read(fragment)) is None:
        return None
    for name in data:
        problem = _decoding(files, name)
        if problem is not None:
            return DamagedFragment(metadata.id, name, f"cannot be decoded: {problem}", signature(fragment))
    again = _failure_of(lambda: _read(fragment))
    if again is None or deletions is None:
        return None
    fetch(files, deletions)
    return DamagedFragment(metadata.id, deletions, f"cannot be decoded: {again}", signature(fragment))


def _read(fragment: LanceFragment) -> None:
    for _ in fragment.scanner(batch_size=_BATCH_ROWS).to_batches():
        pass


def _decoding(files: LanceFileSession, name: str) -> str | None:
    """Why a completely fetched file cannot be decoded; None if it can."""
    with tempfile.TemporaryDirectory() as directory:
        copy = str(Path(directory) / "copy.lance")
        files.download_file(name, copy)

        def decode() -> None:
            for _ in LanceFileReader(copy).read_all(batch_size=_BATCH_ROWS).to_batches():
                pass

        return _failure_of(decode)


def fetch(files: LanceFileSession, name: str) -> None:
    """Read a whole file and discard it, to prove that the store answers."""
    with tempfile.TemporaryDirectory() as directory:
        files.download_file(name, str(Path(directory) / "copy"))


def _failure_of(call: Callable[[], object]) -> str | None:
    try:
        call()
    except (OSError, ValueError, RuntimeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0].partition(", /")[0][:200]
    except BaseException as error:
        if not is_panic(error):
            raise
        return str(error)[:200]
    return None


def is_panic(error: BaseException) -> bool:
    """Whether an error is a panic of Lance, which some damaged files cause. Its class cannot be imported."""
    return type(error).__name__ == "PanicException"
