"""A folder of this machine as a source: what is listed, what is read, and what urls are understood."""

import os
import tempfile
from datetime import UTC
from functools import partial
from pathlib import Path

import pytest

from ingest_pipeline.errors import ConfigurationError, DocumentError, SourceUnavailableError
from ingest_pipeline.sources.object_store import ObjectSource
from tests.support.allocations import traced
from tests.support.local_folder import excluded, keys, write

pytestmark = pytest.mark.promise("source-faults")
HOSTILE_NAMES = (
    "a'b\"c",
    "a...b",
    "a,b",
    "a\nb",
    "tab\tx",
    "ünï/日本",
    "n" * 250,
    " lead",
    "trail ",
    "a%2Fb",
    "a%b",
    "dot.",
    "...",
    "a\\b",
    "a#b?c",
    "notes#1",
    "~t",
    "~",
    "folder/~",
    "#",
    "%",
    "100%25",
    "\\",
    "\n",
    "$HOME",
    "-rf",
    "{x}*<y>|z",
    "a\x01b",
    "e\u0301",
    "\u00e9",
    ".hidden/.file",
)


def test_every_name_is_listed_read_and_found_again(tmp_path: Path) -> None:
    for name in HOSTILE_NAMES:
        write(tmp_path, name, name.encode())
    source = ObjectSource(str(tmp_path))
    listed = list(source.list())
    assert {obj.key for obj in listed} == set(HOSTILE_NAMES)
    for obj in listed:
        assert b"".join(source.read(obj)) == obj.key.encode()
        assert source.stat(obj.key) == obj
        assert obj.size == len(obj.key.encode())
        assert obj.last_modified.tzinfo == UTC


def test_keys_come_in_the_order_of_an_object_store(tmp_path: Path) -> None:
    names = ["a", "a-b", "a.txt", "a/x", "a/y/z", "a0", "b/a", "é", "日"]
    for name in (name for name in names if name != "a"):
        write(tmp_path, name, b"")
    assert keys(tmp_path) == [name for name in sorted(names) if name != "a"]


