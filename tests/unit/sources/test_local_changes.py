"""Local files that change before, while and after they are read."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingest_pipeline.errors import DocumentChangedError
from ingest_pipeline.sources.object_store import ObjectSource
from tests.support.local_folder import write

pytestmark = pytest.mark.promise("source-faults")


def one(root: Path) -> tuple[ObjectSource, Path]:
    """A source with one document of three blocks."""
    return ObjectSource(str(root)), write(root, "doc", b"a" * (3 << 20))


def replace_by_rename(path: Path) -> None:
    write(path.parent, "other", b"b" * (3 << 20)).rename(path)


def rewrite_in_place(path: Path) -> None:
    path.write_bytes(b"b" * (3 << 20))


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "change", [replace_by_rename, rewrite_in_place, Path.unlink, replace_by_pipe, replace_by_folder]
)
def test_a_document_that_changed_since_it_was_listed_is_not_read(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    source, path = one(tmp_path)
    (obj,) = source.list()
    change(path)
    with pytest.raises(DocumentChangedError, match="'doc'"):
        list(source.read(obj))


def test_a_document_that_is_rewritten_while_it_is_read_is_never_a_mixture(tmp_path: Path) -> None:
    source, path = one(tmp_path)
    (obj,) = source.list()
    blocks = source.read(obj)
    assert set(next(blocks)) == {ord("a")}
    rewrite_in_place(path)
    with pytest.raises(DocumentChangedError, match="replaced"):
        next(blocks)


def test_a_document_that_is_rewritten_after_its_last_block_has_changed(tmp_path: Path) -> None:
    source, path = one(tmp_path)
    (obj,) = source.list()
    blocks = source.read(obj)
    for _ in range(3):
        next(blocks)
    rewrite_in_place(path)
    with pytest.raises(DocumentChangedError):
        next(blocks)


def test_a_document_that_is_replaced_by_rename_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    source, path = one(tmp_path)
    (obj,) = source.list()
    blocks = source.read(obj)
    first = next(blocks)
    replace_by_rename(path)
    assert first + b"".join(blocks) == b"a" * (3 << 20)


def test_blocks_are_of_one_megabyte(tmp_path: Path) -> None:
    source, _ = one(tmp_path)
    (obj,) = source.list()
    assert [len(block) for block in source.read(obj)] == [1 << 20] * 3


@pytest.mark.parametrize(
    "key", ["../secret", "", ".", "/etc/hostname", "folder/../../secret", "folder//x", "a\0b", "missing"]
)
def test_a_key_never_leads_out_of_the_source(tmp_path: Path, key: str) -> None:
    write(tmp_path, "secret", b"s")
    write(tmp_path, "docs/folder/x", b"s")
    source = ObjectSource(str(tmp_path / "docs"))
    assert source.stat(key) is None
    (obj,) = source.list()
    with pytest.raises(DocumentChangedError):
        list(source.read(replace(obj, key=key)))


def test_an_edit_changes_the_etag_and_looking_at_it_does_not(tmp_path: Path) -> None:
    source, path = one(tmp_path)
    before = source.stat("doc")
    assert before is not None
    assert b"".join(source.read(before)) == path.read_bytes()
    assert list(source.list()) == [before]
    rewrite_in_place(path)
    after = source.stat("doc")
    assert after is not None
    assert after.etag != before.etag


def test_an_edit_that_keeps_size_and_time_changes_the_etag(tmp_path: Path) -> None:
    source, path = one(tmp_path)
    before, times = source.stat("doc"), path.stat()
    rewrite_in_place(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = source.stat("doc")
    assert before is not None
    assert after is not None
    assert (after.size, after.last_modified) == (before.size, before.last_modified)
    assert after.etag != before.etag
    with pytest.raises(DocumentChangedError):
        list(source.read(before))


@pytest.fixture
def whole_seconds(tmp_path: Path) -> Iterator[Path]:
    """A file system that keeps times in whole seconds: ext4 with small inodes."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    disk.mkdir()
    for command in (["mkfs.ext4", "-q", "-I", "128", str(image)], ["mount", "-o", "loop", str(image), str(disk)]):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this user may not mount a file system: {getattr(error, 'stderr', error)}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.promise("no-missed-edit")
def test_an_edit_within_one_step_of_the_clock_in_which_the_file_was_read_is_seen(whole_seconds: Path) -> None:
    source, path = ObjectSource(str(whole_seconds)), write(whole_seconds, "doc", b"old")
    listed = source.stat("doc")
    assert listed is not None
    assert b"".join(source.read(listed)) == b"old"
    path.write_bytes(b"new")
    after = source.stat("doc")
    assert after is not None
    assert after.etag != listed.etag
