"""Run each mutant against the test that must catch it: ``python -m tools.mutants [NAME...]``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.mutants import MUTANTS
from tools import figures

ROOT = Path(__file__).parents[1]

_TESTS_FAILED = 1


def is_caught(name: str) -> bool:
    """Whether the mutant's test fails while it runs, not while it is collected."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", MUTANTS[name].caught_by]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "MUTANT": name}, capture_output=True, text=True, check=False
    )
    caught = done.returncode == _TESTS_FAILED and "1 failed" in done.stdout
    verdict = "caught" if caught else "SURVIVED"
    sys.stdout.write(f"{verdict:9} {name}: {MUTANTS[name].caught_by}\n")
    if not caught:
        sys.stdout.write(done.stdout[-2000:])
    sys.stdout.flush()
    return caught


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
