"""The parser's child process, taken over by its document: a Python expression that runs instead of the parser."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket

from ingest_pipeline.parsing import worker
from ingest_pipeline.parsing.pages import Piece

KNOWN = {module.__name__: module for module in (ctypes, os, resource, signal, socket)}


def run(data: bytes, _: str, __: int) -> list[Piece]:
    """The value of the expression, or the name of its error."""
    try:
        return [(repr(eval(data, dict(KNOWN))), None)]  # noqa: S307  this is the attack
    except BaseException as error:  # noqa: BLE001  the test examines every error
        return [(type(error).__name__, None)]


if __name__ == "__main__":
    worker._extract = run  # pyright: ignore[reportPrivateUsage]  the attack
    worker.main()
