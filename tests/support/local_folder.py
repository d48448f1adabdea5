"""Folders of documents on the local disk, and what a source lists in them."""

from collections.abc import Sequence
from pathlib import Path

from ingest_pipeline.sources.object_store import ObjectSource


def write(root: Path, name: str, body: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def keys(root: Path) -> Sequence[str]:
    return [obj.key for obj in ObjectSource(str(root)).list()]


def excluded(root: Path) -> dict[str, str]:
    """Reasons by name."""
    found: dict[str, str] = {}
    list(ObjectSource(str(root)).list(on_excluded=found.__setitem__))
    return found
