"""The local embedder: its vectors, what it refuses, and that it neither blocks the loop nor loads too early."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ingest_pipeline
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding import local
from ingest_pipeline.embedding.base import EmbeddedBatch, EmbeddingSettings
from ingest_pipeline.embedding.create import create_embedder, embeds_for_free
from ingest_pipeline.embedding.local import (
    LOCAL_DIMENSIONS,
    LOCAL_MODEL,
    MAX_INPUT_TOKENS,
    LocalEmbedder,
    is_local,
    local_model,
)
from ingest_pipeline.embedding.usage_meter import UsageMeter
from ingest_pipeline.errors import ConfigurationError, MissingExtraError
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.types import Vectors

ROOT = Path(ingest_pipeline.__file__).parents[1]
RECORDED = {
    "a cat": (2, [-0.0809949, -0.0366629, 0.0150268, 0.1237184, 0.0231860, 0.0391409]),
    "The quick brown fox jumps over the lazy dog.": (
        12,
        [0.0300661, -0.0147121, 0.0035834, 0.0643504, 0.0456126, -0.0206442],
    ),
    "\N{ROCKET} \u00fcn\u00efcode\0": (10, [0.1073841, 0.0845001, -0.0013044, -0.0796091, 0.0081464, 0.0188539]),
    " ": (1, [-0.0904848, -0.0068723, 0.0195893, 0.0728999, 0.0185282, -0.0660277]),
}
"""Tokens and first components of vectors that corpora hold. A change of either is another model."""


def settings(dimensions: int = LOCAL_DIMENSIONS) -> EmbeddingSettings:
    return EmbeddingSettings(LOCAL_MODEL, dimensions)


def embed(texts: Sequence[str], dimensions: int = LOCAL_DIMENSIONS, meter: UsageMeter | None = None) -> EmbeddedBatch:
    async def once() -> EmbeddedBatch:
        async with LocalEmbedder(settings(dimensions)) as embedder:
            return await embedder.embed(texts, meter)

    return asyncio.run(once())


def vectors(texts: Sequence[str], dimensions: int = LOCAL_DIMENSIONS) -> Vectors:
    batch = embed(texts, dimensions)
    assert batch.refused == {}
    return batch.vectors


def test_the_same_text_gets_the_same_unit_vector_in_every_release() -> None:
    batch = embed(list(RECORDED))
    assert batch.vectors.dtype == np.float32
    assert batch.vectors.flags.c_contiguous
    assert np.allclose(batch.vectors[:, :6], [components for _, components in RECORDED.values()], atol=2e-6)
    assert np.allclose(np.linalg.norm(batch.vectors, axis=1), 1, atol=1e-6)
    assert batch.usage.tokens == sum(tokens for tokens, _ in RECORDED.values())


def test_similar_meanings_have_similar_vectors() -> None:
    query, near, far = vectors(["how to remove a file", "deleting documents from disk", "how to bake bread"])
    assert query @ near > query @ far


def test_vectors_are_those_of_wordllama() -> None:
    texts = ["The quick brown fox", "jumps", "\N{ROCKET} \u00fcn\u00efcode\0"]
    model = local_model()
    assert model.tokenizer.padding is None  # padding would be counted as tokens
    model.tokenizer.enable_padding()
    theirs = model.embed(texts, norm=True)
    model.tokenizer.no_padding()
    assert np.allclose(vectors(texts), theirs, atol=1e-6)


def test_a_vector_does_not_depend_on_the_rest_of_its_batch() -> None:
    texts = ["short", "a much longer text about something else entirely. " * 40, "middle " * 9]
    apart = np.concatenate([vectors([text]) for text in texts])
    assert np.array_equal(vectors(texts), apart)


def test_narrower_vectors_are_the_first_components_made_unit_length() -> None:
    wide = vectors(["a cat"])[:, :64]
    assert np.allclose(vectors(["a cat"], 64), wide / np.linalg.norm(wide), atol=1e-6)


def test_a_text_that_is_empty_or_too_long_is_refused_alone_and_not_counted() -> None:
    batch = embed(["a cat", "", "a " * 9000, "a dog"])
    assert batch.refused[1] == "is empty"
    assert batch.refused[2].startswith("has ")
    assert batch.refused[2].endswith(f" tokens, and {LOCAL_MODEL} takes at most {MAX_INPUT_TOKENS}")
    assert set(batch.refused) == {1, 2}
    assert np.isnan(batch.vectors[[1, 2]]).all()
    assert np.array_equal(batch.vectors[[0, 3]], vectors(["a cat", "a dog"]))
    assert batch.usage.tokens == 4


def test_a_text_of_as_many_tokens_as_allowed_is_embedded() -> None:
    words = "a " * MAX_INPUT_TOKENS
    tokens = len(local_model().tokenizer.encode(words, add_special_tokens=False).ids)
    batch = embed([words[: 2 * (2 * MAX_INPUT_TOKENS - tokens) - 1]])
    assert batch.refused == {}
    assert MAX_INPUT_TOKENS - 2 <= batch.usage.tokens <= MAX_INPUT_TOKENS


def test_a_batch_counts_as_one_request_without_retries() -> None:
    meter = UsageMeter()
    batch = embed(["a cat", "a dog"], meter=meter)
    assert (batch.usage.requests, batch.usage.retries, batch.usage.tokens) == (1, 0, 4)
    assert (meter.requests, meter.retries, meter.tokens) == (1, 0, 4)
    assert 0 < batch.usage.seconds <= meter.seconds


def test_an_empty_batch_has_no_vectors() -> None:
    assert embed([]).vectors.shape == (0, LOCAL_DIMENSIONS)


@pytest.mark.parametrize("dimensions", [0, -1, 257])
def test_a_width_that_the_model_does_not_have_is_refused(dimensions: int) -> None:
    with pytest.raises(ConfigurationError, match=f"no vectors of {dimensions} dimensions"):
        LocalEmbedder(settings(dimensions))


def test_a_missing_extra_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", {}.get)
    with pytest.raises(
        MissingExtraError, match=r"pip install 'ingest-pipeline\[local\]', or set OPENAI_API_KEY or OPENAI_BASE"
    ):
        LocalEmbedder(settings())


def test_nothing_is_imported_before_the_first_embedding_and_the_root_logger_is_left_alone() -> None:
    program = """
