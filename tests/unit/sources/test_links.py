"""Symbolic links in a source: which are followed, and where they may lead."""

from pathlib import Path

import pytest

from ingest_pipeline.errors import DocumentChangedError
from ingest_pipeline.sources.local_listing import FollowLinks
from ingest_pipeline.sources.object_store import ObjectSource
from tests.support.local_folder import write

pytestmark = pytest.mark.promise("source-faults")


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
