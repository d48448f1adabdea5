"""What a step writes to its standard output, without the processes that copy it to the terminal.

Dagster starts two processes of `tail` and two of Python for each step, which are a fifth of the CPU of a small run. The
files that its pages show are written by the step itself.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from dagster._core.execution import compute_logs


@contextmanager
def without_mirror() -> Generator[None]:
    """Let the steps of this process that begin in the block write to their files alone."""

    def mirror_nothing(path: str, stream: Any) -> nullcontext[tuple[None, None]]:
        del path, stream
        return nullcontext((None, None))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute_logs, "tail_to_stream", mirror_nothing)
        yield
