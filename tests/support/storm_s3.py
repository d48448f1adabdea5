"""An S3 server in bad weather: some requests are refused, cut off, or carried out without an answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.support.s3 import S3Server

_ROOT = Path(__file__).parents[2]


class StormyS3Server(S3Server):
    """Like its parent, with faults from the moment that `weather` asks for them."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.storm_s3_server"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._request("PUT", f"/{self.bucket}")
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    def weather(self, rate: float, seed: int) -> dict[str, int]:
        """From now on, fail this share of the requests; returns how many failed until now, by kind."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{rate} {seed}\n")
        self._process.stdin.flush()
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer
