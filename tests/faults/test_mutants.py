"""Four safeguards are disabled, one at a time: a named test must fail for each. `make mutants` disables all.

Of the others only the names are checked: a safeguard that moved would be left in place.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import mutants
from tools.mutants import is_caught


@pytest.mark.parametrize("name", ["no row lock", "no version check", "no compensation", "unknown taken for failed"])
def test_a_disabled_safeguard_is_noticed(name: str, postgres: str, postgres_folder: Path) -> None:
    assert is_caught(name, postgres_folder)


def test_each_safeguard_is_where_its_mutant_disables_it(monkeypatch: pytest.MonkeyPatch) -> None:
    disabled: list[str] = []

    def find(owner: object, name: str, _: object) -> None:
        assert hasattr(owner, name), f"{owner} has no {name}"
        disabled.append(name)

    for area in mutants.AREAS:
        monkeypatch.setattr(area, "plug", find)
    for name, mutant in mutants.MUTANTS.items():
        disabled.clear()
        mutant.apply()
        assert disabled, name
    assert len(mutants.MUTANTS) == sum(len(area.MUTANTS) for area in mutants.AREAS), "two areas share a name"
