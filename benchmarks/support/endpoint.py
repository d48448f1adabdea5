"""An embeddings endpoint in a process of its own: vectors of a real width, at next to no cost in CPU time.

A text's hash picks its vector among a thousand that were made and encoded at the start, so that what is measured is the
client and not the server.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen
from zlib import crc32

import numpy as np

from tests.support.servers.embeddings_protocol import EmbeddingHandler, ProtocolServer

ROOT = Path(__file__).parents[2]
MODEL = "benchmark-embedding"
DIMENSIONS = 1536
_VECTORS = 1024


class _Server(ProtocolServer):
    def __init__(self, latency: float, dimensions: int) -> None:
        vectors = np.random.default_rng(0).standard_normal((_VECTORS, dimensions), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self._encoded = [base64.b64encode(vector.tobytes()) for vector in vectors]
        self._latency = latency
        super().__init__()

    def reply(self, connection: EmbeddingHandler, body: bytes) -> None:
        time.sleep(self._latency)
        texts = json.loads(body)["input"]
        self._count(requests=1, inputs=len(texts))
        chosen = (self._encoded[crc32(text.encode()) % _VECTORS] for text in texts)
        data = b",".join(b'{"index": %d, "embedding": "%s"}' % item for item in enumerate(chosen))
        answer = b'{"object": "list", "model": "%s", "data": [%s], "usage": {"total_tokens": %d}}'
        body = answer % (MODEL.encode(), data, len(body) // 4)
        connection.send_response(200)
        connection.send_header("Content-Type", "application/json")
        connection.send_header("Content-Length", str(len(body)))
        connection.end_headers()
        connection.wfile.write(body)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server listens."""

    base_url: str

    def embedded(self) -> int:
        """Texts embedded since the server started, as the server counts them."""
        return self._stats()["inputs"]

    def requests(self) -> int:
        """Requests answered since then."""
        return self._stats()["requests"]

    def _stats(self) -> dict[str, int]:
        with urlopen(f"{self.base_url.removesuffix('/v1')}/stats") as answer:  # noqa: S310  our own http address
            return json.load(answer)


@contextmanager
def endpoint(latency: float, dimensions: int = DIMENSIONS) -> Generator[Endpoint]:
    """Run the server while the block runs.

    Args:
        latency: Seconds before each answer.
        dimensions: Width of the vectors.
    """
    command = [sys.executable, "-m", __name__, str(latency), str(dimensions)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Endpoint(process.stdout.readline().strip())
        finally:
            process.kill()


if __name__ == "__main__":
    with _Server(float(sys.argv[1]), int(sys.argv[2])) as server:
        print(server.base_url, flush=True)
        time.sleep(24 * 3600)
