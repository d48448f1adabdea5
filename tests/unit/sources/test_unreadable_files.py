"""Folders and files that the process may not read are reported, and never taken for removed."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline.sources.filters import Selection
from ingest_pipeline.sources.object_store import ObjectSource
from tests.support.local_folder import write

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


def test_an_unreadable_document_is_listed_and_reading_it_names_the_reason(open_folder: Path) -> None:
    write(open_folder, "doc", b"").chmod(0)
    assert said_to_ordinary_user(open_folder).startswith(
        "InaccessibleDocumentError Document 'doc' cannot be read: Permission denied"
    )
