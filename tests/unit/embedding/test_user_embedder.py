"""An embedder of the user: batches, retries, what is refused, and that nothing invalid gets through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingest_pipeline import CorpusConfig, build_resources
from ingest_pipeline.embedding import user_embedder_client
from ingest_pipeline.embedding.base import EmbeddedBatch, OpenAISettings, Purpose
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.embedding.input_limits import known_tokenizer, max_input_tokens
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.embedding.usage_meter import UsageMeter
from ingest_pipeline.embedding.user_embedder import UserEmbedder, find_embedder
from ingest_pipeline.embedding.user_embedder_client import UserEmbedderClient
from ingest_pipeline.embedding.user_embedder_role import read_answer
from ingest_pipeline.errors import (
    ConfigurationError,
    CorpusMismatchError,
    EmbedderError,
    EmbeddingUnavailableError,
    IngestError,
)
from ingest_pipeline.extensions.loader import read_extensions
from ingest_pipeline.ingestion.batch.batch_client import BatchClient
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.sandbox import children
from tests.support import user_code
from tests.support.user_code import direction

MODULE = "tests.support.user_code"
FINE = ["one", "two words", "three"]


def named(name: str, **arguments: object) -> dict[str, object]:
    return {"class": f"{MODULE}.{name}", "arguments": arguments}


def embedder(name: str, **arguments: object) -> UserEmbedder:
    (extension,) = read_extensions("embedder", named(name, **arguments))
    return UserEmbedder.load(extension)


def config(**options: object) -> CorpusConfig:
    return CorpusConfig(corpus="books", source="documents", **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def embed(
    found: UserEmbedder, texts: Sequence[str], meter: UsageMeter | None = None, purpose: Purpose = "document"
) -> EmbeddedBatch:
    async def run() -> EmbeddedBatch:
        async with UserEmbedderClient(found, OpenAISettings("ignored", 1, max_retries=2)) as client:
            return await client.embed(texts, meter, purpose=purpose)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_embedder_client, "_FIRST_WAIT", 0.01)


def test_texts_become_vectors_in_order_and_usage_is_counted() -> None:
    meter = UsageMeter()
    answer = embed(embedder("NotingEmbedder"), FINE, meter)
    assert answer.vectors.dtype == np.float32
    assert np.allclose(answer.vectors, [direction(text) for text in FINE])
    assert (answer.refused, answer.usage.embedded, answer.usage.tokens, answer.usage.requests) == ({}, 3, 4, 1)
    assert (meter.tokens, meter.requests, meter.retries) == (4, 1, 0)


def test_a_question_is_embedded_by_the_method_for_questions(tmp_path: Path) -> None:
    answer = embed(embedder("NotingEmbedder", notes=str(tmp_path / "notes")), ["two words"], purpose="query")
    assert np.allclose(answer.vectors, [direction("two words")])
    assert not (tmp_path / "notes").exists()


def test_what_it_declares_limits_the_batches_and_the_processes() -> None:
    settings = OpenAISettings("ignored", 1, concurrency=16, batch_inputs=128)
    found = UserEmbedderClient(embedder("NotingEmbedder", batch_size=3), settings).settings
    assert (found.batch_inputs, found.concurrency, found.dimensions) == (3, 1, 8)
    assert found.embedding == "embedder:noting-1/8"


@pytest.mark.promise("user-code")
def test_a_temporary_failure_is_retried_and_its_retry_is_counted(tmp_path: Path) -> None:
    meter = UsageMeter()
    answer = embed(embedder("ObedientEmbedder", calls=str(tmp_path / "calls")), ["busy", "fine"], meter)
    assert np.isfinite(answer.vectors).all()
    assert (meter.requests, meter.retries) == (2, 1)


@pytest.mark.parametrize("purpose", ["document", "query"])
def test_a_failure_that_stays_temporary_ends_as_that_of_an_api(purpose: Purpose) -> None:
    with pytest.raises(EmbeddingUnavailableError, match=r"failed 3 times, the last time with (Conn|Time)"):
        embed(embedder("ObedientEmbedder"), ["offline"], purpose=purpose)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("raise", "which raised ValueError: no such thing"),
        ("exit", "which raised SystemExit: 3"),
        ("die", "which ended its process (exit status 4)"),
        ("hang", "which took more than 2 seconds"),
        ("zero", "gets a vector of length zero from the embedder"),
        ("nan", "gets a vector that is not finite from the embedder"),
        ("big", "gets a vector that is not finite from the embedder"),
        ("long", "has too many words"),
    ],
)
def test_a_text_with_which_it_fails_is_refused_alone(text: str, problem: str) -> None:
    found = embedder("ObedientEmbedder", seconds=2 if text == "hang" else 600)
    answer = embed(found, [text, "two words"] if text == "hang" else [*FINE, text, *FINE])
    (index,) = answer.refused
    assert problem in answer.refused[index]
    assert np.isnan(answer.vectors[index]).all()
    assert np.isfinite(np.delete(answer.vectors, index, axis=0)).all()
    assert answer.usage.embedded == len(answer.vectors) - 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("few", r"returned 3 vectors for 4 texts"),
        ("many", r"returned 5 vectors for 4 texts"),
        ("wide", r"returned vectors of the shape \(5,\), not of 4 numbers"),
        ("ragged", "returned vectors of different widths"),
        ("words", "returned vectors of the type <U1, not of numbers"),
        ("nothing", "returned vectors that are a NoneType, not a list"),
        ("usage", "returned usage with -1 tokens"),
        ("index", "refused the text 4 of 4"),
    ],
)
def test_an_invalid_result_gives_no_vector_at_all(text: str, problem: str) -> None:
    with pytest.raises(EmbedderError, match=problem):
        embed(embedder("ObedientEmbedder"), [*FINE, text])


def test_the_tokens_of_an_invalid_result_are_counted() -> None:
    meter = UsageMeter()
    with pytest.raises(EmbedderError, match="returned 0 vectors for 1 text"):
        embed(embedder("ObedientEmbedder"), ["dear"], meter)
    assert (meter.tokens, meter.requests) == (50, 1)


@pytest.mark.promise("user-code")
def test_an_embedder_that_fails_with_everything_is_called_a_few_times_only(tmp_path: Path) -> None:
    found = embedder("ObedientEmbedder", calls=str(tmp_path / "calls"))
    with pytest.raises(EmbedderError, match=r"8 texts in a row could not be embedded\. The last makes the embedder"):
        embed(found, ["raise"] * 100)
    assert len((tmp_path / "calls").read_text().splitlines()) < 25


def test_its_process_is_kept_and_may_use_any_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "MAX_REQUESTS_PER_CHILD", 1)
    found = embedder("ProcessEmbedder")
    answers = [embed(found, ["text"]).vectors[0] for _ in range(3)]
    assert len({float(process) for process, _ in answers}) == 1
    assert {float(unlimited) for _, unlimited in answers} == {2.0}


def test_calls_at_once_have_a_process_each_and_are_no_more_than_it_allows() -> None:
    async def run() -> list[EmbeddedBatch]:
        async with UserEmbedderClient(embedder("ProcessEmbedder"), OpenAISettings("ignored", 1)) as client:
            return await asyncio.gather(*(client.embed(["text"]) for _ in range(6)))

    assert len({float(answer.vectors[0][0]) for answer in asyncio.run(run())}) == 2


def test_a_question_without_a_usable_vector_is_refused() -> None:
    assert embed(embedder("ObedientEmbedder"), ["nan"], purpose="query").refused.keys() == {0}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]\n",
        b'[[0, 0], [], "", ""]\n',
        b'[[0, 0], [], "", ""]\n' + b"\0" * 12,
        b'[[-1, 0], [], "", ""]\n' + b"\0" * 16,
        b'[[0, 0], [[3, "why"]], "", ""]\n' + b"\0" * 16,
    ],
)
def test_what_the_child_sends_is_checked_in_the_parent_too(answer: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_answer(answer, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"dimensions": 0}, "has 0 as its `dimensions`"),
        ({"dimensions": "8"}, "has '8' as its `dimensions`"),
        ({"batch_size": 5000}, "has 5000 as its `batch_size`"),
        ({"fingerprint": "two words"}, "contains a space or a semicolon"),
        ({"fingerprint": ""}, "not a text of 1 to 200 characters"),
    ],
)
def test_what_it_declares_is_checked_when_the_configuration_is_made(arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        config(embedder=named("NotingEmbedder", **arguments))


def test_other_mistakes_of_the_configuration_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no 'dimensions', which every embedder must have"):
        config(embedder=f"{MODULE}.Title")
    with pytest.raises(ConfigurationError, match="names more than one embedder"):
        config(embedder=[named("NotingEmbedder"), named("ObedientEmbedder")])
    with pytest.raises(ConfigurationError, match="`query_prefix` is set, and the vectors are of an embedder"):
        config(embedder=named("NotingEmbedder"), query_prefix="query: ")


@pytest.mark.parametrize("form", ["path", "json", "object", "class"])
def test_each_form_names_the_model_and_its_width(form: str) -> None:
    path = f"{MODULE}.NotingEmbedder"
    match form:
        case "path" | "json":
            text = path if form == "path" else json.dumps({"class": path, "arguments": {}})
            found = CorpusConfig.from_environment({"INGEST_EMBEDDER": text, "OPENAI_API_KEY": "k"})
        case "object":
            found = config(embedder=user_code.NotingEmbedder(), embedding_model="another", embedding_dimensions=3)
        case _:
            found = config(embedder=user_code.NotingEmbedder)
    assert (found.embedding_model, found.embedding_dimensions) == ("embedder:noting-1", 8)
    assert found.recipe.embedding == "embedder:noting-1/8"
    assert not found.uses_local_model
    resource = build_resources(found).embedder
    assert isinstance(resource.create_embedder(), UserEmbedderClient)
    assert found.replace(chunk_size=500).user_embedder == found.user_embedder


def test_another_fingerprint_is_another_model() -> None:
    one, other = (config(embedder=named("NotingEmbedder", fingerprint=name)) for name in ("a-1", "a-2"))
    assert one.recipe.fingerprint != other.recipe.fingerprint
    assert one.recipe.embedding != other.recipe.embedding
    assert build_resources(one).embedder.fingerprint != build_resources(other).embedder.fingerprint
    changed = one.replace(embedder=named("NotingEmbedder", fingerprint="a-2"))
    assert changed.recipe == other.recipe


@pytest.mark.parametrize("fingerprint", ["intfloat/e5-small", "jina-embeddings-v3", "text-embedding-3-small"])
def test_a_fingerprint_that_looks_like_a_model_brings_nothing_of_that_model(fingerprint: str) -> None:
    found = config(embedder=named("NotingEmbedder", fingerprint=fingerprint))
    assert found.recipe.embedding == f"embedder:{fingerprint}/8"
    assert (max_input_tokens(found.embedding_model), known_tokenizer(found.embedding_model)) == (None, None)
    assert found.with_embedding(found.recipe.embedding).recipe == found.recipe


def test_a_resource_shows_no_arguments_and_finds_the_embedder_by_its_key() -> None:
    secret = config(embedder=named("NotingEmbedder", notes="a-secret"))
    resource = build_resources(secret).embedder
    assert resource.embedder is not None
    assert "a-secret" not in repr(resource)
    assert find_embedder(resource.embedder) is secret.user_embedder
    plain = OpenAIEmbedderResource(embedder=f"{MODULE}.NotingEmbedder").create_embedder()
    assert plain.settings.embedding == "embedder:noting-1/8"
    with pytest.raises(ConfigurationError, match="No configuration of this process names the embedder"):
        OpenAIEmbedderResource(embedder=f"{MODULE}.NotingEmbedder#0123").create_embedder()


def test_a_corpus_keeps_its_model_and_is_not_embedded_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    own = config(embedder=named("NotingEmbedder"))
    of_api = own.with_embedding("text-embedding-3-small/1536")
    assert (of_api.embedder, of_api.recipe.embedding) == ((), "text-embedding-3-small/1536")
    assert isinstance(create_embedder(own.embedder_settings, "text-embedding-3-small/1536"), OpenAIEmbedder)
    for settings in (config().embedder_settings, config(embedder=named("ObedientEmbedder")).embedder_settings):
        with pytest.raises(CorpusMismatchError, match=r"are of embedder:noting-1/8, and the settings name"):
            create_embedder(settings, "embedder:noting-1/8")
    narrow = own.with_embedding("embedder:noting-1/4")
    assert narrow.recipe.embedding == "embedder:noting-1/4"
    with pytest.raises(CorpusMismatchError):
        create_embedder(own.embedder_settings, "embedder:noting-1/4")


def test_batch_jobs_are_refused() -> None:
    settings = config(embedder=named("NotingEmbedder")).embedder_settings
    with pytest.raises(ConfigurationError, match=r"embedder .*NotingEmbedder has no batch jobs"):
        BatchClient(settings)
    assert BatchClient(replace(settings, embedder=None, model="m"))


def test_its_errors_are_of_this_package() -> None:
    assert issubclass(EmbedderError, IngestError)
