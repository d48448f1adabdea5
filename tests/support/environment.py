"""The environment of the test process, which the command line changes when a test calls it here."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def restored_environment() -> Generator[None]:
    """Give all variables the values back that they had before the block."""
    before = dict(os.environ)
    try:
        yield
    finally:
        if os.environ != before:
            os.environ.clear()
            os.environ.update(before)
