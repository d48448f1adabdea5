"""The asset before the corpus: it makes the files of the handbook."""

import hashlib
import tomllib
from pathlib import Path

import dagster as dg

PROJECT = Path(__file__).parents[2]


@dg.asset(group_name="handbook")
def handbook_files() -> dg.MaterializeResult:
    """One Markdown file for each page of `handbook.toml`."""
    pages = tomllib.loads((PROJECT / "handbook.toml").read_text())
    folder = PROJECT / "documents"
    folder.mkdir(exist_ok=True)
    for name, page in pages.items():
        (folder / f"{name}.md").write_text(f"# {page['title']}\n{page['text']}")
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    version = hashlib.sha256(repr(pages).encode()).hexdigest()
    return dg.MaterializeResult(metadata={"files": len(pages)}, data_version=dg.DataVersion(version))
