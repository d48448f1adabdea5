"""What a function allocates at most, measured in a process in which nothing else allocates."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import cast

_ROOT = Path(__file__).parents[2]
_NAMES = 1 << 20
_BYTES_OF_TABLE = 100_000
"""The table of interned names has more, a name fewer."""


def traced(function: Callable[[], int]) -> tuple[int, int]:
    """The number that a function returns, and the bytes that Python allocates at most while it runs.

    It runs in a new process, because `tracemalloc` counts what all threads of a process allocate, and because what a
    call allocates depends on the calls before it.

    Args:
        function: A function of a module that can be imported, or a `functools.partial` of one.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=pickle.dumps(function),
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    number, peak = map(int, done.stdout.split())
    return number, peak


def _make_room_for_names() -> None:
    """Intern names until Python replaces its table of interned names, so that it does not do so again soon.

    `pathlib` interns each name in a path. A name uses up an entry of the table, which is not free again when the name
    is forgotten. Whichever name finds no free entry makes Python allocate another table, of 1 to 8 MB, at once.
    """
    before, _ = tracemalloc.get_traced_memory()
    for number in range(_NAMES):
        sys.intern(f"name {number}")
        after, _ = tracemalloc.get_traced_memory()
        if after - before > _BYTES_OF_TABLE:
            return
        before = after
    raise AssertionError(_NAMES)


def _main() -> None:
    function = cast("Callable[[], int]", pickle.load(sys.stdin.buffer))  # noqa: S301  from the parent
    tracemalloc.start()
    _make_room_for_names()
    start, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    number = function()
    _, peak = tracemalloc.get_traced_memory()
    sys.stdout.write(f"{number} {peak - start}\n")


if __name__ == "__main__":
    _main()
