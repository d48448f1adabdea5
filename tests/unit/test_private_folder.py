"""Folders that only one account may read."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from ingest_pipeline.private_folder import local_path, make_private, others_may_read

pytestmark = pytest.mark.promise("secrets")


def test_new_folders_are_private_and_existing_ones_keep_their_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    make_private(tmp_path / "shared" / "a" / "b")
    make_private(tmp_path / "shared" / "a" / "b")
    modes = [stat.S_IMODE((tmp_path / "shared" / name).stat().st_mode) for name in ("", "a", "a/b")]
    assert modes == [0o755, 0o700, 0o700]


def test_a_folder_is_open_only_if_those_above_it_are() -> None:
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder) / "inner"
        inner.mkdir()
        inner.chmod(0o755)
        assert not others_may_read(inner)
        Path(folder).chmod(0o711)
        assert others_may_read(inner)
        inner.chmod(0o711)
        assert not others_may_read(inner)
        assert not others_may_read(inner / "nowhere")


@pytest.mark.parametrize(
    ("place", "path"),
    [("s3://a/b", None), ("/a/b", Path("/a/b")), ("file:///a/b%20c", Path("/a/b c")), ("x", Path("x").absolute())],
)
def test_places_on_this_machine(place: str, path: Path | None) -> None:
    assert local_path(place) == path
