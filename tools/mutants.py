"""Run each mutant against the test that must catch it: ``python -m tools.mutants [NAME...]``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.crash.crash import forked
from tests.support.mutants import MUTANTS
from tools import figures

ROOT = Path(__file__).parents[1]

_TESTS_FAILED = 1
_OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--assert=plain")
"""Assertions of modules that are imported already cannot be rewritten."""


def is_caught(name: str, postgres: Path | None = None) -> bool:
    """Whether the mutant's test fails while it runs, not while it is collected.

    The test runs in a process that was forked from one which has imported the package, because importing takes longer
    than most of these tests.

    Args:
        name: Name of the mutant.
        postgres: Folder of a running embedded server, instead of one that is made for the test.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        process = forked(_run_test, name, str(output), "" if postgres is None else str(postgres))
        process.join()
        said = output.read_text() if output.exists() else ""
    caught = process.exitcode == _TESTS_FAILED and "1 failed" in said
    verdict = "caught" if caught else "SURVIVED"
    sys.stdout.write(f"{verdict:9} {name}: {MUTANTS[name].caught_by}\n")
    if not caught:
        sys.stdout.write(said[-2000:])
    sys.stdout.flush()
    return caught


def _run_test(name: str, output: str, postgres: str) -> None:
    with Path(output).open("wb") as written:
        os.dup2(written.fileno(), 1)
        os.dup2(written.fileno(), 2)
    os.chdir(ROOT)
    os.environ |= {"MUTANT": name, "TEST_POSTGRES": postgres}
    # Lance is used from here on, so children are forked from another server, which starts with the mutant.
    raise SystemExit(pytest.main([*_OPTIONS, MUTANTS[name].caught_by]))


def main() -> int:
    """Run the named mutants, or all. Exit status 0 if all were caught."""
    names = sys.argv[1:] or list(MUTANTS)
    caught = sum(is_caught(name) for name in names)
    sys.stdout.write(f"caught {caught} of {len(names)}\n")
    found = {"mutants caught": f"{caught} of {len(names)}, at commit {figures.commit()}"}
    figures.MUTANTS.write_text(json.dumps(found) + "\n")
    return 0 if caught == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
