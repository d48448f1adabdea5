"""The parser's child process, taken over by its document: a Python expression that runs instead of the parser."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket

from ingest_pipeline.parsing import worker

KNOWN = {module.__name__: module for module in (ctypes, os, resource, signal, socket)}


def run(data: bytes, _: str, __: int) -> tuple[str, str]:
    """The value of the expression, or the name of its error."""
    try:
        return "text", repr(eval(data, dict(KNOWN)))  # noqa: S307  this is the attack
    except BaseException as error:  # noqa: BLE001  the test examines every error
        return "text", type(error).__name__


if __name__ == "__main__":
    worker._extract = run  # pyright: ignore[reportPrivateUsage]  the attack
    worker.main()
