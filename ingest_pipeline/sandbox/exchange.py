"""The child's side of the protocol of `children`. It imports little, so that a child starts fast."""

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any


class Exchange:
    """Reads the requests of the parent process and writes the answers."""

    def __init__(self) -> None:
        # Foreign code must neither read requests from standard input nor print into the answers.
        self._requests, self._answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def introduction(self) -> bytes:
        """What precedes the first request: a line with its size, then this many bytes."""
        return self._requests.read(int(self._requests.readline()))

    def requests(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The line of JSON and the data of each request, until the input ends."""
        while line := self._requests.readline():
            head: dict[str, Any] = json.loads(line)
            data = self._requests.read(head["size"])
            if len(data) < head["size"]:
                return
            yield head, data

    def answer(self, outcome: str, detail: str = "", data: bytes = b"") -> None:
        """Write an answer."""
        head = {"outcome": outcome, "detail": detail, "size": len(data)}
        self._answers.write(json.dumps(head).encode() + b"\n")
        self._answers.write(data)
        self._answers.flush()


def remove_files() -> None:
    """Remove what documents left in a child's own folder. The folder itself goes with the parent, see `folders`."""
    if os.environ.get("TMPDIR") == os.environ.get("HOME"):
        shutil.rmtree(os.environ["HOME"], ignore_errors=True)
