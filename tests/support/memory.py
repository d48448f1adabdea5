"""A folder in memory for the files of a test run, where creating and flushing them takes the least time."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ingest_pipeline.processes import is_running

_MEMORY = Path("/dev/shm")  # noqa: S108
_NEEDED_BYTES = 8 << 30
_PREFIX = "ingest-tests-"


def keep_temporary_files_in_memory() -> Path | None:
    """Let this process and its children create their temporary files in memory, if there is much of it.

    A test creates hundreds of files: those of a database, and those of a table, which the package flushes to the disk.

    Returns:
        The new folder, which the caller has to remove. None: the files are on the disk, or in the folder of the process
        that started this one.
    """
    if Path(tempfile.gettempdir()).is_relative_to(_MEMORY):
        return None
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _NEEDED_BYTES:
        return None
    for left in _MEMORY.glob(f"{_PREFIX}*"):
        if not is_running(int(left.name.split("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_MEMORY))
    folder.chmod(0o755)  # the account of a server goes through it
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # it is found again
    return folder
