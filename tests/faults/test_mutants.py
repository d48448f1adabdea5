"""Four safeguards are disabled, one at a time: a named test must fail for each. `make mutants` disables all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.mutants import is_caught


@pytest.mark.parametrize("name", ["no row lock", "no version check", "no compensation", "unknown taken for failed"])
def test_a_disabled_safeguard_is_noticed(name: str, postgres: str, postgres_folder: Path) -> None:
    assert is_caught(name, postgres_folder)
