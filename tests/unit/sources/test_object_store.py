"""A folder of this machine as a source: what is listed, what is read, and what urls are understood."""

import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline.errors import ConfigurationError, DocumentChangedError, DocumentError, SourceUnavailableError
from ingest_pipeline.sources.filters import Selection
from ingest_pipeline.sources.local_listing import FollowLinks
from ingest_pipeline.sources.object_store import ObjectSource

pytestmark = pytest.mark.promise("source-faults")

REPOSITORY = Path(__file__).parents[3]
ORDINARY_USER = """
import os, pwd, sys
from ingest_pipeline.errors import IngestError
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.sources.filters import Selection
source = ObjectSource(sys.argv[1])
selection = Selection(exclude=list(filter(None, [sys.argv[2]])))
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(pwd.getpwnam("nobody").pw_uid)
try:
    for key in sys.argv[3:]:
        print(source.stat(key))
    for obj in source.list(
        exclusion_reason_of=selection.name_exclusion_reason,
        on_excluded=lambda key, reason: print("excluded:", key, reason),
    ):
        b"".join(source.read(obj))
except IngestError as error:
    print(type(error).__name__, error)
"""
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


def write(root: Path, name: str, body: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def keys(root: Path) -> Sequence[str]:
    return [obj.key for obj in ObjectSource(str(root)).list()]


def one(root: Path) -> tuple[ObjectSource, Path]:
    """A source with one document of three blocks."""
    return ObjectSource(str(root)), write(root, "doc", b"a" * (3 << 20))


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


def excluded(root: Path) -> dict[str, str]:
    """Reasons by name."""
    found: dict[str, str] = {}
    list(ObjectSource(str(root)).list(on_excluded=found.__setitem__))
    return found


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


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    write(elsewhere, "folder/doc", b"text")
    source.mkdir()
    (source / "folder").symlink_to(elsewhere / "folder")
    (source / "linked").symlink_to(elsewhere / "folder" / "doc")
    (elsewhere / "folder" / "up").symlink_to(source)
    listed = list(ObjectSource(str(source), "anywhere").list(on_excluded=(noted := dict[str, str]()).__setitem__))
    assert [(obj.key, obj.size) for obj in listed] == [("folder/doc", 4), ("linked", 4)]
    assert noted == {"folder/up/": "link back to a folder above"}


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with links within itself and out of it."""
    write(tmp_path, "private/key", b"secret")
    write(tmp_path, "source/real/doc", b"public")
    links = {"in": "real", "in.txt": "real/doc", "out": "../private", "out.txt": "../private/key", "chain": "out.txt"}
    for name, target in links.items():
        (tmp_path / "source" / name).symlink_to(target)
    return tmp_path / "source"


@pytest.mark.promise("links")
@pytest.mark.parametrize(
    ("follow", "listed", "refused"),
    [
        ("anywhere", ["chain", "in.txt", "in/doc", "out.txt", "out/key", "real/doc"], {}),
        (
            "inside",
            ["in.txt", "in/doc", "real/doc"],
            dict.fromkeys(["chain", "out", "out.txt"], "link out of the source"),
        ),
        (
            "never",
            ["real/doc"],
            {"in": "link", "in.txt": "link", **dict.fromkeys(["chain", "out", "out.txt"], "link out of the source")},
        ),
    ],
)
def test_links_are_followed_as_configured(
    linked: Path, follow: FollowLinks, listed: list[str], refused: dict[str, str]
) -> None:
    source, noted = ObjectSource(str(linked), follow), dict[str, str]()
    found = list(source.list(on_excluded=noted.__setitem__))
    assert ([obj.key for obj in found], noted) == (listed, refused)
    every = list(ObjectSource(str(linked), "anywhere").list())
    assert list(source.stat_all([obj.key for obj in every])) == found
    for obj in every:
        if obj.key in listed:
            assert b"".join(source.read(obj))
        else:  # a link that was put there after the listing
            with pytest.raises(DocumentChangedError, match="replaced by a link"):
                list(source.read(obj))


def test_a_source_may_itself_be_a_link(linked: Path) -> None:
    (linked.parent / "link").symlink_to(linked)
    source = ObjectSource(str(linked.parent / "link"), "never")
    (obj,) = source.list()
    assert b"".join(source.read(obj)) == b"public"


@pytest.mark.promise("links")
def test_a_source_that_is_a_link_may_lead_elsewhere_later(linked: Path) -> None:
    link = linked.parent / "link"
    link.symlink_to(linked)
    source = ObjectSource(str(link))
    (_, _, first) = source.list()
    assert b"".join(source.read(first)) == b"public"
    write(linked.parent, "newer/doc", b"newer")
    (linked.parent / "newer/out").symlink_to("../private/key")
    (linked.parent / "newer/back").symlink_to(linked / "real/doc")
    link.unlink()
    link.symlink_to(linked.parent / "newer")
    (second,) = source.list()
    assert b"".join(source.read(second)) == b"newer"
    for outside in (obj for obj in ObjectSource(str(link), "anywhere").list() if obj.key in {"out", "back"}):
        with pytest.raises(DocumentChangedError, match="replaced by a link"):
            list(source.read(outside))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user reaches, which those of the test runner are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def said_to_ordinary_user(folder: Path, *keys: str, exclude: str = "") -> str:
    """The error that a process which is not root gets from asking for some, then listing and reading everything."""
    done = subprocess.run(
        [sys.executable, "-c", ORDINARY_USER, str(folder), exclude, *keys],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def test_an_unreadable_folder_is_not_treated_as_empty(open_folder: Path) -> None:
    write(open_folder, "closed/doc", b"")
    (open_folder / "closed").chmod(0)
    said = said_to_ordinary_user(open_folder)
    (open_folder / "closed").chmod(0o700)
    assert said.startswith("SourceUnavailableError")
    assert "closed' cannot be listed: Permission denied" in said


def test_an_unreadable_folder_is_named_with_the_pattern_that_excludes_it(open_folder: Path) -> None:
    write(open_folder, "a [b]/closed/doc", b"")
    write(open_folder, "doc", b"")
    (open_folder / "a [b]/closed").chmod(0)
    said = said_to_ordinary_user(open_folder)
    pattern = r"/a\ \[b\]/closed"
    assert f"INGEST_EXCLUDE={pattern!r}" in said
    excluded = said_to_ordinary_user(open_folder, exclude=pattern)
    (open_folder / "a [b]/closed").chmod(0o700)
    assert excluded == "excluded: a [b]/closed/ excluded\n"


@pytest.mark.parametrize("mode", [0o400, 0o444])
def test_excluded_entries_that_cannot_be_examined_raise_no_error(open_folder: Path, mode: int) -> None:
    write(open_folder, "closed/doc", b"")
    (open_folder / "closed").chmod(mode | 0o044)
    assert "cannot be listed: Permission denied" in said_to_ordinary_user(open_folder)
    excluded = said_to_ordinary_user(open_folder, exclude="doc")
    (open_folder / "closed").chmod(0o700)
    assert excluded == "excluded: closed/doc excluded\n"


def test_an_excluded_folder_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/b/doc", "drafts/x/doc", "drafts/y/doc"):
        write(tmp_path, name, b"")
    looked: list[str] = []
    scandir: Callable[[Path], Any] = os.scandir

    def noted(folder: Path) -> Any:
        looked.append(folder.name)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", noted)
    selection = Selection(exclude=["drafts/"])
    assert [
        obj.key for obj in ObjectSource(str(tmp_path)).list(exclusion_reason_of=selection.name_exclusion_reason)
    ] == ["a/b/doc"]
    assert looked == [tmp_path.name, "a", "b"]


def test_a_document_that_cannot_be_examined_is_not_treated_as_removed(open_folder: Path) -> None:
    write(open_folder, "closed/doc", b"")
    (open_folder / "closed").chmod(0)
    said = said_to_ordinary_user(open_folder, "closed/doc")
    (open_folder / "closed").chmod(0o700)
    assert said.startswith("SourceUnavailableError")
    assert "closed/doc' cannot be examined: Permission denied" in said


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


def test_an_unreadable_document_is_listed_and_reading_it_names_the_reason(open_folder: Path) -> None:
    write(open_folder, "doc", b"").chmod(0)
    assert said_to_ordinary_user(open_folder).startswith(
        "InaccessibleDocumentError Document 'doc' cannot be read: Permission denied"
    )


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


def test_a_folder_of_many_files_is_listed_in_little_memory(tmp_path: Path) -> None:
    count = 3000
    for number in range(count):
        (tmp_path / f"{number:05}").touch()
    source = ObjectSource(str(tmp_path))
    tracemalloc.start()
    try:
        assert sum(1 for _ in source.list()) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150 * count


def test_names_that_are_not_utf8_are_sorted_as_they_are_shown(tmp_path: Path) -> None:
    for name in (b"a", b"\xff", b"z"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_text("x")  # noqa: PTH118  bytes
    keys = [obj.key for obj in ObjectSource(str(tmp_path)).list()]
    assert keys == sorted(keys)
    assert len(keys) == 3
