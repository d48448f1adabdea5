"""The format of a key: what its last suffix names, as pathlib finds it."""

from __future__ import annotations

from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.parsing.built_in_parsers import _extension  # pyright: ignore[reportPrivateUsage]


@given(st.text("aB./ ", max_size=12))
def test_the_extension_is_the_suffix_of_the_path(key: str) -> None:
    assert _extension(key) == PurePosixPath(key).suffix.lower()