import asyncio, logging, sys
from ingest_pipeline.embedding.base import EmbeddingSettings
from ingest_pipeline.embedding.local import LocalEmbedder
embedder = LocalEmbedder(EmbeddingSettings("wordllama-l2-256", 256))
assert not {"wordllama", "tokenizers", "openai", "httpx2", "dagster"} & set(sys.modules)
asyncio.run(embedder.embed(["a cat"]))
assert "wordllama" in sys.modules
root = logging.getLogger()
assert (root.handlers, root.level) == ([], logging.WARNING), (root.handlers, root.level)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_the_model_is_loaded_once() -> None:
    local._load.cache_clear()  # pyright: ignore[reportPrivateUsage] - else an earlier test loaded it
    with ThreadPoolExecutor(4) as pool:
        loaded = [pool.submit(local_model) for _ in range(8)]
    assert len({id(model.result()) for model in loaded}) == 1


def test_many_loops_and_batches_at_once_get_their_own_vectors() -> None:
    batches = [[f"text {number}", f"another {number}"] for number in range(32)]

    async def half(mine: list[list[str]]) -> list[EmbeddedBatch]:
        async with LocalEmbedder(settings()) as embedder:
            return await asyncio.gather(*[embedder.embed(texts) for texts in mine])

    def in_a_loop_of_its_own(mine: list[list[str]]) -> list[EmbeddedBatch]:
        return asyncio.run(half(mine))

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(in_a_loop_of_its_own, [batches[:16], batches[16:]]))
    for texts, batch in zip(batches, [batch for part in results for batch in part], strict=True):
        assert np.array_equal(batch.vectors, vectors(texts))


def test_the_event_loop_is_not_blocked_while_texts_are_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats are sent by threads of the loop, which has about as many as the machine has cores."""
    release = threading.Event()
    ours = local._encode  # pyright: ignore[reportPrivateUsage]

    def slow(texts: Sequence[str], dimensions: int) -> tuple[Vectors, dict[int, str], int]:
        assert release.wait(300)
        return ours(texts, dimensions)

    monkeypatch.setattr(local, "_encode", slow)

    async def run() -> list[EmbeddedBatch]:
        async with LocalEmbedder(settings()) as embedder:
            waiting = [asyncio.create_task(embedder.embed([f"text {number}"])) for number in range(100)]
            await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.wait_for(asyncio.to_thread(time.monotonic), 30)
            assert not any(task.done() for task in waiting)
            release.set()
            return await asyncio.gather(*waiting)

    assert len(asyncio.run(run())) == 100


def test_leaving_the_block_does_not_wait_and_drops_queued_work(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    begun: list[str] = []

    def slow(texts: Sequence[str], dimensions: int) -> tuple[Vectors, dict[int, str], int]:
        begun.extend(texts)
        assert release.wait(300)
        return np.zeros((len(texts), dimensions), np.float32), {}, 0

    monkeypatch.setattr(local, "_encode", slow)

    async def run() -> None:
        async with LocalEmbedder(settings()) as embedder:
            tasks = [asyncio.create_task(embedder.embed([f"text {number}"])) for number in range(10)]
            while len(begun) < 2:  # noqa: ASYNC110  a thread sets no event of a loop
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
        assert not release.is_set()
        release.set()

    asyncio.run(run())
    assert len(begun) == 2


@pytest.mark.parametrize(
    ("model", "base_url", "expected"),
    [
        (LOCAL_MODEL, None, True),
        (LOCAL_MODEL, "", True),
        (LOCAL_MODEL, "http://localhost:1", False),
        ("m", None, False),
    ],
)
def test_a_model_behind_an_endpoint_is_not_the_local_one_whatever_its_name(
    model: str, base_url: str | None, *, expected: bool
) -> None:
    assert is_local(model, base_url) is expected
    config = CorpusConfig(
        corpus="docs", source="d", embedding_model=model, embedding_base_url=base_url, embedding_dimensions=8
    )
    assert config.uses_local_model is expected
    assert isinstance(create_embedder(replace(config.embedder_settings, api_key="k")), LocalEmbedder) is expected
    resource = OpenAIEmbedderResource(model=model, base_url=base_url)
    assert resource.is_local is expected


@pytest.mark.parametrize("base_url", [None, "http://localhost:1"])
@pytest.mark.parametrize("configured", [LOCAL_MODEL, "m"])
@pytest.mark.parametrize("recorded", [None, f"{LOCAL_MODEL}/8", "m/8"])
def test_whether_embedding_is_free_is_known_without_an_embedder(
    configured: str, base_url: str | None, recorded: str | None
) -> None:
    config = CorpusConfig(
        corpus="docs", source="d", embedding_model=configured, embedding_base_url=base_url, embedding_dimensions=8
    )
    config = config.replace(embedding_api_key="k")
    says = create_embedder(config.embedder_settings, recorded).is_free
    assert embeds_for_free(config.embedder_settings, recorded) is says
    assert embeds_for_free(config.with_embedding(recorded).embedder_settings) is says
