"""Telling a damaged file of a table from a store that does not answer.

Lance raises the same errors for both, and whoever takes an outage for damage takes good rows out. So a fragment counts
as damaged only if the store lists the folder and the file is not there or has another size than the manifest says, or
if the whole file was fetched and cannot be decoded.

Lance keeps no checksum. Bytes that changed without breaking the format are found by the audit if they are of a text, an
offset or an id, and by nobody if they are of a vector that is still finite.
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

_ROWS_AT_ONCE = 1024
# What object_store says of a request that was not answered. A range behind the end of an object is an answer.
_UNANSWERED = ("Generic S3 error", "Generic GCS error", "Generic MicrosoftAzure error", "error sending request")
_ANSWERED = ("416", "InvalidRange")


@dataclass(frozen=True, slots=True)
class DamagedFragment:
    """A fragment of a version whose rows cannot be read."""

    number: int
    file: str
    """Which of its files, relative to the table's folder."""
    reason: str
    signature: str
    """Equal: the same fragment, in whichever version."""

    def __str__(self) -> str:
        return f"fragment {self.number} cannot be read: {self.file} {self.reason}"


def may_be_damage(reason: str) -> bool:
    """Whether an error of Lance may come from a damaged file, so that looking is worth the time."""
    return not any(said in reason for said in _UNANSWERED) or any(said in reason for said in _ANSWERED)


def damaged_fragments(
    dataset: lance.LanceDataset, files: LanceFileSession, numbers: Iterable[int] | None, *, read: bool
) -> list[DamagedFragment]:
    """Which fragments of a version cannot be read.

    Args:
        dataset: At the version.
        files: Of the table's folder.
        numbers: Ids of those to look at. None: all.
        read: Read them to their end. Else only compare the sizes of their files with what the manifest says.

    Raises:
        OSError, ValueError, RuntimeError: The store does not answer, so nothing can be said.
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
    for _ in fragment.scanner(batch_size=_ROWS_AT_ONCE).to_batches():
        pass


def _decoding(files: LanceFileSession, name: str) -> str | None:
    """Why a file that was fetched whole cannot be decoded, None if it can."""
    with tempfile.TemporaryDirectory() as directory:
        copy = str(Path(directory) / "copy.lance")
        files.download_file(name, copy)

        def decode() -> None:
            for _ in LanceFileReader(copy).read_all(batch_size=_ROWS_AT_ONCE).to_batches():
                pass

        return _failure_of(decode)


def fetch(files: LanceFileSession, name: str) -> None:
    """Read a file whole and throw it away, to see that the store answers."""
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
    """Whether Lance gave up on itself, as it does on some damaged files; its class cannot be imported."""
    return type(error).__name__ == "PanicException"