def test_a_name_that_is_not_utf8_is_listed_and_reading_it_names_the_reason(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/bad\xff", "wb") as file:  # noqa: PTH123  # a path cannot be made of bytes
        file.write(b"x")
    source = ObjectSource(str(tmp_path))
    (obj,) = source.list()
    assert (obj.key, obj.etag) == ("bad\\xff", "")
    with pytest.raises(DocumentError, match="Rename the object"):
        source.read(obj)


@pytest.mark.parametrize("name", ["x.tmp", "x.part", "x.crdownload", ".x.swp", "x~", ".#x", ".~lock.x#", "~$x.docx"])
def test_names_of_unfinished_files_are_excluded(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, b"half")
    write(tmp_path, "whole", b"")
    assert keys(tmp_path) == ["whole"]
    assert excluded(tmp_path) == {name: "name of a file that is still being written"}


def test_entries_that_are_not_files_are_excluded(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "to nowhere").symlink_to("missing")
    (tmp_path / "to itself").symlink_to("to itself")
    write(tmp_path, "file", b"")
    assert keys(tmp_path) == ["file"]
    assert excluded(tmp_path) == {
        "pipe": "neither a file nor a folder",
        "to nowhere": "link that leads nowhere",
        "to itself": "link that leads nowhere",
    }
    assert ObjectSource(str(tmp_path)).stat("pipe") is None


@pytest.mark.parametrize("key", ["missing", "doc/below", "loop/x", "n" * 300, "a//b", ".."])
def test_a_key_that_cannot_exist_does_not_exist(tmp_path: Path, key: str) -> None:
    write(tmp_path, "doc", b"")
    (tmp_path / "loop").symlink_to("loop")
    assert ObjectSource(str(tmp_path)).stat(key) is None


def test_the_utf8_name_of_two_that_look_alike_is_listed(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/x\xff", "wb") as file:  # noqa: PTH123  # a path cannot be made of bytes
        file.write(b"other")
    write(tmp_path, "x\\xff", b"readable")
    source = ObjectSource(str(tmp_path))
    (obj,) = source.list()
    assert b"".join(source.read(obj)) == b"readable"
    assert excluded(tmp_path) == {"x\\xff": "name that is not UTF-8 and looks like another one"}


@pytest.mark.parametrize("seconds", [1 << 40, -(1 << 40)])
def test_a_time_beyond_the_calendar_is_its_first_or_last_moment(seconds: int) -> None:
    # Not every file system keeps such a time; the one in memory does.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:  # with a name that is not known before
        os.utime(write(Path(name), "doc", b""), (seconds, seconds))
        (obj,) = ObjectSource(name).list()
    assert obj.last_modified.year in {1, 9999}


def test_a_source_that_disappears_while_it_is_listed_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b/c", "d/e"):
        write(tmp_path, f"docs/{name}", b"")
    listing = ObjectSource(str(tmp_path / "docs")).list()
    assert next(listing).key == "a"
    (tmp_path / "docs").rename(tmp_path / "moved")
    with pytest.raises(SourceUnavailableError, match="docs"):
        list(listing)


def test_a_missing_source_is_not_treated_as_empty(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    source = ObjectSource(str(tmp_path / "docs"))
    (tmp_path / "docs").rmdir()
    with pytest.raises(SourceUnavailableError, match="docs"):
        list(source.list())


def test_the_same_folder_by_path_and_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "sp äce/doc", b"")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sp äce"
    for url in (str(path), "sp äce", f"file://{path}", path.as_uri(), f"file://localhost{path}", f"{path}/"):
        assert [obj.key for obj in ObjectSource(url).list()] == ["doc"]


@pytest.mark.parametrize(
    "url",
    [
        "/no/such/folder",
        "file:///no/such/folder",
        "file://host/folder",
        "file:folder",
        "http://host/x",
        "foo://x",
        "memory:///",
        "s3://",
        "s3:///x",
        "s3://bad bucket/x",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "az://container",
    ],
)
def test_a_url_that_is_not_a_source_is_a_configuration_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigurationError) as raised:
        ObjectSource(url)
    assert "\n" not in str(raised.value)


def test_errors_do_not_repeat_secrets_of_the_url() -> None:
    with pytest.raises(ConfigurationError) as raised:
        ObjectSource("s3://user:secret@bucket/docs?X-Amz-Signature=secret")
    assert "secret" not in str(raised.value)
    assert "bucket" in str(raised.value)


def test_reading_a_folder_does_not_keep_its_documents_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    (obj,) = ObjectSource(str(tmp_path)).list()
    assert len(next(ObjectSource(str(tmp_path)).read(obj))) == 1 << 20


def test_a_listing_continues_after_a_key_and_below_a_folder(tmp_path: Path) -> None:
    names = ["a", "b/1", "b/2/x", "b-", "b0/1", "c,d.txt", "\u00e9/1", "\U0001f600"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    source = ObjectSource(str(tmp_path))
    keys = sorted(names)
    for key in ["", *keys, "aa", "b/", "b/2", "b/2/", "zz"]:
        assert [obj.key for obj in source.list(after=key)] == [name for name in keys if name > key], key
    assert [obj.key for obj in source.list(folder="b")] == ["b/1", "b/2/x"]
    assert [obj.key for obj in source.list(folder="b/2", after="b/1")] == ["b/2/x"]
    assert list(source.list(folder="no such")) == []
    assert list(source.list(folder="../..")) == []


def test_a_listing_examines_no_file_before_the_key_after_which_it_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").touch()
    examined: list[str] = []

    def examine(path: Path) -> os.stat_result:
        examined.append(path.name)
        return path.stat()

    monkeypatch.setattr("ingest_pipeline.sources.local_listing.regular_file", examine)
    assert [obj.key for obj in ObjectSource(str(tmp_path)).list("16")] == ["17", "18", "19"]
    assert examined == ["17", "18", "19"]


def number_of_documents(folder: str) -> int:
    return sum(1 for _ in ObjectSource(folder).list())


def test_a_folder_of_many_files_is_listed_in_little_memory(tmp_path: Path) -> None:
    count = 3000
    for number in range(count):
        (tmp_path / f"{number:05}").touch()
    documents, peak = traced(partial(number_of_documents, str(tmp_path)))
    assert documents == count
    assert peak < 150 * count


def test_names_that_are_not_utf8_are_sorted_as_they_are_shown(tmp_path: Path) -> None:
    for name in (b"a", b"\xff", b"z"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_text("x")  # noqa: PTH118  bytes
    keys = [obj.key for obj in ObjectSource(str(tmp_path)).list()]
    assert keys == sorted(keys)
    assert len(keys) == 3
