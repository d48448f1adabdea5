"""Mutants: the engine with one safeguard disabled, which a named test must catch.

The variable ``MUTANT`` names the mutant that this process and its children become. Each module has the mutants of one
area.
"""

from __future__ import annotations

import os

from tests.support.mutants import (
    columns,
    dagster,
    durability,
    edits,
    embedding,
    erasure,
    gates,
    identity,
    ingestion,
    maintenance,
    publication,
    spool,
    user_code,
)

AREAS = (
    publication,
    durability,
    maintenance,
    identity,
    ingestion,
    embedding,
    spool,
    edits,
    columns,
    user_code,
    erasure,
    gates,
    dagster,
)
MUTANTS = {name: mutant for area in AREAS for name, mutant in area.MUTANTS.items()}


def apply_from_environment() -> None:
    """Become the mutant that ``MUTANT`` names, if the variable is set."""
    name = os.environ.get("MUTANT")
    if name:
        MUTANTS[name].apply()
